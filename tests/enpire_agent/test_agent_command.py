"""The command `enpire` of a coding agent's tools, confined as they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_campaign import record_campaign

from enpire_agent.agent_command import needed_files, write_command
from enpire_agent.agent_place import Place
from enpire_bringup import bound_command


@pytest.fixture
def place(tmp_path):
    directory = record_campaign(tmp_path / 'runs' / 'c', decisions=('keep',) * 2) / 'station_1'
    copy = directory / 'agent' / 'codex' / 'recipe'
    copy.mkdir(parents=True)
    (copy / 'policy.py').write_text('class Policy:\n    pass\n')
    (copy / 'recipe.yaml').write_text('method: push\n')
    (tmp_path / 'runs' / '.stations').mkdir()
    return Place(directory, copy)


def test_it_works_in_a_tool_that_reaches_the_campaign_and_its_copy_only(place, tmp_path):
    campaign, home = place.directory.parent, tmp_path / 'home'
    home.mkdir()
    commands = write_command(place.recipe.with_name('bin'), place, 'push_t').parent
    places = {'readable': [sys.prefix, sys.base_prefix, *map(str, (campaign, *needed_files(campaign)))],
              'writable': [str(place.recipe), str(home)], 'hidden': []}
    script = (f'cd {home} && enpire records 2 && cd notes 2>/dev/null; enpire note "It slips" && enpire diff && '
              f'enpire score | head -1; ls {tmp_path / "runs"}; echo x >> {place.directory / "ledger.jsonl"}')
    done = subprocess.run(
        [sys.executable, '-I', '-S', bound_command.__file__, str(os.getpid()), json.dumps(places), 'sh', '-c', script],
        env={'PATH': f'{commands}:{os.environ["PATH"]}', 'HOME': str(home), 'TMPDIR': str(home)}, timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert 'c/station_1: 48 trials' in done.stdout and 'noted in notes/journal.md' in done.stdout, done
    assert '+class Policy:' in done.stdout and 'of 48 trials succeeded' in done.stdout
    assert 'It slips' in (place.recipe / 'notes' / 'journal.md').read_text()
    assert done.stderr.lower().count('permission denied') == 2, 'other stations, and writing the ledger'


def test_what_the_command_needs_is_neither_results_nor_a_home_nor_the_current_folder(tmp_path, monkeypatch):
    for name in ('home', 'here', 'packages'):
        (tmp_path / name).mkdir()
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.chdir(tmp_path / 'here')
    folders = [tmp_path, tmp_path / 'home', tmp_path / 'here', tmp_path / 'packages']
    monkeypatch.setattr(sys, 'path', [*map(str, folders), '', '/', '/nowhere'])
    needed = needed_files(tmp_path / 'runs' / 'c')
    assert tmp_path / 'packages' in needed and not {*folders[:3], Path('/')} & set(needed)
    assert all(path.exists() for path in needed)


def test_messages_can_be_used_where_the_installation_is_links_into_the_build_folder(place):
    campaign = place.directory.parent
    places = {'readable': [sys.prefix, sys.base_prefix, *map(str, needed_files(campaign))], 'writable': [], 'hidden': []}
    program = 'from enpire_msgs.srv import Hold; Hold.Request.__import_type_support__(); print("there")'
    done = subprocess.run([sys.executable, '-I', '-S', bound_command.__file__, str(os.getpid()), json.dumps(places),
                           sys.executable, '-B', '-c', program], env={**os.environ, 'PYTHONPATH': ':'.join(sys.path)},
                          cwd='/', timeout=60, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.stdout == 'there\n', done
