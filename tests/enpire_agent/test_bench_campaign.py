import json
import shutil

import pytest

from enpire_agent.abandoned_trials import unentered_trials
from enpire_agent.bench_campaign import curve_of, draw, figures_of, meets, run
from enpire_agent.campaign_state import REVERTED, read_campaign
from enpire_bringup.task import task_directory


@pytest.fixture
def finished(make_campaign):
    """(folder, state) of a finished campaign of made-up trials that found something better."""
    campaign, _, _ = make_campaign(max_iterations=6)
    campaign.run()
    return campaign.directory, read_campaign(campaign.directory / 'campaign.json')


def test_a_curve_begins_and_ends_on_fresh_seeds_and_rises_with_what_was_kept(finished, tmp_path):
    curve = curve_of(*finished)
    assert curve[0]['seeds'] == curve[-1]['seeds'] == 'fresh'
    assert any(point['seeds'] == 'search' for point in curve)
    assert [point['trials'] for point in curve] == sorted(point['trials'] for point in curve)
    assert curve[-1]['rate'] > curve[0]['rate']
    figures = figures_of([finished, finished])
    assert figures['after_worst'] == round(finished[1].gate.successes / finished[1].gate.trials, 4)
    draw(figures, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('before, median, worst, met', [
    (0.5, 0.85, 0.75, True), (0.52, 0.9, 0.9, False), (0.3, 0.84, 0.8, False), (0.3, 0.9, 0.74, False)])
def test_the_promise_is_about_the_most_before_the_median_and_the_worst_after(before, median, worst, met):
    figures = {'before_most': before, 'after_median': median, 'after_worst': worst, 'minutes_most': 30.0}
    assert meets(figures) is met
    assert meets(figures, most_minutes=30.0) is met and not meets(figures, most_minutes=20.0)


TRAINER = '''class Trainer:
    def __init__(self, config):
        pass

    def train(self, trials):
        return {'steps': [len(trial['time']) for trial in trials],
                'moved': [bool(trial['tip'].std() > 0) for trial in trials]}
'''
LEARNED = '''import json
from pathlib import Path


class Policy:
    def __init__(self, config):
        assert json.loads((Path(__file__).parent / 'weights.json').read_text())['steps']

    def reset(self, observation):
        pass

    def act(self, observation):
        return observation['tip']
'''
IDEAS = '''ideas:
  - {id: learned, family: learned, hypothesis: What was recorded tells what to do, train: true,
     files: {policy.py: learned.py, train.py: trainer.py}}
'''


@pytest.fixture(scope='module')
def short_bench(tmp_path_factory):
    """(folder of runs, what `run` is asked): a bench in-process with episodes of half a second and an idea that trains,
    which was run once."""
    runs = tmp_path_factory.mktemp('runs')
    task = shutil.copytree(task_directory('push_t'), runs / 'push_t_in_no_time')
    text = (task / 'task.yaml').read_text()
    (task / 'task.yaml').write_text(text.replace('episode_timeout: 18.0', 'episode_timeout: 0.5'))
    for name, content in (('learned.py', LEARNED), ('trainer.py', TRAINER), ('ideas.yaml', IDEAS)):
        (task / 'ideas' / name).write_text(content)
    asked = dict(name='b', iterations=1, search_trials=1, in_process=True, task=str(task))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ENPIRE_RUNS', str(runs))
        run(1, 1, **asked)
        yield runs, asked


def test_a_bench_goes_on_with_the_campaigns_it_lacks(short_bench):
    runs, asked = short_bench
    ledger, said = (runs / 'b-1' / 'station_1' / 'ledger.jsonl').read_text(), []
    again = run(1, 1, **asked, report=said.append)
    assert again == {**json.loads((runs / 'b.json').read_text()), 'file': str(runs / 'b.json'),
                     'picture': str(runs / 'b.png')}
    assert (runs / 'b-1' / 'station_1' / 'ledger.jsonl').read_text() == ledger
    assert not any('begins' in text for text in said)


def test_in_process_an_idea_trains_on_what_was_recorded_and_is_raced(short_bench):
    directory = short_bench[0] / 'b-1' / 'station_1'
    state = read_campaign(directory / 'campaign.json')
    learned, = state.iterations
    weights = json.loads(learned.files['weights.json'])
    assert weights['moved'] == [True] and 10 <= weights['steps'][0] <= 15, 'the trial of the baseline'
    assert learned.outcomes == {'TIMEOUT': 1} and learned.state == REVERTED and state.time_split['training'] > 0
    assert {trial.directory.name for trial in unentered_trials(directory)} == set()
    assert len(list(directory.glob('trials/*/episode.mcap'))) == state.trials == 2
