"""Resets and skills as actions on a simulated station: from hard places, given up, and one thing at a time."""

import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy')

import cv2  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from enpire_bringup.actions import RemoteCallCancelled, action_client, call_action, call_service  # noqa: E402
from enpire_bringup.bench_station import station_node  # noqa: E402
from enpire_bringup.domain_locks import DomainReservation  # noqa: E402
from enpire_bringup.process_runner import StationProcesses  # noqa: E402
from enpire_bringup.station_node import LATCHED_QOS  # noqa: E402
from enpire_bringup.task import load_task  # noqa: E402
from enpire_msgs.action import Reset, UseSkill  # noqa: E402
from enpire_msgs.msg import StationStatus  # noqa: E402
from enpire_msgs.srv import Resume  # noqa: E402
from enpire_reset.bench_reset import NODES, measure  # noqa: E402
from enpire_reset.skill_actions import SKILL_ACTIONS  # noqa: E402

pytestmark = pytest.mark.system

GRASP_HEIGHT, SAFE_HEIGHT, HANDLE = 0.037, 0.08, 0.02     # m, of the T's handle


class Client:
    """Talks to one station as anybody could, and puts objects where a test needs them."""

    def __init__(self, node, station, runs):
        self.station, self.runs = station, runs
        self.status, self.views = [], []
        self._node = node
        self._reset = action_client(node, Reset, 'reset')
        self._skills = {action.name: action_client(node, UseSkill, f'skills/{action.name}') for action in SKILL_ACTIONS}
        self._parameters = node.create_client(SetParameters, 'sim_station/set_parameters')
        self._world = node.create_client(Trigger, 'sim/reset_world')
        self._resume = node.create_client(Resume, 'resume')
        node.create_subscription(StationStatus, 'station_status', self.status.append, LATCHED_QOS)
        node.create_subscription(Image, 'reset/last_view', self.views.append, LATCHED_QOS)

    def reset(self, seed, **call):
        return call_action(self._node, self._reset, Reset.Goal(seed=seed), **{'timeout': 120.0, **call})

    def use(self, skill, x=None, y=None, yaw=0.0, **fields):
        goal = UseSkill.Goal(**fields)
        if x is not None:
            goal.pose.header.frame_id = 'world'
            goal.pose.pose.position.x, goal.pose.pose.position.y = x, y
            goal.pose.pose.orientation.z, goal.pose.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
        return call_action(self._node, self._skills[skill], goal, timeout=90.0)

    def put_object(self, x, y, yaw):
        """By the simulator, arms at home: only tests may."""
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE_ARRAY, double_array_value=[x, y, yaw])
        request = SetParameters.Request(parameters=[Parameter(name='object_pose', value=value)])
        assert call_service(self._node, self._parameters, request, timeout=20.0).results[0].successful
        assert call_service(self._node, self._world, Trigger.Request(), timeout=20.0).success

    def resume(self):
        return call_service(self._node, self._resume, Resume.Request(), timeout=20.0)

    def until(self, condition, what, timeout=20.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f'waited {timeout} s for {what}'
            time.sleep(0.02)


@pytest.fixture(scope='module')
def client(tmp_path_factory):
    reservation = DomainReservation()
    runs = tmp_path_factory.mktemp('runs')
    try:
        with StationProcesses(only={*NODES, 'supervisor'}, domain_id=reservation.domain_id, runs=runs) as station, \
                station_node('reset_client', station.namespace, station.domain_id) as node:
            yield Client(node, station, runs)
    finally:
        reservation.release()


def planar(stamped):
    orientation = stamped.pose.orientation
    return (stamped.pose.position.x, stamped.pose.position.y, 2 * math.atan2(orientation.z, orientation.w))


def succeeded(result):
    assert result.success, result.message
    return result


def test_resets_in_a_row_put_the_t_at_the_seed_s_start_pose(client):
    figures = measure(2, client.station.namespace, client.station.domain_id)
    assert figures['succeeded'] == figures['n'] == 2, figures['failures']
    assert 0 < figures['seconds']['p50'] <= figures['seconds']['p95'] and figures['attempts_mean'] <= 1


def test_reset_succeeds_after_one_was_cancelled_with_the_t_in_the_gripper(client):
    stages = []
    with pytest.raises(RemoteCallCancelled):
        client.reset(5, feedback=lambda feedback: stages.append(feedback.stage), cancelled=lambda: 'carry' in stages)
    result = succeeded(client.reset(6))
    start = load_task('push_t').start_pose(6)
    assert planar(result.target) == pytest.approx(start)
    assert planar(result.reached)[:2] == pytest.approx(start[:2], abs=0.012) and result.duration > 0


@pytest.mark.parametrize('place', [
    pytest.param((0.52, -0.02, 0.4), id='at the border of the arm s reach'),
    pytest.param((0.28, -0.62, 1.0), id='under the other arm and out of the camera s view'),
    pytest.param(None, id='turned by 180 degrees'),
])
def test_reset_from_a_hard_place(client, place):
    x, y, yaw = load_task('push_t').start_pose(12)
    client.put_object(*(place or (x, y, yaw + math.pi)))
    result = succeeded(client.reset(12))
    assert result.position_error < 0.012 and result.yaw_error < math.radians(8)
    assert result.attempts == len(result.tried) and result.tried[-1].success and not result.picture
    assert planar(result.tried[-1].after)[:2] == pytest.approx(planar(result.reached)[:2])


def test_skills_used_one_by_one_move_the_t_and_hand_it_from_arm_to_arm(client):
    client.put_object(0.30, 0.12, 0.3)
    succeeded(client.use('go_home'))
    x, y, yaw = planar(succeeded(client.use('locate', object='t_block')).pose)
    assert (x, y, yaw) == pytest.approx((0.30, 0.12, 0.3), abs=0.02)
    succeeded(client.use('approach', x, y, yaw, arm='left', height=SAFE_HEIGHT))
    grasp = succeeded(client.use('grasp', arm='left', height=GRASP_HEIGHT, width=HANDLE, max_force=20.0,
                                 object='t_block'))
    assert grasp.stalled and grasp.width == pytest.approx(HANDLE, abs=0.003) and grasp.force > 10.0
    lift = succeeded(client.use('lift', arm='left', height=SAFE_HEIGHT))
    assert lift.width == pytest.approx(HANDLE, abs=0.003) and lift.pose.pose.position.z == pytest.approx(0.08, abs=0.01)
    succeeded(client.use('hand_over', 0.28, -0.25, 0.0, arm='left', to_arm='right', height=GRASP_HEIGHT))
    succeeded(client.use('place', 0.24, -0.27, 0.0, arm='right', height=GRASP_HEIGHT))
    seen = succeeded(client.use('retreat_and_look', arm='right', object='t_block', height=0.1))
    assert planar(seen.pose)[:2] == pytest.approx((0.24, -0.27), abs=0.015)


def test_pushed_t_lies_nearer_to_where_it_was_pushed(client):
    client.put_object(0.30, 0.10, 1.0)
    seen = succeeded(client.use('push', 0.30, -0.02, arm='left', object='t_block', height=0.015))
    assert math.dist(planar(seen.pose)[:2], (0.30, -0.02)) < 0.06


def test_grasp_where_nothing_is_fails_with_what_was_felt(client):
    client.put_object(0.30, 0.12, 0.3)
    succeeded(client.use('approach', 0.30, -0.10, 0.0, arm='left', height=SAFE_HEIGHT))
    missed = client.use('grasp', arm='left', width=HANDLE, max_force=20.0)
    assert not missed.success and 'mm apart; an object of 20 mm was expected' in missed.message
    succeeded(client.use('retreat_and_look', arm='left', object='t_block', height=0.1))


def test_goal_that_a_skill_cannot_use_is_refused_with_the_reason(client):
    refused = client.use('lift', arm='left', height=0.1, object='t_block')
    assert not refused.success and refused.message == 'skills/lift does not use object; it reads arm, height'


def test_skill_during_a_reset_is_refused_with_what_runs(client):
    client.put_object(0.30, 0.12, 0.3)
    stages, results = [], []
    thread = threading.Thread(target=lambda: results.append(
        client.reset(20, feedback=lambda feedback: stages.append(feedback.stage))))
    thread.start()
    client.until(lambda: 'approach' in stages, 'the reset to move')
    refused = client.use('go_home', arm='left')
    assert not refused.success and refused.message == 'reset is running; wait for its end or cancel it'
    thread.join(60.0)
    assert results and results[0].success


def test_reset_that_gives_up_shows_what_it_saw_and_holds_the_station(client):
    client.put_object(0.30, 0.62, 0.0)
    result = client.reset(30)
    assert not result.success and result.attempts == len(result.tried) == 1
    assert 'nothing of its color is in view' in result.tried[0].reason
    assert 'nor did the wrist cameras see it from' in result.tried[0].reason
    assert math.isnan(result.tried[0].before.pose.position.x) and math.isnan(result.tried[0].position_error)
    picture = cv2.imread(result.picture)
    assert picture is not None and Path(result.picture).is_relative_to(client.runs)
    client.until(lambda: client.views, 'reset/last_view')
    assert (client.views[-1].height, client.views[-1].width) == picture.shape[:2]
    client.until(lambda: client.status[-1].state == StationStatus.HELD, 'the station to hold')
    assert 'the reset for seed 30 gave up after 1 attempts' in client.status[-1].message
    assert result.picture in client.status[-1].message and './enpire resume' in client.status[-1].message
    line = json.loads((Path(result.picture).parent / 'resets.jsonl').read_text().splitlines()[-1])
    assert line['seed'] == 30 and len(line['attempts']) == 1 and line['picture'] == result.picture
    assert client.resume().accepted


def test_reset_without_a_camera_is_a_named_failure_in_bounded_time(client):
    pids = client.station.pids()
    stopped = [pids['cameras'], pids['perception']]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        result = client.reset(5, timeout=100.0)
        took = time.monotonic() - began
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert not result.success and result.attempts == 0 and not result.picture
    assert '0 of 4 images with t_block or without it came within' in result.message
    assert 'do the camera and camera_perception run?' in result.message
    assert took < 60.0
    assert client.resume().accepted
