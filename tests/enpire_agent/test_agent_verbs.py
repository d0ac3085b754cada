import json
import subprocess

import cv2
import pytest
from made_up_campaign import POLICY
from recorded_campaign import film, record_campaign

from enpire_agent import agent_verbs
from enpire_agent.agent_place import Place, find_place
from enpire_agent.agent_verbs import MOST_LINES, MOST_WIDTH, VerbError
from enpire_agent.cli import main
from enpire_agent.ledger import Ledger
from enpire_agent.recipe_repository import RecipeRepository
from enpire_bringup.configuration import ConfigurationError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A station of a campaign of 160 made-up trials, and a copy of its recipe."""
    directory = record_campaign(tmp_path / 'runs' / 'c', decisions=('keep',) * 15, trials=8, gate=20) / 'station_1'
    monkeypatch.setenv('ENPIRE_RUNS', str(tmp_path / 'runs'))
    copy = directory / 'agent' / 'codex' / 'recipe'
    copy.mkdir(parents=True)
    (copy / 'policy.py').write_text(POLICY)
    (copy / 'recipe.yaml').write_text('method: push\n')
    return Place(directory, copy)


@pytest.fixture
def shared(recipe, tmp_path, monkeypatch):
    """The place of a station that kept one recipe of three; a second one kept two."""
    for station, decisions in (('station_1', ('revert', 'keep', 'revert')), ('station_2', ('keep', 'keep'))):
        directory = tmp_path / 'runs' / 'c' / station
        repository = RecipeRepository.open_or_create(directory / 'recipe', station, recipe)
        for number, decision in enumerate(decisions):
            repository.write({'notes/a.md': f'{station} {number}\n'})
            commit = repository.commit(f'Idea {number} of {station}', {
                'Station': station, 'Decision': decision, 'Trials': 8, 'Successes': 2 + number})
            if decision == 'revert':
                repository.revert(commit)
        repository.close()
    copy = tmp_path / 'copy'
    directory = tmp_path / 'runs' / 'c' / 'station_1'
    Ledger(directory / 'ledger.jsonl').append(
        {'trial_id': 'a-1', 'kind': 'search', 'recipe': 'sha256:ab', 'outcome': 'SUCCESS', 'reason': ''})
    subprocess.run(['git', 'clone', '-q', str(directory / 'recipe'), str(copy)], check=True)
    monkeypatch.setenv('ENPIRE_RUNS', str(tmp_path / 'runs'))
    return Place(directory, copy)


def assert_short(text):
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES and all(len(line) <= MOST_WIDTH for line in lines), text


# --- where it is ---

def test_a_folder_inside_of_a_station_says_which_campaign_is_meant(place):
    elsewhere = record_campaign(place.directory.parents[1] / 'newer', decisions=('keep',))
    assert find_place(folder=place.recipe / 'notes', environment={}) == place
    assert find_place(folder=place.directory, environment={}).recipe == place.directory / 'recipe'
    assert find_place('newer', folder=place.recipe, environment={}).directory == elsewhere / 'station_1'


def test_the_environment_says_it_where_the_folder_does_not(place, tmp_path):
    record_campaign(place.directory.parents[1] / 'newer', decisions=('keep',))
    told = {'ENPIRE_CAMPAIGN': 'c', 'ENPIRE_STATION': 'station_1'}
    assert find_place(folder=tmp_path, environment=told).directory == place.directory
    assert find_place(folder=tmp_path, environment={}).campaign == 'newer', 'else the newest'
    with pytest.raises(ConfigurationError, match='no campaign d/.*c/station_1, newer/station_1.*ENPIRE_CAMPAIGN'):
        find_place('d', folder=tmp_path, environment={})


def test_score_is_of_the_campaign_that_the_folder_is_in(place, monkeypatch, capsys):
    record_campaign(place.directory.parents[1] / 'newer', decisions=('keep',))
    monkeypatch.chdir(place.recipe)
    monkeypatch.delenv('ENPIRE_RUNS')
    assert main(['score']) == 0
    assert str(place.directory) in capsys.readouterr().out


# --- records and frames ---

def test_records_are_short_and_say_what_was_left_out(place):
    answer = agent_verbs.records(place, 100)
    assert_short(answer.text)
    assert '(123 older ones; --all)' in answer.text and len(answer.data) == 100
    assert answer.data[-1]['trial_id'].rpartition('-')[2] in answer.text, 'the newest are told'
    assert '(150 older ones)' in agent_verbs.records(place).text
    all_of_it = agent_verbs.records(place, everything=True)
    assert len(all_of_it.data) == len(Ledger(place.directory / 'ledger.jsonl').entries()) == 160
    assert len(all_of_it.text) > 2 * len(answer.text)


def test_records_of_one_kind_outcome_and_recipe(place):
    lines = Ledger(place.directory / 'ledger.jsonl').entries()
    failed = agent_verbs.records(place, kind='search', outcome='timeout').data
    assert failed and {(line['kind'], line['outcome']) for line in failed} == {('search', 'TIMEOUT')}
    recipe = lines[30]['recipe']
    data = agent_verbs.records(place, 100, recipe=recipe[:75]).data
    assert {line['recipe'] for line in data} == {recipe}
    assert 'no such trial' in agent_verbs.records(place, outcome='INVALID').text


def test_a_single_trial_is_found_by_the_end_of_its_name(place):
    folder = place.trials / 'station_1-00007'
    folder.mkdir(parents=True)
    (folder / 'policy.log').write_text('\n'.join(f'step {k}' for k in range(500)))
    (folder / 'trial.json').write_text(json.dumps({
        'outcome': 'TIMEOUT', 'reason': 'not done within 18 s', 'kind': 'search', 'recipe': 'sha256:' + 'a' * 64,
        'seed': 4, 'reset_success': True, 'reset_attempts': 1, 'duration': 18.0, 'steps': 540, 'late_steps': 2,
        'traceback': '', 'verdict': {'checks': [
            {'name': 'yaw', 'passed': False, 'value': 1.3159, 'limit': 0.0873, 'unit': 'rad'}]}}))
    answer = agent_verbs.trial_record(place, '07')
    assert_short(answer.text)
    assert 'not  yaw 1.316, limit 0.0873 rad' in answer.text and 'policy: step 499' in answer.text
    with pytest.raises(VerbError, match="no trials are called '99'.*enpire records"):
        agent_verbs.trial_record(place, '99')


def test_frames_are_pngs_outside_of_the_recipe(place, tmp_path, monkeypatch):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'tmp'))
    film(place.trials / 'station_1-00007')
    stills = agent_verbs.frames(place, '').files
    assert [cv2.imread(str(file)).shape for file in stills] == [(240, 320, 3)] * 3
    assert all(tmp_path / 'tmp' in file.parents for file in stills)
    strip, = agent_verbs.frames(place, '07', strip=5, width=100, folder=tmp_path / 'seen').files
    assert strip.parent == tmp_path / 'seen' and cv2.imread(str(strip)).shape == (75, 5 * 100 + 4 * 4, 3)
    few, = agent_verbs.frames(place, '07', strip=500, width=20, folder=tmp_path).files
    assert cv2.imread(str(few)).shape[1] < 500, 'no more than were recorded'


# --- recipes ---

def test_the_difference_is_what_was_edited_here(shared):
    assert agent_verbs.diff(shared).text == 'best and here have the same files'
    (shared.recipe / 'notes').mkdir(exist_ok=True)
    (shared.recipe / 'notes' / 'b.md').write_text('A thought\n')
    policy = shared.recipe / 'policy.py'
    policy.write_text(policy.read_text().replace('reset', 'restart'))
    answer = agent_verbs.diff(shared)
    assert answer.data == {'notes/b.md': {'added': 1, 'removed': 0}, 'policy.py': {'added': 1, 'removed': 1}}
    assert '+    def restart(self, observation):' in answer.text and 'new notes/b.md +1 -0' in answer.text


def test_the_difference_between_two_commits_and_a_long_one_is_cut(shared):
    repository = RecipeRepository(shared.directory / 'recipe')
    repository.write({'notes/long.md': '\n'.join('x' * 400 for _ in range(300))})
    repository.commit('Write much', {})
    first = [line.split()[0] for line in repository._git('log', '--format=%H').splitlines()][-1]
    answer = agent_verbs.diff(shared, first[:12], repository.head)
    assert_short(answer.text)
    assert 'more lines; --all' in answer.text and answer.data['notes/long.md']['added'] == 300
    with pytest.raises(VerbError, match="no recipe 'abcd1234'"):
        agent_verbs.diff(shared, 'abcd1234')
    with pytest.raises(VerbError, match='neither a commit nor a station'):
        agent_verbs.diff(shared, 'station_7')


def test_peers_tell_what_they_kept_and_their_name_stands_for_it(shared):
    answer = agent_verbs.peers(shared)
    assert list(answer.data) == ['station_2'] and len(answer.data['station_2']['kept']) == 2
    kept = answer.data['station_2']['kept'][-1]
    assert_short(answer.text)
    assert kept['commit'][:10] in answer.text and '3/8' in answer.text
    assert agent_verbs.diff(shared, 'station_2').data == agent_verbs.diff(shared, kept['commit']).data


def test_of_many_recipes_the_newest_are_told():
    lines = [f'recipe {number}' for number in range(100)]
    told = agent_verbs.bounded(lines, newest=True)
    assert_short(told)
    assert told.startswith('(61 older ones; --all)\nrecipe 61\n') and told.endswith('recipe 99')
    assert agent_verbs.bounded(lines[:MOST_LINES]).count('recipe') == MOST_LINES, 'nothing is cut that fits'
    assert agent_verbs.bounded(lines, True).splitlines() == lines


def test_without_peers_there_is_nothing_to_tell(place):
    assert 'no peer' in agent_verbs.peers(place).text


# --- in the recipe's folder ---

def test_notes_are_lines_of_the_recipe_that_can_be_read_again(place):
    agent_verbs.note(place, 'Slow pushes\n keep contact')
    agent_verbs.note(place, 'A second one')
    journal = (place.recipe / 'notes' / 'journal.md').read_text()
    assert journal.count('\n- ') == 2 and 'Slow pushes keep contact\n' in journal
    said = agent_verbs.notes(place)
    assert 'A second one' in said.text and 'notes/journal.md' in said.data
    for text in ('', 'x' * 3000):
        with pytest.raises(VerbError, match='expected 1 to 2000'):
            agent_verbs.note(place, text)


def test_training_writes_weights_where_the_recipe_is(place):
    with pytest.raises(VerbError, match='no train.py'):
        agent_verbs.train(place)
    (place.recipe / 'train.py').write_text('class Trainer:\n    pass\n')
    with pytest.raises(VerbError, match='no trial is recorded there'):
        agent_verbs.train(place)


# --- trials ---

def test_an_agent_gets_even_seeds_of_a_stream_of_its_own(place):
    first = agent_verbs.next_seed(place)
    searched = {line['seed'] for line in Ledger(place.directory / 'ledger.jsonl').entries()}
    assert first % 2 == 0 and first not in searched
    ledger = Ledger(place.directory / 'ledger.jsonl')
    ledger.append({**ledger.entries()[-1], 'kind': 'manual', 'seed': first, 'trial_id': 'm'})
    assert agent_verbs.next_seed(place) not in (first, *searched)
    with pytest.raises(VerbError, match='odd seeds decide'):
        agent_verbs.trial(place, seed=7)


# --- the command ---

@pytest.mark.parametrize('arguments', [['records', '100'], ['recipes'], ['peers'], ['diff'], ['note', '--list'], ['note', 'A', 'b']])
def test_what_the_command_prints_is_short_and_json_is_one_object(shared, monkeypatch, capsys, arguments):
    monkeypatch.chdir(shared.recipe)
    assert main(arguments) == 0
    assert_short(capsys.readouterr().out)
    assert main([*arguments, '--json']) == 0
    json.loads(capsys.readouterr().out)


def test_what_is_not_there_is_one_line(place, monkeypatch, capsys):
    monkeypatch.chdir(place.recipe)
    assert main(['frames', 'nothing']) == 2
    assert capsys.readouterr().err.count('\n') == 1
