"""The Python client's results and errors; docs/python_client.md on a running station is tests/system's."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from enpire_msgs.action import MoveArm, Reset
from enpire_msgs.msg import Check, ObjectPose, ResetAttempt, TrialResult, Verdict

from enpire_agent import remote_station, station_results
from enpire_agent.remote_station import Station, StationCallError, stamped_pose
from enpire_bringup.actions import RemoteCallError
from enpire_bringup.kinematics import pose_matrix


class Client:
    """In the place of StationClient: answers what it is told to."""

    namespace, domain_id = '/station_1', 7

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    def __getattr__(self, verb):
        def call(*arguments, **options):
            self.asked.append((verb, arguments, options))
            answer = self.answers[verb]
            if isinstance(answer, Exception):
                raise answer
            return answer
        return call


@pytest.fixture
def make_station(monkeypatch):
    def make(**answers) -> tuple[Station, Client]:
        client = Client(**answers)
        monkeypatch.setattr(remote_station, 'StationClient', lambda *_: client)
        return Station('station_1', domain=7), client
    return make


def test_results_cannot_be_changed_and_hold_arrays(make_station):
    station, _ = make_station(move_arm=MoveArm.Result(success=True, joints=[0.1, 0.2], planner='line'))
    move = station.move('left', joints=[0.1, 0.2])
    assert isinstance(move.joints, np.ndarray) and move.planner == 'line'
    with pytest.raises(dataclasses.FrozenInstanceError):
        move.success = False


def test_a_move_that_fails_raises_with_its_reason_and_its_result(make_station):
    station, _ = make_station(move_arm=MoveArm.Result(success=False, message='left_tcp would leave the workspace',
                                                      joints=[0.3]))
    with pytest.raises(StationCallError, match='^move of left: left_tcp would leave the workspace$') as caught:
        station.move('left', named='home')
    assert caught.value.result.joints.tolist() == [0.3]


def test_a_station_that_is_not_there_raises_the_same_error(make_station):
    station, _ = make_station(move_arm=RemoteCallError('nobody offers /station_1/move_arm'), status=None)
    with pytest.raises(StationCallError, match='nobody offers /station_1/move_arm'):
        station.move('left', named='home')
    with pytest.raises(StationCallError, match='no station_status within 0.1 s in ROS domain 7; is the station up'):
        station.status(timeout=0.1)


@pytest.mark.parametrize('targets', [{}, {'named': 'home', 'joints': [0.0]}])
def test_a_move_has_exactly_one_target(make_station, targets):
    station, client = make_station()
    with pytest.raises(StationCallError, match='exactly one of named, joints and pose'):
        station.move('left', **targets)
    assert not client.asked


@pytest.mark.parametrize('speed', [0.0, -1.0, 1.5, math.nan])
def test_a_bad_speed_is_refused_before_anything_moves(make_station, speed):
    station, client = make_station()
    with pytest.raises(StationCallError, match='speed is'):
        station.move('left', named='home', speed=speed)
    assert not client.asked


@pytest.mark.parametrize('straight, mode', [(False, MoveArm.Goal.POSE), (True, MoveArm.Goal.LINEAR)])
def test_a_pose_may_be_a_matrix_or_seven_numbers(make_station, straight, mode):
    numbers = np.array([0.3, -0.1, 0.2, 0.0, math.sin(0.3), 0.0, math.cos(0.3)])
    for pose in (numbers, pose_matrix(numbers[:3], numbers[3:])):
        station, client = make_station(move_arm=MoveArm.Result(success=True))
        station.move('left', pose=pose, straight=straight, stop_force=5)
        (_, (goal,), _), = client.asked
        q = goal.pose.pose.orientation
        assert goal.mode == mode and goal.stop_force == 5.0 and goal.pose.header.frame_id == 'world'
        assert np.allclose([goal.pose.pose.position.x, q.y, q.w], [0.3, math.sin(0.3), math.cos(0.3)])


@pytest.mark.parametrize('pose', [[0.3, 0.0, 0.2], np.full((4, 4), np.nan), np.zeros((3, 4))])
def test_what_is_no_pose_is_refused(pose):
    with pytest.raises(StationCallError, match=r'expected \(4, 4\), or \(7,\)'):
        stamped_pose(pose)


def test_a_failed_reset_is_a_result_with_every_attempt(make_station):
    attempt = ResetAttempt(success=False, reason='nothing in the fingers', position_error=0.02)
    attempt.after.pose.position.x = 0.31
    station, _ = make_station(reset=Reset.Result(success=False, message='gave up', attempts=1, tried=[attempt],
                                                 picture='/runs/last.png'))
    result = station.reset(3)
    assert not result.success and result.picture == '/runs/last.png'
    assert result.tried[0].reason == 'nothing in the fingers' and result.tried[0].after[0] == 0.31


def test_a_trial_carries_its_verdict(make_station):
    verdict = Verdict(outcome=Verdict.SUCCESS, checks=[Check(name='yaw', passed=True, value=0.01, limit=0.0873)])
    station, _ = make_station(run_trial=TrialResult(outcome='SUCCESS', trial_id='t1', verdict=verdict))
    trial = station.trial(seed=3)
    assert trial.success and trial.verdict.outcome == 'success' and trial.verdict.checks[0].name == 'yaw'


def test_the_pose_of_an_object_comes_with_its_planar_covariance():
    message = ObjectPose(object_id='t_block', visible=True)
    message.header.stamp.sec, message.header.stamp.nanosec = 2, 500_000_000
    message.pose.pose.position.x = 0.3
    message.pose.pose.orientation.z, message.pose.pose.orientation.w = math.sin(0.4), math.cos(0.4)
    message.pose.covariance = np.arange(36, dtype=float)
    view = station_results.read_object(message)
    assert view.time == 2.5 and np.allclose(view.pose, [0.3, 0.0, 0.8])
    assert view.covariance.tolist() == [[0, 1, 5], [6, 7, 11], [30, 31, 35]]


@pytest.mark.parametrize('level, name, ok', [(b'\x00', 'ok', True), (b'\x01', 'warning', False),
                                             (b'\x02', 'error', False), (b'\x03', 'error', False)])
def test_only_a_contented_guard_is_ok(level, name, ok):
    guard = station_results.read_guard(DiagnosticStatus(level=level, message='why'))
    assert (guard.level, guard.ok) == (name, ok)


def test_a_refused_request_raises(make_station):
    from enpire_msgs.srv import Adopt, Resume
    station, _ = make_station(resume=Resume.Response(accepted=False, message='it was not held'),
                              adopt=Adopt.Response(accepted=True, message='adopted abc'))
    with pytest.raises(StationCallError, match='^it was not held$'):
        station.resume()
    assert station.adopt() == 'adopted abc'


def test_the_package_itself_loads_without_ros():
    code = "import enpire_agent, sys; sys.exit('rclpy' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
