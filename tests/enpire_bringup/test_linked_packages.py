"""A confined program may import packages that `colcon build --symlink-install` has linked, and nothing beside them."""

from __future__ import annotations

import pytest

from enpire_bringup.program_confinement import landlock_version
from enpire_bringup.program_process import ProgramProcess


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A package in src/, linked into build/, which is on the path."""
    package = tmp_path / 'src' / 'linked_package'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('WORD = "found"\n')
    (tmp_path / 'src' / 'secret.txt').write_text('secret')
    (tmp_path / 'build').mkdir()
    (tmp_path / 'build' / 'linked_package').symlink_to(package)
    monkeypatch.syspath_prepend(str(tmp_path / 'build'))
    return tmp_path


def test_linked_package_is_importable_and_its_neighbor_is_not_readable(workspace):
    if not landlock_version():
        pytest.skip('this kernel has no Landlock')
    program = workspace / 'program' / 'program.py'
    program.parent.mkdir()
    program.write_text(f'''
import linked_package

class Program:
    def __init__(self, config):
        pass

    def word(self):
        return linked_package.WORD

    def secret(self):
        try:
            return open({str(workspace / 'src' / 'secret.txt')!r}).read()
        except PermissionError:
            return 'refused'
''')
    process = ProgramProcess(program, 'Program', {})
    try:
        assert process.isolation.startswith('landlock')
        assert process.call('word', timeout=5.0) == 'found'
        assert process.call('secret', timeout=5.0) == 'refused'
    finally:
        process.close()
