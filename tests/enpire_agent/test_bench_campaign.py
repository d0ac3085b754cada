import json
import shutil

import pytest

from enpire_agent.bench_campaign import curve_of, draw, figures_of, meets, run
from enpire_agent.campaign_state import read_campaign
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
    assert meets({'before_most': before, 'after_median': median, 'after_worst': worst}) is met


def test_a_bench_goes_on_with_the_campaigns_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv('ENPIRE_RUNS', str(tmp_path))
    task = shutil.copytree(task_directory('push_t'), tmp_path / 'push_t_in_no_time')
    text = (task / 'task.yaml').read_text()
    (task / 'task.yaml').write_text(text.replace('episode_timeout: 18.0', 'episode_timeout: 0.5'))
    said, asked = [], dict(name='b', iterations=1, search_trials=1, in_process=True, task=str(task))
    first = run(1, 1, **asked, report=said.append)
    ledger = (tmp_path / 'b-1' / 'station_1' / 'ledger.jsonl').read_text()
    said.clear()
    again = run(1, 1, **asked, report=said.append)
    assert again == first == {**json.loads((tmp_path / 'b.json').read_text()), 'file': str(tmp_path / 'b.json'),
                              'picture': str(tmp_path / 'b.png')}
    assert (tmp_path / 'b-1' / 'station_1' / 'ledger.jsonl').read_text() == ledger
    assert not any('begins' in text for text in said)
