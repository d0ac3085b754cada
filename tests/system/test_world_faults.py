"""The simulated world ends, is reset under way, or waits for a client that does not get to run: the station goes on."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.action import ActionClient  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from enpire_bringup.actions import call_action, call_service  # noqa: E402
from enpire_bringup.bench_station import station_node  # noqa: E402
from enpire_bringup.domain_locks import DomainReservation  # noqa: E402
from enpire_bringup.process_runner import StationProcesses  # noqa: E402
from enpire_bringup.station import load_station  # noqa: E402
from enpire_bringup.station_node import STATE_QOS  # noqa: E402
from enpire_msgs.action import MoveArm  # noqa: E402
from enpire_msgs.msg import Verdict  # noqa: E402

pytestmark = pytest.mark.system

NODES = {'sim_station', 'trajectory_controller', 'arm_control', 'sim_cameras', 'camera_perception', 'success_detector'}
SECOND = 1_000_000_000
STATION = load_station('yam_bimanual_sim')
HOME = list(STATION.arms['left'].named['home'])
LEFT = STATION.joints.index(STATION.arms['left'].joints[0])


def stamp(message):
    return message.header.stamp.sec * SECOND + message.header.stamp.nanosec


class Client:
    def __init__(self, node, station):
        self.station, self.node = station, node
        self.states, self.verdicts = [], []
        self._move = ActionClient(node, MoveArm, 'move_arm')
        self._reset_world = node.create_client(Trigger, 'sim/reset_world')
        self._clear = node.create_client(Trigger, 'guard/clear')
        node.create_subscription(JointState, 'joint_states', self.states.append, STATE_QOS)
        node.create_subscription(Verdict, 'verdict', self.verdicts.append, STATE_QOS)

    def move(self, joints, **goal):
        goal = MoveArm.Goal(arm='left', mode=MoveArm.Goal.JOINT, joints=joints, **goal)
        return call_action(self.node, self._move, goal, timeout=40.0)

    def reset_world(self):
        return call_service(self.node, self._reset_world, Trigger.Request(), timeout=20.0)

    def clear_guard(self):
        return call_service(self.node, self._clear, Trigger.Request(), timeout=20.0)

    def left(self):
        return list(self.states[-1].position)[LEFT:LEFT + len(HOME)]

    def until(self, condition, what, seconds=30.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f'waited {seconds} s for {what}'
            time.sleep(0.01)


@pytest.fixture(scope='module')
def client(tmp_path_factory):
    reservation = DomainReservation()
    try:
        with StationProcesses(only=NODES, domain_id=reservation.domain_id, camera_width=320, camera_height=240,
                              runs=tmp_path_factory.mktemp('runs'), report=print) as station, \
                station_node('fault_client', station.namespace, station.domain_id) as node:
            yield Client(node, station)
    finally:
        reservation.release()


def test_a_move_ends_when_the_world_is_reset_and_the_arm_stays_where_the_reset_put_it(client):
    client.until(lambda: client.states, 'a joint state')
    away = [HOME[0] + 0.8, *HOME[1:]]
    results = []
    mover = threading.Thread(target=lambda: results.append(client.move(away, speed_scale=0.1)))
    mover.start()
    client.until(lambda: client.left()[0] > HOME[0] + 0.3, 'the arm to be under way')
    assert client.reset_world().success
    mover.join(30.0)
    assert results and not results[0].success and results[0].message
    after = stamp(client.states[-1])
    client.until(lambda: stamp(client.states[-1]) > after + SECOND, 'a second of ROS time')
    assert client.left() == pytest.approx(HOME, abs=0.01), 'nobody leads the arm back to where it was going'
    client.clear_guard()


def test_a_client_that_stood_still_for_longer_than_the_world_waits_comes_back_into_step(client):
    with Stream(client.station) as stream:
        client.until(lambda: len(stream.steps) >= 60, 'a policy that runs', 60.0)
        stream.process.send_signal(signal.SIGSTOP)
        time.sleep(STATION.step_timeout + 0.8)
        seen = len(stream.steps)
        stream.process.send_signal(signal.SIGCONT)
        client.clear_guard()      # which held, since the arm was moving
        client.until(lambda: len(stream.steps) >= seen + 120, 'the policy to go on', 30.0)
        numbers = [round(step * STATION.policy_rate / SECOND) for step in stream.steps]
    missed = [b - a - 1 for a, b in zip(numbers, numbers[1:])]
    assert sum(missed[:seen - 1]) == 0, 'a world in lockstep leaves out no step'
    assert sum(missed[seen - 1:]) > 0, 'the world did not wait for ever'
    assert sum(missed[-90:]) == 0, 'in step again'


def test_ros_time_goes_on_when_the_world_is_killed_and_so_does_the_station(client):
    client.until(lambda: client.verdicts, 'a verdict')
    pids = client.station.pids()
    # The guard holds once it misses the stream before this one, which may be after the world has waited for it.
    client.until(lambda: client.clear_guard().success and client.move(HOME).success, 'an arm that moves')
    with Stream(client.station) as stream:
        client.until(lambda: len(stream.steps) >= 30, 'a policy that runs', 60.0)
        before = stamp(client.states[-1])
        os.kill(pids['world'], signal.SIGKILL)
        client.until(lambda: client.station.pids().get('world', pids['world']) != pids['world'], 'another world')
        client.until(lambda: stream.ended, 'the trial to end')
    assert stream.ended.startswith('ABORTED') and 'ROS time jumped' in stream.ended, 'it counts, and is no failure'
    client.until(lambda: stamp(client.states[-1]) > before + SECOND, 'joint states of the new world')
    stamps = [stamp(state) for state in client.states]
    assert all(a < b for a, b in zip(stamps, stamps[1:])), 'ROS time never goes back'
    resumed = next(s for s in stamps if s > before + SECOND)
    client.until(lambda: stamp(client.verdicts[-1]) > resumed, 'verdicts of the new world')
    client.clear_guard()
    assert client.move([HOME[0] + 0.2, *HOME[1:]]).success
    assert client.left()[0] == pytest.approx(HOME[0] + 0.2, abs=0.03)
    others = {name: pid for name, pid in client.station.pids().items() if name != 'world'}
    assert others == {name: pid for name, pid in pids.items() if name != 'world'}, 'nobody else had to start again'


STREAMING = """
import math, sys, threading, time
import rclpy
from rclpy.parameter import Parameter
from enpire_agent.trial import TrialEnd
from enpire_agent.trial_station import RosTrialStation
from enpire_bringup.message_executor import MessageExecutor
from enpire_bringup.station_node import StationNode

rclpy.init()
parameters = {'station': 'yam_bimanual_sim', 'task': 'push_t', 'camera_width': 320, 'camera_height': 240}
node = StationNode('policy_client', namespace=sys.argv[1],
                   parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()])
station = RosTrialStation(node)      # before the node spins, as in trial_runner
executor = MessageExecutor()
executor.add_node(node)
threading.Thread(target=executor.spin, daemon=True).start()
station.begin(lambda: False)
while True:
    try:
        station.go_to_start()
        break
    except TrialEnd as end:      # the station is still to be found
        print(end.reason, file=sys.stderr)
        time.sleep(0.2)
step = station.first_step()
start, number = step.hold, 0
while (stop := station.stop_reason() or ('', ''))[0] != 'ABORTED':
    station.command(step.stamp, start + (0.0, 0.01 * math.sin(number / 20)))
    print(step.stamp, flush=True)
    step, number = station.next_step(after=step.stamp), number + 1
print(*stop, flush=True)
"""


class Stream:
    """A process that streams to the station as a trial does; `steps` are the stamps (ns) that it has answered."""

    def __init__(self, station):
        environment = {**os.environ, 'ROS_DOMAIN_ID': str(station.domain_id)}
        self.process = subprocess.Popen([sys.executable, '-c', STREAMING, station.namespace], env=environment,
                                        stdout=subprocess.PIPE, text=True)
        self.steps = []
        self.ended = ''      # why the trial would end
        self._reader = threading.Thread(target=self._read, daemon=True)

    def _read(self):
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.steps.append(int(line))
            elif line.startswith('ABORTED'):
                self.ended = line.strip()

    def __enter__(self):
        self._reader.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._reader.join(5.0)
