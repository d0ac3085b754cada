"""What program.md tells an agent is so."""

import re
import shlex

import pytest

from enpire_agent.cli import make_parser
from enpire_agent.recipe import EDITABLE, static_check
from enpire_agent.recipe_repository import RecipeRepository
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.paths import share_directory

PROGRAMS = sorted(share_directory().glob('tasks/*/recipe/program.md'))


@pytest.fixture(params=PROGRAMS, ids=lambda file: file.parents[1].name)
def program(request):
    return request.param


def test_every_verb_that_it_names_is_one(program):
    commands = [line.split('#')[0] for line in program.read_text().splitlines() if line.startswith('enpire ')]
    assert len(commands) >= 12
    for command in commands:
        make_parser().parse_args(shlex.split(command)[1:])


def test_it_names_what_may_be_edited_and_nothing_else_passes(program):
    text = program.read_text()
    table = re.findall(r'^\| `([^`]+)` \|', text, re.MULTILINE)
    assert sorted(table) == sorted([*EDITABLE, 'notes/'])
    for path in ('program.md', 'notes', 'notes/../policy.py', 'notes/__pycache__/policy.cpython-311.pyc',
                 'notes/.git/config', '.gitattributes', 'policy_2.py', '/etc/passwd'):
        with pytest.raises(ConfigurationError, match='may change only'):
            static_check(program.parent, [path])
    static_check(program.parent, [*EDITABLE, 'notes/learned/gain.md'])


def test_the_notes_of_a_starting_recipe_go_with_it(program, tmp_path):
    notes = [str(file.relative_to(program.parent)) for file in program.parent.glob('notes/*')]
    assert notes == (['notes/reading.md'] if 'reading.md' in program.read_text() else [])
    static_check(program.parent, notes)
    repository = RecipeRepository.open_or_create(tmp_path / 'recipe', 'station_1', program.parent)
    assert set(notes) < set(repository.files(repository.head))
