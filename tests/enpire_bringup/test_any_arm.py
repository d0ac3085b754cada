"""A station can have any arm: one from a URDF inside a Python package, one alone, one with seven joints."""

import dataclasses
import importlib.metadata
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest

from enpire_bringup.collision_model import CollisionModel
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.environment import environment_files, environment_hash
from enpire_bringup.kinematics import ArmKinematics, tool_down
from enpire_bringup.robot_description import LinkTransforms, robot_description
from enpire_bringup.station import load_station
from enpire_bringup.world import Renderer, World
from enpire_bringup.world_model import build_model

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'example-robot-data'


@pytest.fixture(scope='module')
def panda():
    return load_station('panda_sim')


@pytest.fixture(scope='module')
def world(panda, task):
    return World(panda, task)


def changed(station, **values):
    return dataclasses.replace(station, arms={'left': dataclasses.replace(station.arms['left'], **values)})


def written(tmp_path, station, *replacements):
    """The station file with some text replaced, loaded."""
    text = station.file.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / 'station.yaml'
    file.write_text(text)
    return load_station(file)


def drive(world, targets, seconds, **options):
    for _ in range(round(seconds / world.period)):
        world.step(targets, **options)


# -- the arm from a package

def test_arm_of_a_package_stands_where_the_station_file_says(panda, world):
    names, positions, _, _ = world.joint_state()
    arm = panda.arms['left']
    assert names == (*arm.joints, arm.gripper.joint) and len(arm.joints) == 7
    kinematics = ArmKinematics(panda, 'left')
    assert world.frame_pose(arm.base_frame)[:3, 3] == pytest.approx(arm.base_xyz)
    assert kinematics.fk(positions[:7]) == pytest.approx(world.frame_pose(arm.tcp_frame), abs=1e-4)
    assert LinkTransforms(robot_description(panda)).pose(arm.tcp_frame, dict(zip(names, positions))) == pytest.approx(
        world.frame_pose(arm.tcp_frame), abs=1e-4)


def test_simulated_arm_holds_itself_up_and_follows(panda, world):
    world.reset(0)
    arm = panda.arms['left']
    home = np.array(arm.named['home'])
    drive(world, {}, 1.0)
    assert world.joint_state()[1][:7] == pytest.approx(home, abs=1e-3)
    target = dict(zip(arm.joints, home + 0.1))
    drive(world, target, 1.5)
    assert world.joint_state()[1][:7] == pytest.approx(home + 0.1, abs=2e-3)
    assert np.abs(world.joint_state()[2]).max() < 0.01


def test_its_gripper_lifts_the_object_with_limited_force(panda, world):
    world.reset(0)
    arm = panda.arms['left']
    kinematics, finger = ArmKinematics(panda, 'left'), arm.gripper.joint
    x, y, yaw, *_ = world.object_pose('t_block')
    home = np.array(arm.named['home'])
    lift = kinematics.ik(tool_down(x, y, 0.09, yaw + np.pi), home)
    grasp = kinematics.ik(tool_down(x, y, 0.037, yaw + np.pi), lift)
    for start, end in ((home, lift), (lift, grasp)):
        for share in np.linspace(0.0, 1.0, 150):
            world.step({**dict(zip(arm.joints, start + share * (end - start))), finger: arm.gripper.open})
    drive(world, {}, 0.3)
    drive(world, {finger: arm.gripper.closed}, 0.5, efforts={finger: 20.0})
    names, positions, _, efforts = world.joint_state()
    assert 2 * positions[names.index(finger)] == pytest.approx(0.020, abs=0.002), 'width of the handle'
    assert abs(efforts[names.index(finger)]) <= 20.001
    drive(world, dict(zip(arm.joints, lift)), 1.0)
    assert world.object_pose('t_block')[3] > 0.04


def test_fingers_that_mimic_go_together(panda, world):
    world.reset(0)
    drive(world, {'panda_finger_joint1': 0.03}, 0.5)
    opening = [world._data.qpos[world.model.joint(f'panda_finger_joint{i}').qposadr[0]] for i in (1, 2)]
    assert opening == pytest.approx([0.03, 0.03], abs=1e-3)


def test_the_camera_sees_the_object_with_the_arm_at_home(panda, task, world):
    world.reset(0)
    renderer = Renderer(panda.with_camera_size(320, 240), task)
    image = renderer.render('top', world.state()).astype(int)
    renderer.close()
    red = (image[..., 0] > 100) & (image[..., 1] < 60)
    assert red.sum() > 400
    rows, columns = np.nonzero(red)
    assert 10 < rows.min() and rows.max() < 230 and 10 < columns.min() and columns.max() < 310


def test_meshes_are_touched_as_their_convex_hulls(panda):
    model = CollisionModel(panda)
    home = [*panda.arms['left'].named['home'], 0.0]
    assert 0.01 < model.distance(home).distance < 0.2
    down = list(home)
    down[1] = 1.7
    assert model.in_collision(down)


def test_every_file_that_describes_the_arm_is_in_the_hash(panda, task, tmp_path):
    names = set(environment_files(task, panda))
    assert {'description/urdf/panda.urdf', 'description/collision/link5.stl'} <= names
    assert 'description/visual/link5.dae' not in names


def test_a_file_that_a_xacro_includes_is_in_the_hash(station, task, tmp_path):
    for name in ('yam_bimanual.urdf.xacro', 'yam.urdf.xacro', 'ros2_control.xacro'):
        (tmp_path / name).write_text((station.robot_description.parent / name).read_text())
    moved = dataclasses.replace(station, robot_description=tmp_path / 'yam_bimanual.urdf.xacro')
    before = environment_hash(task, moved)
    included = tmp_path / 'yam.urdf.xacro'
    included.write_text(included.read_text().replace('effort="28"', 'effort="29"'))
    assert environment_hash(task, moved) != before


# -- what is said about a station that does not fit

def test_a_package_that_is_not_installed_is_named_with_what_to_type(panda, tmp_path):
    with pytest.raises(ConfigurationError, match=r"station.yaml: robot_description .* the Python package no-such-robot "
                                                 r"is not installed; type: python -m pip install no-such-robot==1.2"):
        written(tmp_path, panda, (f'{PACKAGE}==6.0.0', 'no-such-robot==1.2'))


def test_another_version_of_the_package_is_refused(panda, tmp_path):
    installed = importlib.metadata.version(PACKAGE)
    with pytest.raises(ConfigurationError, match=f'{PACKAGE} {installed} is installed; type: python -m pip install '
                                                 f'{PACKAGE}==5.0.0'):
        written(tmp_path, panda, (f'{PACKAGE}==6.0.0', f'{PACKAGE}==5.0.0'))


def test_a_file_that_the_package_lacks_is_named(panda, tmp_path):
    with pytest.raises(ConfigurationError, match=f"{PACKAGE} .* has no file '.*panda.urdf.old'"):
        written(tmp_path, panda, ('urdf/panda.urdf', 'urdf/panda.urdf.old'))


def test_a_ros_package_that_is_not_installed_is_named(panda, tmp_path):
    with pytest.raises(ConfigurationError, match='the ROS package lab_arm_description is not installed'):
        written(tmp_path, panda, (re.search('"pip://.*"', panda.file.read_text())[0],
                                  'package://lab_arm_description/urdf/arm.urdf'))


@pytest.mark.parametrize('change, message', [
    ({'base_frame': 'foot'}, "arms.left.base_frame is 'foot'; no such link in .*panda.urdf; it has panda_hand"),
    ({'base_frame': 'panda_link3'}, "base_frame is 'panda_link3', which .* attaches to another link"),
    ({'tcp_frame': 'panda_hand_tcp'}, "would make the frame 'panda_hand_tcp', which .*panda.urdf has already"),
    ({'joints': ('panda_joint1', 'elbow')}, "names the joint 'elbow', but .*panda.urdf has no such joint"),
])
def test_a_station_that_does_not_fit_the_urdf_is_named(panda, task, change, message):
    with pytest.raises(ConfigurationError, match=message):
        build_model(changed(panda, **change), task)


def test_tool_frame_on_a_link_that_is_not_there_is_named(panda, tmp_path):
    station = written(tmp_path, panda, ('tcp: {link: panda_hand,', 'tcp: {link: palm,'))
    with pytest.raises(ConfigurationError, match="arms.left.tcp.link is 'palm'; no such link in .*it has panda_hand"):
        robot_description(station)


def edited_urdf(panda, tmp_path, *replacements):
    """The package's URDF with replacements (pattern, text), its meshes where they are; the station that uses it."""
    source = panda.robot_description
    text = source.read_text().replace(f'package://{PACKAGE}/', f'file://{source.parents[3]}/')
    for pattern, new in replacements:
        text, count = re.subn(pattern, new, text)
        assert count
    file = tmp_path / 'edited.urdf'
    file.write_text(text)
    return dataclasses.replace(panda, robot_description=file)


def test_links_without_mass_are_named(panda, task, tmp_path):
    station = edited_urdf(panda, tmp_path, (r'<mass value="3.587895"/>', '<mass value="0"/>'))
    with pytest.raises(ConfigurationError, match='without mass: panda_link4; a simulated arm needs <inertial>'):
        build_model(station, task)


def test_a_joint_without_effort_limit_is_named(panda, task, tmp_path):
    station = edited_urdf(panda, tmp_path,
                          (r'<limit effort="87.0" lower="-1.7628"', '<limit effort="0" lower="-1.7628"'))
    with pytest.raises(ConfigurationError, match='joint panda_joint2 has no effort limit, .* add <limit effort='):
        build_model(station, task)


def test_a_collision_mesh_that_is_not_there_is_named(panda, task, tmp_path):
    station = edited_urdf(panda, tmp_path, (r'collision/link3.stl', 'collision/lost.stl'))
    with pytest.raises(ConfigurationError, match="link panda_link3: there is no collision mesh '.*lost.stl'"):
        build_model(station, task)


def test_two_arms_need_a_description_that_places_both(panda):
    arm = panda.arms['left']
    station = dataclasses.replace(panda, arms={'left': arm, 'right': dataclasses.replace(arm, name='right')})
    with pytest.raises(ConfigurationError, match='describes one arm .* the station has 2; name a xacro file'):
        robot_description(station)


def test_a_description_that_ignores_the_base_of_the_station_file_is_named(station, tmp_path):
    fixed = tmp_path / 'fixed.urdf.xacro'
    folder = station.robot_description.parent
    text = station.robot_description.read_text()
    for name in ('yam.urdf.xacro', 'ros2_control.xacro'):
        text = text.replace(f'filename="{name}"', f'filename="{folder / name}"')
    fixed.write_text(text.replace('$(arg right_xyz)', '0 -0.5 0'))
    with pytest.raises(ConfigurationError, match=r'arms.right.base is xyz \[0.0, -0.61, 0.0\] m.* puts it at '
                                                 r'\[0.0, -0.5, 0.0\] m; let it take the pose as the xacro arguments'):
        robot_description(dataclasses.replace(station, robot_description=fixed))


# -- nothing outside task and station files knows them

NAMES = re.compile(r'\byam\b|_yam_|\bpanda|\bt_block|\bT block\b|\bthe T\b|d405|d435|realsense', re.IGNORECASE)
DEFAULTS = re.compile(r'yam_bimanual_sim|push_t')


def test_nothing_outside_task_and_station_files_names_a_task_an_arm_or_a_camera():
    """The names of the stations and tasks that ship may be defaults of commands."""
    found = []
    for package in ('enpire_bringup', 'enpire_reward', 'enpire_reset', 'enpire_agent'):
        for file in sorted((ROOT / package / package).rglob('*.py')) + sorted((ROOT / 'launch').glob('*.py')):
            for number, line in enumerate(file.read_text().splitlines(), 1):
                if NAMES.search(DEFAULTS.sub('', line)):
                    found.append(f'{file.relative_to(ROOT)}:{number}: {line.strip()}')
    assert not found, '\n'.join(found)


def test_mujoco_is_asked_for_nothing_but_joints_and_frames_of_the_station_file(panda, task):
    """The simulated station has what the station file names, and no more arms."""
    model = build_model(panda, task)
    actuators = {mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_ACTUATOR, i) for i in range(model.nu)}
    assert actuators == set(panda.joints)
