import json
import multiprocessing
import resource

import pytest

from enpire_agent.durable_file import DiskFullError
from enpire_agent.ledger import FIRST, Ledger, LedgerError


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / 'ledger.jsonl')
    for number in range(5):
        ledger.append({'trial_id': f't{number}', 'outcome': 'SUCCESS', 'duration': 1.5})
    return ledger


def _change_line(ledger, number, change):
    lines = ledger.file.read_text().splitlines(keepends=True)
    lines[number - 1] = change(lines[number - 1])
    ledger.file.write_text(''.join(lines))


def test_an_untouched_ledger_verifies(ledger):
    entries = ledger.verify()
    assert [entry['trial_id'] for entry in entries] == ['t0', 't1', 't2', 't3', 't4']
    assert entries[0]['previous'] == FIRST
    assert [e['previous'] for e in entries[1:]] == [e['hash'] for e in entries[:-1]]


def test_a_changed_outcome_names_its_line(ledger):
    _change_line(ledger, 3, lambda line: line.replace('SUCCESS', 'FAILURE'))
    with pytest.raises(LedgerError, match=r'line 3 \(trial t2\) was changed'):
        ledger.verify()


def test_a_removed_line_names_the_gap(ledger):
    _change_line(ledger, 3, lambda line: '')
    with pytest.raises(LedgerError, match='line 3 does not follow line 2'):
        ledger.verify()


def test_a_line_rehashed_by_hand_still_breaks_the_chain(ledger):
    from enpire_agent.ledger import canonical, line_hash

    def forge(line):
        entry = {**json.loads(line), 'outcome': 'FAILURE'}
        entry['hash'] = line_hash(entry)
        return canonical(entry).decode() + '\n'

    _change_line(ledger, 2, forge)
    with pytest.raises(LedgerError, match='line 3 does not follow'):
        ledger.verify()


def test_a_torn_last_line_is_reported_and_moved_aside_by_the_next_trial(ledger, tmp_path, caplog):
    with open(ledger.file, 'ab') as stream:
        stream.write(b'{"trial_id": "t5", "outc')
    with pytest.raises(LedgerError, match='line 6 is torn'):
        ledger.verify()
    assert len(ledger.entries()) == 5

    ledger.append({'trial_id': 't6', 'outcome': 'TIMEOUT'})

    assert [entry['trial_id'] for entry in ledger.verify()][-1] == 't6'
    (aside,) = tmp_path.glob('ledger.jsonl.torn-*')
    assert aside.read_bytes() == b'{"trial_id": "t5", "outc'
    assert 'moved aside' in caplog.text


def test_nan_is_refused_and_leaves_the_ledger_as_it_was(ledger):
    before = ledger.file.read_bytes()
    with pytest.raises(LedgerError, match='cannot hold'):
        ledger.append({'trial_id': 't5', 'duration': float('nan')})
    assert ledger.file.read_bytes() == before


def test_nothing_is_appended_behind_a_line_that_was_changed(ledger):
    _change_line(ledger, 5, lambda line: line.replace('SUCCESS', 'FAILURE'))
    with pytest.raises(LedgerError, match='the last line .trial t4. was changed'):
        ledger.append({'trial_id': 't5'})


def test_a_long_last_line_is_found_and_continued(ledger):
    ledger.append({'trial_id': 'long', 'reason': 'x' * 200_000})
    ledger.append({'trial_id': 'next'})
    assert [entry['trial_id'] for entry in ledger.verify()][-2:] == ['long', 'next']


def test_a_full_disk_is_one_clear_error_and_the_ledger_stays_whole(ledger):
    before = ledger.file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))     # room for a part of a line
    try:
        with pytest.raises(DiskFullError, match=r'ledger.jsonl: could not be written, file too large .* make room'):
            ledger.append({'trial_id': 't5', 'reason': 'x' * 500})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ledger.file.read_bytes() == before
    ledger.append({'trial_id': 't5'})
    assert len(ledger.verify()) == 6


def _append_many(file, name):
    for number in range(25):
        Ledger(file).append({'trial_id': f'{name}{number}'})


def test_two_processes_can_append_at_the_same_time(tmp_path):
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=_append_many, args=(tmp_path / 'l.jsonl', name)) for name in 'ab']
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert len(Ledger(tmp_path / 'l.jsonl').verify()) == 50
