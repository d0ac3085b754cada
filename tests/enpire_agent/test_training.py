import json

import numpy as np
import pytest

from enpire_agent.idea_library import load_ideas
from enpire_agent.researcher import BuiltinResearcher, Context, Tried
from enpire_agent.training import TrainingError, recorded_trials, train
from enpire_agent.episode_recorder import EpisodeRecorder
from enpire_agent.trial_record import write_result
from enpire_bringup.task import load_task

TASK = load_task('push_t')
TRAINER = '''
class Trainer:
    def __init__(self, config):
        self.gain = config['parameters']['gain']

    def train(self, trials):
        return {'reached': [float(trial['tip'][-1, 0]) for trial in trials], 'gain': self.gain,
                'outcomes': [trial['outcome'] for trial in trials]}
'''


@pytest.fixture
def campaign(tmp_path, recipe):
    """A station's folder of a campaign: `recipe`, and `trials` with two recorded ones and an aborted one."""
    recipe.rename(tmp_path / 'station_1')
    folder = tmp_path / 'station_1' / 'recipe'
    folder.mkdir()
    for file in (tmp_path / 'station_1').glob('*.*'):
        file.rename(folder / file.name)
    recorder = EpisodeRecorder()
    for number in range(3):
        trial = tmp_path / 'station_1' / 'trials' / f'2026-{number}'
        trial.mkdir(parents=True)
        write_result(trial, {'outcome': ['SUCCESS', 'TIMEOUT', 'ABORTED'][number]})
        if number < 2:
            record(recorder, trial, tip=0.1 * (number + 1))
    recorder.close()
    return tmp_path / 'station_1'


def record(recorder, trial, tip):
    recorder.begin(trial)
    for step in range(4):
        recorder.step({'time': step / 30, 'target': [tip, 0.0], 'observation': {
            'tip': [tip, 0.0], 't_block': {'pose': [0.3, 0.0, float('nan')], 'visible': True}}}, step)
    recorder.end()


def test_a_trainer_gets_the_recorded_trials_and_gives_weights(campaign):
    (campaign / 'recipe' / 'train.py').write_text(TRAINER)
    weights = json.loads(train(campaign / 'recipe', TASK, campaign / 'trials'))
    assert weights == {'reached': [0.1, 0.2], 'gain': 1.0, 'outcomes': ['SUCCESS', 'TIMEOUT']}


def test_recorded_trials_are_arrays_with_gaps_where_nothing_was_seen(campaign):
    first = recorded_trials(campaign / 'trials', TASK)[0]
    assert first['t_block'].shape == (4, 3) and np.isnan(first['t_block'][:, 2]).all()
    assert first['tip'].shape == first['target'].shape == (4, 2)


@pytest.mark.parametrize('body, said', [
    ("return 1 / 0", 'division by zero'), ("return {'x': float('nan')}", 'weights.json cannot hold'),
    ("open('/etc/enpire', 'w')", '/etc/enpire')])
def test_a_trainer_that_fails_says_why(campaign, body, said):
    (campaign / 'recipe' / 'train.py').write_text(
        f'class Trainer:\n    def __init__(self, config):\n        pass\n\n    def train(self, trials):\n        {body}\n')
    with pytest.raises(TrainingError, match=said):
        train(campaign / 'recipe', TASK, campaign / 'trials')


def test_an_idea_that_trains_waits_until_there_is_something_to_learn_from(campaign, tmp_path):
    (tmp_path / 'train.py').write_text(TRAINER)
    ideas = tmp_path / 'ideas.yaml'
    ideas.write_text('ideas:\n  - {id: learn, family: f, hypothesis: Learn, files: {train.py: train.py}, train: true}\n')
    assert load_ideas(ideas)[0].trains
    said, researcher = [], BuiltinResearcher(ideas, TASK)
    hidden = (campaign / 'trials').rename(campaign / 'later')
    assert researcher.propose(Context(campaign / 'recipe', 'push_t', 'e', (0, 1), log=said.append)) is None
    assert 'no trial is recorded' in said[0]
    hidden.rename(campaign / 'trials')
    history = [Tried('idea:other#0', 'f', False, 6, 1)]
    edit = researcher.propose(Context(campaign / 'recipe', 'push_t', 'e', (0, 1), history))
    assert set(edit.files) == {'train.py', 'weights.json'}
    assert json.loads(edit.files['weights.json'])['reached'] == [0.1, 0.2]
