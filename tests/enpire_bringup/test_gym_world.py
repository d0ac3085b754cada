"""A Gymnasium environment as a station's world: any id, mapped by task.yaml, with errors for those who write one."""

import sys

import numpy as np
import pytest
import yaml

from enpire_bringup.composition import station_processes
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.environment import environment_files, read_environment
from enpire_bringup.station import default_station, load_station
from enpire_bringup.task import load_task

EXTRA = 'Gymnasium is an optional extra and not installed; type: make extras'
pytest.importorskip('gymnasium', reason=EXTRA)
pytest.importorskip('gym_pusht', reason=EXTRA)

from enpire_bringup.gym_world import GymWorld  # noqa: E402
from enpire_bringup.observation_messages import (ObservationError, observation_message,  # noqa: E402
                                                 read_observation)

STATION = load_station('gym')
POLE = {
    'objective': 'Balance the pole.',
    'gym': {'id': 'CartPole-v1', 'success': 'balanced'},
    'policy': {'rate': 50.0, 'deadline': 0.1, 'episode_timeout': 10.0, 'max_late_steps': 10},
    'observation': ['state'],
    'action': {'type': 'discrete', 'count': 2, 'hold': 0},
    'campaign': {'success_window': 5, 'search_trials': 2, 'goal': 0.9},
}
# An environment of a lab: what a task.yaml has to name is in its info.
LAB = '''
import gymnasium
import numpy as np
from gymnasium import spaces


class Line(gymnasium.Env):
    """Bring a point on a line to 1."""

    def __init__(self):
        self.observation_space = spaces.Dict({'x': spaces.Box(-5.0, 5.0, (1,)), 'kind': spaces.Discrete(3)})
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(-0.5, 0.5))
        return self._seen(), {}

    def step(self, action):
        self.x += 0.1 * float(action[0])
        return self._seen(), 0.0, self.x < -1.0, False, {'there': self.x > 1.0, 'x': self.x}

    def _seen(self):
        return {'x': np.array([self.x], np.float32), 'kind': 0}


gymnasium.register('Line-v0', Line, max_episode_steps=30)
'''
LINE = {**POLE, 'objective': 'Go to 1.', 'observation': ['x'],
        'gym': {'id': 'Line-v0', 'package': 'line_of_a_lab', 'success': 'there', 'measures': {'x': 1.0}},
        'action': {'type': 'box', 'low': [-1.0], 'high': [1.0], 'hold': 'zeros'}}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / 'line_of_a_lab').mkdir()
    (tmp_path / 'line_of_a_lab' / '__init__.py').write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop('line_of_a_lab', None)      # every test has one of its own


def task_of(tmp_path, content, **changes):
    folder = tmp_path / 'task'
    (folder / 'recipe').mkdir(parents=True, exist_ok=True)
    (folder / 'task.yaml').write_text(yaml.safe_dump({**content, **changes}))
    return load_task(folder)


@pytest.mark.parametrize('level, shapes', [
    ('gym_pusht', {'state': (5,)}), ('gym_pusht_keypoints', {'environment_state': (16,), 'agent_pos': (2,)}),
    ('gym_pusht_pixels', {'pixels': (96, 96, 3), 'agent_pos': (2,)})])
def test_gym_pusht_comes_with_the_packages_own_reset_and_success(level, shapes):
    import gymnasium

    task = load_task(level)
    world, bare = GymWorld(task), gymnasium.make('gym_pusht/PushT-v0', obs_type=task.gym.arguments['obs_type'])
    step, (seen, _) = world.reset(987654321987654321), bare.reset(seed=987654321987654321)
    assert {name: values.shape for name, values in step.observation.items()} == shapes
    for action in (np.array([100.0, 200.0]), np.array([300.0, 300.0])):
        step = world.step(action)
        seen, reward, _, _, said = bare.step(action.astype(np.float32))
        expected = seen if isinstance(seen, dict) else {'state': seen}
        for name in shapes:
            np.testing.assert_array_equal(step.observation[name], expected[name])
        assert (step.reward, step.success, step.measures) == (reward, False, {'coverage': said['coverage']})
    assert step.number == 2 and not step.over


def test_it_is_drawn_where_that_is_asked_for():
    world = GymWorld(load_task('gym_pusht'), drawn=True)
    world.reset(1)
    assert world.image().shape == (240, 240, 3) and world.image().std() > 10
    assert GymWorld(load_task('gym_pusht')).image() is None


def test_an_environment_of_a_lab_needs_nothing_but_its_task_folder(tmp_path, lab):
    world = GymWorld(task_of(tmp_path, LINE))
    step = world.reset(3)
    assert list(step.observation) == ['x'] and not step.success
    while not step.over and not step.success:
        step = world.step(np.array([1.0]))
    assert step.success and step.measures['x'] > 1.0 and not step.terminated
    step = world.reset(3)
    while not step.over:
        step = world.step(np.array([-1.0]))
    assert step.terminated and not step.success
    with pytest.raises(RuntimeError, match='reset the world first'):
        world.step(np.array([1.0]))
    world.reset(3)
    for _ in range(30):
        step = world.step(np.zeros(1))
    assert step.truncated and not step.terminated


@pytest.mark.parametrize('changes, said', [
    ({'gym': {**LINE['gym'], 'package': 'not_there_at_all'}}, 'needs the package not_there_at_all'),
    ({'gym': {**LINE['gym'], 'package': 'gone', 'install': 'make extras'}}, 'not installed; type: make extras'),
    ({'gym': {**LINE['gym'], 'id': 'Line-v7'}}, 'gym.id Line-v7 cannot be made'),
    ({'gym': {**LINE['gym'], 'arguments': {'color': 'red'}}}, "cannot be made: .*'color'"),
    ({'gym': {**LINE['gym'], 'success': 'won'}}, "gym.success names 'won'.* it has there, x"),
    ({'gym': {**LINE['gym'], 'measures': {'y': 1.0}}}, "gym.measures names 'y'"),
    ({'observation': ['x', 'kind']}, "observation names 'kind'; the environment has x"),
    ({'action': {**LINE['action'], 'low': [-2.0]}}, 'action is wider than what the environment takes'),
    ({'action': {**LINE['action'], 'low': [-1.0, 0.0], 'high': [1.0, 1.0]}}, 'a box of 2 numbers'),
    ({'action': {'type': 'discrete', 'count': 2, 'hold': 0}}, 'discrete with 2 actions; the environment has Box'),
    ({'action': {**LINE['action'], 'hold': {'observation': 'x', 'first': 3}}}, "action.hold .*'x' has no 1 numbers"),
])
def test_what_does_not_fit_the_environment_is_named(tmp_path, lab, changes, said):
    task = task_of(tmp_path, LINE, **changes)
    with pytest.raises(ConfigurationError, match=said) as caught:
        GymWorld(task)
    assert str(task.file) in str(caught.value)


@pytest.mark.parametrize('changes, said', [
    ({'gym': {'success': 'x'}}, 'gym.id is missing'),
    ({'gym': {**POLE['gym'], 'arguments': [1]}}, 'gym.arguments must be a mapping'),
    ({'gym': {**POLE['gym'], 'render': True}}, 'gym.render is not a known key'),
    ({'observation': []}, 'observation is empty'),
    ({'observation': ['time']}, "names 'time'"),
    ({'action': {'type': 'discrete', 'count': 2, 'hold': 2}}, 'action.hold is 2'),
    ({'action': {'type': 'box', 'low': [1.0], 'high': [0.0], 'hold': 'zeros'}}, 'not below high'),
    ({'action': {'type': 'box', 'low': [0.0], 'high': [1.0], 'hold': {'observation': 'y'}}}, 'action.hold.observation'),
    ({'action': {'type': 'tip_xy'}}, 'action.type'),
    ({'goal': {'xy': [0, 0]}}, 'goal is not a known key'),
])
def test_a_wrong_entry_of_such_a_task_is_named(tmp_path, changes, said):
    with pytest.raises(ConfigurationError, match=said):
        task_of(tmp_path, POLE, **changes)


def test_an_environment_whose_info_has_no_success_is_refused_with_what_it_has(tmp_path):
    with pytest.raises(ConfigurationError, match="gym.success names 'balanced'.*it has nothing"):
        GymWorld(task_of(tmp_path, POLE))


def test_what_holds_still_is_what_the_task_says(tmp_path):
    box = load_task('gym_pusht').action
    assert box.hold_in({'state': np.arange(5.0)}).tolist() == [0.0, 1.0]
    here, before = np.array([10.0, 600.0]), np.array([1.0, 1.0])
    assert box.target(None, before, here).tolist() == [10.0, 512.0]
    assert box.target(np.array([-5.0, 40.0]), before, here).tolist() == [0.0, 40.0]
    discrete = task_of(tmp_path, POLE).action
    assert discrete.target(None, before, discrete.hold_in({})).tolist() == [0.0]
    assert discrete.target(np.array([7.2]), before, np.zeros(1)).tolist() == [1.0]


def test_observations_travel_as_they_are_and_nothing_else_does():
    sent = {'state': np.arange(5.0), 'pixels': np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
            'there': np.array([True, False]), 'count': np.array(3, np.int64)}
    got = read_observation(observation_message(sent))
    assert list(got) == list(sent)
    for name, values in sent.items():
        assert got[name].dtype == values.dtype
        np.testing.assert_array_equal(got[name], values)
    with pytest.raises(ObservationError, match="'name' is of type"):
        observation_message({'name': np.array(['a'])})
    message = observation_message(sent)
    for field, value in (('dtype', 'object'), ('dtype', 'nonsense'), ('shape', [7])):
        broken = observation_message(sent)
        setattr(broken.arrays[0], field, value)
        with pytest.raises(ObservationError, match="'state' is no array"):
            read_observation(broken)
    assert read_observation(message)


def test_the_station_that_goes_with_the_task_is_taken_and_another_refused():
    gym, arms = load_task('gym_pusht'), load_task('push_t')
    assert (default_station(gym), default_station(arms)) == ('gym', 'yam_bimanual_sim')
    processes = station_processes(STATION, gym, 'station_1')
    assert [node.name for process in processes for node in process.nodes] == [
        'gym_station', 'trial_runner', 'supervisor', 'git_bridge']
    for station, task in ((STATION, arms), (load_station('yam_bimanual_sim'), gym)):
        with pytest.raises(ConfigurationError, match='take --station'):
            station_processes(station, task, 'station_1')


def test_the_package_of_the_environment_is_frozen_with_it(tmp_path, lab):
    task = task_of(tmp_path, LINE)
    files = environment_files(task, STATION)
    assert {'task', 'station', 'world/line_of_a_lab/__init__.py', 'world/gym_world.py', 'scorer/score.py'} <= set(files)
    assert 'world/gym_pusht/envs/pusht.py' in environment_files(load_task('gym_pusht'), STATION)
    before = read_environment(task, STATION)
    file = tmp_path / 'line_of_a_lab' / '__init__.py'
    file.write_text(file.read_text().replace('self.x > 1.0', 'self.x > 0.0'))
    changes = before.changes(read_environment(task, STATION))
    assert len(changes) == 1 and str(file) in changes[0]
    with pytest.raises(ConfigurationError, match='needs the package gone'):
        environment_files(task_of(tmp_path, LINE, gym={**LINE['gym'], 'package': 'gone'}), STATION)


def test_the_doctor_looks_at_such_a_world_too():
    from enpire_agent.doctor import OK, draw_frame, station_files

    finding, = station_files('gym', 'gym_pusht')
    assert finding.level == OK and 'gym_pusht/PushT-v0' in finding.text
    drawn = draw_frame('gym', 'gym_pusht')
    assert (drawn['width'], drawn['height']) == (240, 240) and drawn['step_ms'] > 0
    finding, = station_files('yam_bimanual_sim', 'gym_pusht')
    assert finding.level != OK and 'take --station gym' in finding.text
