"""Each level of isolation keeps a program from results, or says that it does not; forced, so that any machine tests all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enpire_bringup import program_isolation
from enpire_bringup.program_confinement import landlock_version
from enpire_bringup.program_process import ProgramError, ProgramProcess, ProgramTimeout

PROGRAM = '''
class Program:
    def __init__(self, config):
        pass

    def read(self, file):
        return open(file).read()

    def write(self, file):
        open(file, 'a').write('x')

    def hang(self):
        while True:
            pass
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Where recipes lie: in the folder of the results, which programs may not read."""
    monkeypatch.setenv('ENPIRE_RUNS', str(tmp_path / 'runs'))
    folder = tmp_path / 'runs' / 'c' / 'station_1' / 'recipe'
    folder.mkdir(parents=True)
    (folder / 'program.py').write_text(PROGRAM)
    (folder.parent / 'ledger.jsonl').write_text('{}')
    return folder


@pytest.mark.parametrize('level', ['landlock', 'bubblewrap'])
def test_program_neither_reads_nor_changes_results(recipe, level):
    if level == 'landlock' and not landlock_version():
        pytest.skip('this kernel has no Landlock')
    if level == 'bubblewrap' and not program_isolation.bubblewrap_works():
        pytest.skip('bwrap is not installed, or may not make namespaces here')
    with ProgramProcess(recipe / 'program.py', 'Program', {}, isolation=level) as program:
        assert program.isolation.startswith(level) and not program_isolation.is_weak(program.isolation)
        assert program.call('read', str(recipe / 'program.py'), timeout=5) == PROGRAM
        for method, file in (('read', recipe.parent / 'ledger.jsonl'), ('write', recipe.parent / 'ledger.jsonl'),
                             ('write', recipe / 'program.py'), ('write', '/var/tmp/enpire_test')):
            with pytest.raises(ProgramError, match='PermissionError|FileNotFoundError|Read-only'):
                program.call(method, str(file), timeout=5)
        # The guard and the clock of its CPU time find the program's own process.
        program.request('hang')
        with pytest.raises(ProgramTimeout):
            program.answer(timeout=0.2)
        assert program.cpu_time > 0.1 and 'in hang' in program.interrupt(timeout=5)
    assert (recipe.parent / 'ledger.jsonl').read_text() == '{}'


def test_with_limits_alone_the_name_says_that_isolation_is_weak(recipe):
    with ProgramProcess(recipe / 'program.py', 'Program', {}, isolation='limits') as program:
        assert program.isolation.startswith('limits') and program_isolation.is_weak(program.isolation)
        assert program.call('read', str(recipe.parent / 'ledger.jsonl'), timeout=5) == '{}'


AS_NOBODY = '''
import json, os, sys
sys.path.insert(0, sys.argv[1])
from enpire_bringup.program_isolation import isolate
runs, recipe, scratch = sys.argv[2:]
name = isolate('user', [recipe], scratch, [runs])

def attempt(file, mode):
    try:
        open(file, mode).close()
        return True
    except OSError:
        return False

print(json.dumps([name, os.geteuid(), attempt(recipe + '/program.py', 'r'), attempt(recipe + '/program.py', 'a'),
                  attempt(runs + '/c/station_1/ledger.jsonl', 'r'), attempt(scratch + '/mine', 'w'),
                  attempt('/etc/enpire_test', 'w')]))
'''


def as_nobody(recipe: Path, scratch: Path) -> list:
    source = str(Path(program_isolation.__file__).resolve().parents[1])
    printed = subprocess.run([sys.executable, '-I', '-S', '-c', AS_NOBODY, source, str(recipe.parents[2]), str(recipe),
                              str(scratch)], check=True, capture_output=True, text=True).stdout
    return json.loads(printed)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can become another user')
def test_root_becomes_a_user_who_sees_no_results_and_says_limits_where_that_user_could_not_read_the_program(recipe):
    scratch = recipe.parents[3] / 'scratch'
    scratch.mkdir()
    for folder in recipe.parents:       # pytest's folders are the user's own
        if os.stat(folder).st_mode & 0o055 != 0o055 and folder.is_relative_to(scratch.parents[1]):
            folder.chmod(0o755)
    scratch.parents[2].chmod(0o755)
    name, *seen = as_nobody(recipe, scratch)
    if name.startswith('limits'):
        pytest.skip('no right to mount here')
    assert name.startswith('user') and seen == [65534, True, False, False, True, False]
    recipe.chmod(0o700)
    name, user, *_ = as_nobody(recipe, scratch)
    assert name.startswith('limits') and user == 0


def test_levels_are_tried_from_the_strongest_on(monkeypatch):
    def level(landlock: int, bubblewrap: bool, user: int) -> str:
        monkeypatch.setattr(program_isolation, 'landlock_version', lambda: landlock)
        monkeypatch.setattr(program_isolation, 'bubblewrap_works', lambda: bubblewrap)
        monkeypatch.setattr(os, 'geteuid', lambda: user)
        return program_isolation.strongest_level.__wrapped__()

    assert [level(4, True, 0), level(0, True, 0), level(0, False, 0), level(0, False, 1000)] == [
        'landlock', 'bubblewrap', 'user', 'limits']
