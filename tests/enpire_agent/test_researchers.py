"""Who does the research on a station: names, settings files, and what is missing before a campaign begins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from enpire_agent.agent_programs import AGENTS
from enpire_agent.knowledge import family_table, give_knowledge
from enpire_agent.researcher import BuiltinResearcher
from enpire_agent.researchers import choose_researcher, make_researcher, read_researcher
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.environment import environment_hash
from enpire_bringup.station import load_station, researcher_name
from enpire_bringup.task import load_task

SETTINGS = 'name: codex\nmodel: some-model\nprogram: {program}\nkey_variable: A_KEY_FOR_TESTS\ntokens_per_turn: 5000\n'


@pytest.fixture
def settings_file(tmp_path):
    program = tmp_path / 'codex'
    program.write_text('#!/bin/sh\n')
    program.chmod(0o755)
    file = tmp_path / 'my_codex.yaml'
    file.write_text(SETTINGS.format(program=program))
    return file


@pytest.fixture
def make(tmp_path, ideas_file):
    task = SimpleNamespace(ideas=ideas_file, directory=tmp_path / 'task')
    return lambda choice: make_researcher(choice, task, runs=tmp_path / 'runs', station='station_1',
                                          directory=tmp_path / 'runs' / 'c' / 'station_1')


@pytest.fixture
def named_station(tmp_path, settings_file):
    """named_station(name): a copy of a station that ships with the suite, with the researcher of `settings_file`."""

    def copy(name):
        file = tmp_path / f'{name}.yaml'
        file.write_text(load_station(name).file.read_text() + f'\nresearcher: {settings_file.name}\n')
        return load_station(file)

    return copy


def test_nobody_named_is_the_built_in_one(make):
    assert isinstance(make(choose_researcher('', '')), BuiltinResearcher)


def test_a_name_takes_usual_settings_and_a_file_its_own(settings_file):
    assert read_researcher('kimi_code').settings.model == ''
    choice = read_researcher(str(settings_file))
    assert (choice.name, choice.settings.model, choice.settings.tokens_per_turn) == ('codex', 'some-model', 5000)


def test_a_campaign_that_names_the_stations_own_researcher_gets_its_settings(settings_file):
    assert choose_researcher('codex', str(settings_file)).settings.model == 'some-model'
    assert choose_researcher('', str(settings_file)).settings.model == 'some-model'
    assert choose_researcher('claude_code', str(settings_file)).settings.model == ''
    assert choose_researcher('builtin', str(settings_file)).name == 'builtin'


@pytest.mark.parametrize('text, said', [
    ('name: codexx\n', "name is the text 'codexx'"), ('model: x\n', 'name is'),
    ('name: codex\nmodle: x\n', 'modle is not a known key')])
def test_a_settings_file_with_an_error_names_file_and_key(tmp_path, text, said):
    file = tmp_path / 'wrong.yaml'
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=f'{file}: {said}'):
        read_researcher(str(file))


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ConfigurationError, match='known: builtin, codex, claude_code, kimi_code'):
        read_researcher('gpt')


def test_a_missing_program_or_key_is_said_before_the_campaign_begins(make, settings_file, monkeypatch):
    monkeypatch.delenv('A_KEY_FOR_TESTS', raising=False)
    choice = read_researcher(str(settings_file))
    with pytest.raises(ConfigurationError, match='codex has no key and no login.*login.*export A_KEY_FOR_TESTS'):
        make(choice)
    monkeypatch.setenv('A_KEY_FOR_TESTS', 'not a key')
    assert make(choice).name == 'codex'
    (settings_file.parent / 'codex').unlink()
    with pytest.raises(ConfigurationError, match='no such file'):
        make(choice)


@pytest.mark.parametrize('name', AGENTS)
def test_a_program_that_is_not_installed_is_said_with_the_way_out(make, tmp_path, monkeypatch, name):
    monkeypatch.setenv('ENPIRE_AGENTS', str(tmp_path))
    monkeypatch.setenv('PATH', '/nonexistent')
    with pytest.raises(ConfigurationError, match=f'{name} is not installed; type: make agents'):
        make(read_researcher(name))


@pytest.mark.parametrize('shipped', ['gym', 'yam_bimanual_sim'])
def test_a_station_file_names_its_researcher(named_station, settings_file, shipped):
    assert load_station(shipped).researcher == ''
    assert named_station(shipped).researcher == str(settings_file)


def test_another_model_is_no_other_environment(named_station, settings_file):
    station, task = named_station('yam_bimanual_sim'), load_task('push_t')
    before = environment_hash(task, station)
    settings_file.write_text(settings_file.read_text().replace('some-model', 'another'))
    assert environment_hash(task, station) == before


def test_a_name_stays_and_a_file_is_found_from_any_folder(tmp_path):
    assert researcher_name('codex', tmp_path) == 'codex'
    assert researcher_name('', tmp_path) == ''
    assert researcher_name('mine.yaml', tmp_path) == str(tmp_path / 'mine.yaml')


def test_an_agent_may_read_the_stations_papers(make, settings_file, tmp_path, monkeypatch):
    monkeypatch.setenv('A_KEY_FOR_TESTS', 'not a key')
    monkeypatch.setenv('ENPIRE_PAPERS', str(tmp_path / 'papers'))
    assert tmp_path / 'papers' in make(read_researcher(str(settings_file)))._readable


@pytest.mark.parametrize('given', [True, False])
def test_a_campaign_hands_on_the_knowledge_that_it_was_given(make, settings_file, tmp_path, monkeypatch, given):
    monkeypatch.setenv('A_KEY_FOR_TESTS', 'not a key')
    (tmp_path / 'told.md').write_text('Push gently.\n\n' + family_table({'path': (1, 2)}))
    if given:
        give_knowledge(tmp_path / 'told.md', tmp_path / 'runs' / 'c')
    assert ('Push gently.' in make(read_researcher(str(settings_file)))._begin) is given
    assert make(read_researcher('builtin'))._knowledge == ({'path': (1, 2)} if given else {})
