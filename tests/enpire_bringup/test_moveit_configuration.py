"""URDF, simulated arms, SRDF, controllers and MoveIt's files name the same things as the station file."""

import dataclasses
import itertools
import xml.etree.ElementTree as ElementTree

import pinocchio
import pytest
import yaml

from enpire_bringup import moveit_configuration
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.moveit_configuration import configuration_files, configuration_folder, semantic_description
from enpire_bringup.robot_description import HARDWARE, robot_description
from enpire_bringup.station import load_station
from enpire_bringup.world_model import build_model

STATIONS = ('yam_bimanual_sim', 'panda_sim')


@pytest.fixture(scope='module', params=STATIONS)
def shipped(request):
    return load_station(request.param)


@pytest.fixture(scope='module')
def files(shipped):
    """The shipped files: SRDF as an element, YAML as data."""
    folder = configuration_folder(shipped)
    return {file.name: ElementTree.parse(file).getroot() if file.suffix == '.srdf' else yaml.safe_load(file.read_text())
            for file in folder.iterdir()}


def test_names_agree_in_station_file_urdf_simulation_srdf_controllers_and_moveit(shipped, files, task):
    urdf = ElementTree.fromstring(robot_description(shipped))
    urdf_joints = {joint.get('name') for joint in urdf.findall('joint')}
    urdf_links = {link.get('name') for link in urdf.findall('link')}
    simulated = build_model(shipped, task)
    srdf, ros2, moveit = files['robot.srdf'], files['ros2_controllers.yaml'], files['moveit_controllers.yaml']
    controllers = moveit['moveit_simple_controller_manager']
    assert srdf.get('name') == urdf.get('name')
    assert {name.get('name') for name in urdf.findall('ros2_control/joint')} == set(shipped.joints)
    assert shipped.joints == tuple(name.get('name') for name in urdf.findall('ros2_control/joint')), 'one order'
    chains = {group.get('name'): group.find('chain') for group in srdf.findall('group')}
    states = {(state.get('group'), state.get('name')): {joint.get('name'): float(joint.get('value')) for joint in state}
              for state in srdf.findall('group_state')}
    named_links = {pair.get(end) for pair in srdf.findall('disable_collisions') for end in ('link1', 'link2')}
    assert named_links <= urdf_links
    assert {joint.get('name') for joint in srdf.iter('joint')} <= urdf_joints
    for arm in shipped.arms.values():
        joints = [*arm.joints, arm.gripper.joint]
        assert set(joints) <= urdf_joints
        for joint in joints:
            assert simulated.joint(joint) is not None and simulated.actuator(joint) is not None
        assert simulated.body(arm.base_frame) is not None and simulated.site(arm.tcp_frame) is not None
        assert {arm.base_frame, arm.tcp_frame} <= urdf_links
        assert (chains[arm.name].get('base_link'), chains[arm.name].get('tip_link')) == (arm.base_frame, arm.tcp_frame)
        for name, positions in arm.named.items():
            assert states[arm.name, name] == pytest.approx(dict(zip(arm.joints, positions)))
        effector, = [e for e in srdf.findall('end_effector') if e.get('parent_group') == arm.name]
        assert effector.get('group') in chains and effector.get('parent_link') in urdf_links
        assert states[f'{arm.name}_gripper', 'open'] == {arm.gripper.joint: pytest.approx(arm.gripper.open)}
        trajectory = ros2[f'/**/{arm.name}/joint_trajectory_controller']['ros__parameters']
        assert trajectory['joints'] == list(arm.joints)
        assert ros2[f'/**/{arm.name}/gripper_controller']['ros__parameters']['joint'] == arm.gripper.joint
        assert controllers[f'{arm.name}/joint_trajectory_controller']['joints'] == list(arm.joints)
        assert controllers[f'{arm.name}/gripper_controller']['joints'] == [arm.gripper.joint]
        assert set(arm.joints) <= set(files['joint_limits.yaml']['joint_limits'])
        assert arm.name in files['kinematics.yaml'] and arm.name in files['ompl_planning.yaml']


def test_files_that_ship_are_those_that_the_station_gives(shipped):
    folder = configuration_folder(shipped)
    for name, text in configuration_files(shipped).items():
        assert (folder / name).read_text() == text, (
            f'type: python -m enpire_bringup.moveit_configuration --station {shipped.name}')


def test_actions_of_the_controllers_are_those_of_the_contract(shipped, files):
    manager = files['ros2_controllers.yaml']['/**/controller_manager']['ros__parameters']
    for name, kind in itertools.product(shipped.arms, ('joint_trajectory_controller', 'gripper_controller')):
        arguments = manager[f'{name}_{kind}']['node_options_args']
        assert arguments == ['-r', f'__ns:=/station_1/{name}', '-r', f'__node:={kind}']
    assert files['moveit_controllers.yaml']['moveit_simple_controller_manager'][
        'left/joint_trajectory_controller']['action_ns'] == 'follow_joint_trajectory'


@pytest.mark.parametrize('hardware, plugin', [
    ('mock', 'mock_components/GenericSystem'), ('topic_based', 'topic_based_ros2_control/TopicBasedSystem'),
    ('simulated', 'gz_ros2_control/GazeboSimSystem')])
def test_hardware_of_the_ros2_control_block_is_an_argument(shipped, hardware, plugin):
    block = ElementTree.fromstring(robot_description(shipped, hardware)).find('ros2_control')
    assert block.findtext('hardware/plugin') == plugin
    positions = [float(joint.findtext("state_interface[@name='position']/param")) for joint in block.findall('joint')]
    assert positions == pytest.approx([value for arm in shipped.arms.values()
                                       for value in (*arm.named['home'], arm.gripper.closed)])
    commands = {joint.get('name'): [i.get('name') for i in joint.findall('command_interface')]
                for joint in block.findall('joint')}
    assert commands == {joint: ['position'] for joint in shipped.joints}


def test_another_hardware_is_refused(shipped):
    with pytest.raises(ConfigurationError, match="hardware is 'gazebo'; expected one of " + ', '.join(HARDWARE)):
        robot_description(shipped, 'gazebo')


def test_links_that_the_srdf_says_never_meet_do_not(shipped, files):
    """In positions that did not decide about it."""
    urdf = robot_description(shipped)
    model = pinocchio.buildModelFromXML(urdf, mimic=True)
    geometry = moveit_configuration.collision_geometry(model, urdf)
    srdf = files['robot.srdf']
    never = {frozenset((pair.get('link1'), pair.get('link2'))) for pair in srdf.findall('disable_collisions')
             if pair.get('reason') == 'Never'}
    links = [model.frames[shape.parentFrame].name for shape in geometry.geometryObjects]
    for first, second in itertools.combinations(range(len(links)), 2):
        if frozenset((links[first], links[second])) in never:
            geometry.addCollisionPair(pinocchio.CollisionPair(first, second))
    data, scratch = model.createData(), geometry.createData()
    pinocchio.seed(7)
    positions = [pinocchio.randomConfiguration(model) for _ in range(500)]
    touching = sum(pinocchio.computeCollisions(model, data, geometry, scratch, q, True) for q in positions)
    assert len(never) > 5 and touching == 0


def test_groups_of_a_bimanual_station_are_left_right_and_both(station):
    srdf = ElementTree.parse(configuration_folder(station) / 'robot.srdf')
    groups = {group.get('name'): [part.get('name') for part in group.findall('group')]
              for group in srdf.findall('group')}
    assert {'left', 'right', 'left_gripper', 'right_gripper', 'both'} == set(groups)
    assert groups['both'] == ['left', 'right']


def test_pinocchio_reads_the_srdf(shipped):
    model = pinocchio.buildModelFromXML(robot_description(shipped))
    srdf = (configuration_folder(shipped) / 'robot.srdf').read_text()
    pinocchio.loadReferenceConfigurationsFromXML(model, srdf, False)
    arm = shipped.arms['left']
    q = model.referenceConfigurations['home']
    first = model.joints[model.getJointId(arm.joints[3])].idx_q
    assert q[first] == pytest.approx(arm.named['home'][3])


def test_moveit_parameters_hold_all_that_a_planning_node_reads(shipped, monkeypatch):
    monkeypatch.setattr(moveit_configuration, 'SAMPLES', 10)
    parameters = moveit_configuration.moveit_parameters(shipped)
    assert ElementTree.fromstring(parameters['robot_description']).tag == 'robot'
    assert parameters['robot_description_semantic'] == semantic_description(shipped)
    assert parameters['planning_pipelines']['pipeline_names'] == ['ompl'] and 'ompl' in parameters
    limits = parameters['robot_description_planning']['joint_limits']
    assert all(limit['max_velocity'] <= shipped.safety.max_joint_speed for limit in limits.values())


def test_writing_names_a_station_that_is_not_there(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr('sys.argv', ['moveit_configuration', '--station', 'nowhere', '--output', str(tmp_path)])
    assert moveit_configuration.main() == 2
    assert "no station 'nowhere'" in capsys.readouterr().err


def test_configuration_is_written_for_a_station_of_ones_own(shipped, capsys, monkeypatch, tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text(shipped.file.read_text())
    monkeypatch.setattr(moveit_configuration, 'SAMPLES', 10)
    monkeypatch.setattr('sys.argv', ['moveit_configuration', '--station', str(file), '--output', str(tmp_path / 'out')])
    assert moveit_configuration.main() == 0
    assert {path.name for path in (tmp_path / 'out').iterdir()} == set(moveit_configuration.configuration_files(
        dataclasses.replace(shipped, name='mine')))
