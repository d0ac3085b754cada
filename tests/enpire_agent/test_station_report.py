"""What `enpire status` makes of what it hears."""

from __future__ import annotations

import copy

import pytest

from enpire_agent.station_report import message_class, problems, status_text
from enpire_agent.topic_watch import TopicWatch
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task
from enpire_bringup.topics import station_topics

TOPIC = {'rate': 100.0, 'age': 0.01, 'latency_ms': {'p50': 2.0, 'max': 9.0}, 'silent': False}
GOOD = {
    'namespace': '/station_1', 'domain': 7, 'station': 'lab', 'task': 'push', 'ready': True, 'pid': 99, 'log': '/log',
    'processes': [{'name': 'world', 'pid': 100, 'cpu_percent': 31.0, 'memory_mb': 120, 'restarts': 0, 'given_up': ''}],
    'nodes': ['arm_control'], 'missing_nodes': [], 'topics': {'joint_states': TOPIC},
    'cameras': {}, 'asleep': ['left_wrist_camera/color/image_raw'], 'real_time_factor': {'measured': 0.98, 'asked': 1.0},
    'planner': 'ompl', 'safety': 'ok', 'guard': 'ok', 'problems': [],
    'status': {'state': 'IDLE', 'campaign': '', 'phase': '', 'iteration': 0, 'hypothesis': '', 'best_recipe': '',
               'best_trials': 0, 'best_successes': 0, 'trials': 0, 'successes': 0, 'elapsed': 0.0, 'remaining': None,
               'robot_utilization': 0.0, 'token_utilization': 0.0, 'message': ''}}


@pytest.fixture
def report():
    return copy.deepcopy(GOOD)


def test_a_campaign_is_told_with_its_best_recipe_and_utilization(report):
    report['status'].update(state='RUNNING', campaign='monday', phase='search', iteration=3, hypothesis='Push slower',
                            best_recipe='2e347b9c4aa6', best_trials=20, best_successes=19, robot_utilization=0.986,
                            token_utilization=1250.0)
    text = status_text(report)
    assert 'Push slower' in text
    assert 'best recipe 2e347b9c4a: 19 of 20; MRU 99 %, MTU 1250 tokens a minute' in text


def test_rate_age_and_latency_come_from_what_arrived():
    watch = TopicWatch(steady=True)
    watch.begin(10.0)
    for i in range(20):
        watch.heard(10.0 + 0.1 * i, stamp=5.0 + 0.1 * i, ros_now=5.0 + 0.1 * i + 0.02)
    figures = watch.figures(12.0)
    assert figures == {'rate': 10.0, 'age': 0.1, 'latency_ms': {'p50': 20.0, 'max': 20.0}, 'silent': False}


def test_a_steady_topic_without_a_message_is_silent_and_another_is_not():
    for steady in (True, False):
        watch = TopicWatch(steady)
        watch.begin(0.0)
        assert watch.figures(2.0) == {'rate': 0.0, 'age': None, 'latency_ms': None, 'silent': steady}


def test_a_topic_that_stopped_keeps_its_age():
    watch = TopicWatch(steady=True)
    watch.heard(1.0)
    watch.begin(4.0)
    figures = watch.figures(6.0)
    assert figures['age'] == 5.0 and figures['silent']


def test_a_good_station_has_no_problems(report):
    assert problems(report) == []


@pytest.mark.parametrize('change, said', [
    (lambda r: r['processes'][0].update(pid=None, given_up='lab.yaml: rates is missing'),
     'process world is missing for good: lab.yaml: rates is missing'),
    (lambda r: r['processes'][0].update(pid=None), 'process world is not running; see /log'),
    (lambda r: r.update(missing_nodes=['git_bridge']), 'nodes missing: git_bridge'),
    (lambda r: r['topics']['joint_states'].update(silent=True), 'nothing arrives on joint_states'),
    (lambda r: r['cameras'].update(top='it is silent'), 'camera top: it is silent'),
    (lambda r: r.update(guard='error', safety='left: joint2 too fast'), 'left: joint2 too fast; .* ./enpire clear'),
    (lambda r: r['status'].update(state='HELD', message='reset failed; then type: ./enpire resume'),
     'the station says HELD: reset failed; then type: ./enpire resume'),
])
def test_what_needs_a_person_is_said_with_the_way_out(report, change, said):
    change(report)
    problem, = problems(report)
    import re
    assert re.search(said, problem)
    report['problems'] = [problem]
    assert f'  !        {problem}' in status_text(report)


def test_a_warning_of_the_guard_is_no_problem(report):
    report.update(guard='warning', safety='left: target too far')
    assert problems(report) == []
    assert 'safety   left: target too far' in status_text(report)


def test_the_text_tells_restarts_pace_planner_latency_and_what_sleeps(report):
    report['processes'][0]['restarts'] = 3
    text = status_text(report)
    assert 'restarted 3x' in text and '0.98 x real time, asked for 1' in text and 'planner  ompl' in text
    assert '100.0 Hz, last 10 ms ago, latency 2 ms, at most 9' in text
    assert 'left_wrist_camera/color/image_raw asleep: nobody subscribes' in text
    report['real_time_factor'] = {'measured': 1.0, 'asked': 0.0}
    assert '1.00 x real time, lockstep' in status_text(report)


def test_every_topic_of_a_station_has_a_message_type_that_is_there():
    topics = station_topics(load_station('yam_bimanual_sim'), load_task('push_t'))
    assert len({topic.name for topic in topics}) == len(topics)
    for topic in topics:
        assert message_class(topic.type).__name__ == topic.type.rpartition('/')[2]
