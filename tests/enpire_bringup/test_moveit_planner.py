"""Where moveit_py is installed it plans, asked as it is documented; here a stand-in answers in its place."""

import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from enpire_bringup.obstacles import Obstacle
from enpire_bringup.path_planner import NoPathError, PathQuestion, choose_path_planner

pytest.importorskip('shape_msgs.msg')

# What moveit_py offers, as far as it is used. Plans go by way of a position between start and goal.
MOVEIT = {
    'moveit/__init__.py': '',
    'moveit/core/__init__.py': '',
    'moveit/core/robot_state.py': '''
        class RobotState:
            def __init__(self, model):
                assert model == 'robot model'
                self.joint_positions = {}
                self.updated = False

            def update(self):
                self.updated = True
        ''',
    'moveit/planning.py': '''
        from types import SimpleNamespace as Record


        class Scene:
            def __init__(self):
                self.objects, self.allowed = {}, set()
                self.allowed_collision_matrix = Record(set_entry=lambda a, b, yes: self.allowed.add((a, b, yes)))
                self.current_state = Record(update=lambda: None)

            def apply_collision_object(self, message):
                self.objects[message.id] = message

            def __enter__(self):
                return self

            def __exit__(self, *error):
                pass


        class Outcome:
            def __init__(self, trajectory):
                self.trajectory, self.error_code = trajectory, Record(val=1 if trajectory else 99999)

            def __bool__(self):
                return self.trajectory is not None


        class PlanningComponent:
            possible = True

            def __init__(self, group):
                self.group = group

            def set_start_state(self, *, robot_state):
                self.start = robot_state

            def set_goal_state(self, *, robot_state):
                self.goal = robot_state

            def plan(self):
                assert self.start.updated and self.goal.updated
                if not self.possible:
                    return Outcome(None)
                start, goal = self.start.joint_positions, self.goal.joint_positions
                names = sorted((name for name in start if start[name] != goal[name]), reverse=True)
                points = [Record(positions=[start[n] + share * (goal[n] - start[n]) for n in names])
                          for share in (0.0, 0.25, 1.0)]
                message = Record(joint_trajectory=Record(joint_names=names, points=points))
                return Outcome(Record(get_robot_trajectory_msg=lambda: message))


        class MoveItPy:
            def __init__(self, node_name, config_dict, provide_planning_service):
                self.config, self.scene = config_dict, Scene()

            def get_planning_component(self, name):
                return PlanningComponent(name)

            def get_planning_scene_monitor(self):
                return Record(read_write=lambda: self.scene)

            def get_robot_model(self):
                return 'robot model'
        ''',
    'moveit_msgs/__init__.py': '',
    'moveit_msgs/msg.py': '''
        from types import SimpleNamespace as Record


        class CollisionObject:
            ADD = b'0'

            def __init__(self, id, operation):
                self.id, self.operation, self.header = id, operation, Record(frame_id='')
        ''',
}


@pytest.fixture
def moveit(tmp_path, monkeypatch):
    for name, text in MOVEIT.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    # Takes seconds, and has tests of its own.
    monkeypatch.setattr('enpire_bringup.moveit_configuration.disabled_pairs', lambda station: {})
    yield
    for name in [name for name in sys.modules if name.split('.')[0] in ('moveit', 'moveit_msgs')
                 or name == 'enpire_bringup.moveit_planner']:
        del sys.modules[name]


def question(station):
    arm = station.arms['left']
    present = dict.fromkeys(station.joints, 0.1)
    start = np.array(arm.named['home'])
    return PathQuestion('left', arm.joints, start, start + np.arange(1, 7) / 10, np.full(6, -3.0), np.full(6, 3.0),
                        lambda q: True, present, seed=1)


def test_moveit_is_chosen_where_it_is_installed(station, task, moveit):
    assert choose_path_planner(station, task).name == 'moveit_py'


def test_ompl_is_chosen_where_it_is_not(station, task):
    assert choose_path_planner(station, task).name == 'ompl'


def test_path_of_moveit_is_in_the_arm_s_joint_order_from_start_to_goal(station, task, moveit):
    asked = question(station)
    path = choose_path_planner(station, task).plan(asked)
    np.testing.assert_allclose(path, [asked.start, asked.start + 0.25 * (asked.goal - asked.start), asked.goal])


def test_moveit_knows_table_and_boxes_and_where_the_other_arm_is(station, task, moveit):
    shelf = Obstacle('shelf', (0.1, 0.2, 0.3), (0.4, 0.0, 0.2), (0.0, 0.0, 0.0))
    planner = choose_path_planner(replace(station, obstacles=(shelf,)), task)
    scene = planner._moveit.scene
    assert set(scene.objects) >= {'table', 'shelf'}
    box = scene.objects['shelf']
    assert list(box.primitives[0].dimensions) == [0.1, 0.2, 0.3] and box.primitive_poses[0].position.x == 0.4
    assert all((arm.base_frame, 'table', True) in scene.allowed for arm in station.arms.values())
    assert 'robot_description_semantic' in planner._moveit.config
    planner.plan(question(station))
    start = planner._components['left'].start.joint_positions
    assert all(start[joint] == 0.1 for joint in station.arms['right'].joints)


def test_failure_of_moveit_is_no_path(station, task, moveit):
    planner = choose_path_planner(station, task)
    planner._components['left'].possible = False
    with pytest.raises(NoPathError, match='MoveIt found no path: error code 99999'):
        planner.plan(question(station))
