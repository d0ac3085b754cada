import io
import json
import math

import pytest

from enpire_agent.cli import main
from enpire_agent.campaign_progress import Progress, status_line
from enpire_msgs.msg import StationStatus


@pytest.fixture
def campaign(make_campaign, monkeypatch):
    campaign, world, _ = make_campaign(max_iterations=1)
    campaign.run()
    monkeypatch.setenv('ENPIRE_RUNS', str(campaign.directory.parents[1]))
    return campaign, world


def test_score_as_json_has_every_figure(campaign, capsys):
    assert main(['score', '--json', '--window', '10']) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {'trials', 'successes', 'outcomes', 'window', 'window_success', 'interval', 'env_hash',
                            'time_to_success_s', 'solved', 'fresh_seeds'}
    fresh = figures['fresh_seeds']
    assert figures['solved'] is False and fresh['needed'] == 10 and fresh['trials'] == 20
    assert fresh['recipe'] == campaign[0].state.baseline.recipe
    assert fresh['interval'][0] < fresh['successes'] / 20 < fresh['interval'][1]
    assert figures['trials'] == sum(figures['outcomes'].values()) == campaign[0].state.trials
    assert figures['window'] == 10 and 0 <= figures['window_success'] <= 1
    assert figures['interval'][0] < figures['successes'] / figures['trials'] < figures['interval'][1]


def test_score_of_one_kind_and_in_words(campaign, capsys):
    assert main(['score', 'c', '--kind', 'baseline']) == 0
    out = capsys.readouterr().out
    assert 'of 20 trials succeeded' in out and 'chain intact' in out


def test_ledger_verify_names_the_first_bad_line(campaign, capsys):
    assert main(['ledger', 'verify', 'c']) == 0
    assert 'chain intact' in capsys.readouterr().out
    file = campaign[1].ledger.file
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(''.join(lines[:4] + lines[5:]))
    assert main(['ledger', 'verify', 'c']) == 2
    assert 'line 5 does not follow line 4' in capsys.readouterr().err
    assert main(['score']) == 2, 'a broken ledger has no score'


def test_ledger_verify_tells_of_trials_that_the_ledger_lacks(campaign, capsys):
    ledger = campaign[1].ledger
    folder = ledger.file.parent / 'trials'
    for name, files in (('cut_off', ['started.json']), ('removed', ['started.json', 'trial.json'])):
        (folder / name).mkdir(parents=True)
        for file in files:
            (folder / name / file).write_text('{}')
        code = main(['ledger', 'verify', 'c'])
        out = capsys.readouterr().out
        assert 'cut_off was interrupted; it is entered as ABORTED when the station starts' in out
        removed = name == 'removed'
        assert (code, 'removed was completed and has no line' in out) == (int(removed), removed)
    ledger.file.unlink()
    assert main(['ledger', 'verify', 'c']) == 1
    assert 'no ledger' in capsys.readouterr().out


def test_report_prints_where_the_page_is(campaign, capsys):
    assert main(['report']) == 0
    path = capsys.readouterr().out.splitlines()[0]
    assert path.endswith('/c/report.html') and open(path).read().startswith('<!doctype html>')


@pytest.mark.parametrize('arguments, said', [
    (['score', 'nothing'], "no campaign 'nothing' .* known: c"),
    (['score', 'c', '--station', 'station_7'], "no ledger of station 'station_7'.* station_1"),
    (['report', '../c/nothing'], 'no campaign')])
def test_what_is_not_there_is_one_line_with_what_is(campaign, capsys, arguments, said):
    import re

    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and len(error.strip().splitlines()) == 1


def test_without_any_campaign_the_error_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('ENPIRE_RUNS', str(tmp_path))
    assert main(['score']) == 2
    assert 'enpire demo' in capsys.readouterr().err


def _status(**changes):
    return StationStatus(**{**dict(
        station='station_1', state=StationStatus.RUNNING, phase='search', iteration=2, hypothesis='Push slower',
        message='3 of 4 so far, 6 planned', best_trials=6, best_successes=2, trials=31, remaining=125.0), **changes})


def test_the_progress_line_tells_phase_hypothesis_counts_and_time_left():
    assert status_line(_status()) == ('station_1 search | #2 "Push slower" | 3 of 4 so far, 6 planned | best 2/6 | '
                                      '31 trials | left 2:05 | running')
    assert 'left ?' in status_line(_status(remaining=math.nan))
    assert 'HELD: look at the arm' in status_line(_status(state=StationStatus.HELD, message='look at the arm'))


def test_without_a_terminal_a_line_comes_at_each_change_only():
    stream = io.StringIO()
    progress = Progress(stream)
    for remaining in (125.0, 124.0, 123.0):
        progress.status(_status(remaining=remaining))
    progress.status(_status(message='4 of 5 so far, 6 planned'))
    assert len(stream.getvalue().splitlines()) == 2


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_one_line_is_updated_and_never_wraps(monkeypatch):
    monkeypatch.setenv('COLUMNS', '60')
    stream = _Terminal()
    progress = Progress(stream)
    progress.status(_status())
    progress.status(_status(remaining=124.0))
    progress.say('kept')
    text = stream.getvalue()
    assert text.count('\n') == 1 and text.endswith('kept\n')
    assert all(len(part.removeprefix('\x1b[K')) < 60 for part in text.split('\r'))
