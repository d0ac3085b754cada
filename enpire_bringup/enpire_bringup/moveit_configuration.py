"""What ros2_control and MoveIt want to know of a station, made from its station file and its robot description. No ROS.

    ./enpire python -- -m enpire_bringup.moveit_configuration --station NAME_OR_FILE [--output FOLDER]

writes the files of a MoveIt configuration: robot.srdf, ros2_controllers.yaml, moveit_controllers.yaml, kinematics.yaml,
joint_limits.yaml, ompl_planning.yaml and moveit_cpp.yaml. Those of the stations that ship lie in config/moveit/.
Planning groups are the arms, "<arm>_gripper" for each gripper and, with several arms, one of all of them.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.paths import share_directory
from enpire_bringup.robot_description import WORLD, collision_geometry, robot_description
from enpire_bringup.station import Arm, Station, load_station

SRDF_FILE = 'robot.srdf'
SAMPLES = 10_000               # random joint positions that decide which links of an arm never meet
NEVER_CLEARANCE = 0.02         # m: links that come nearer in one of them are looked at
GRIPPER_STALL_VELOCITY = 0.001 # m/s
GRIPPER_TOLERANCE = 0.002      # m
HEADER = ('Written by enpire_bringup.moveit_configuration from the station file {station}.yaml and the robot\n'
          'description; change those and write it anew.')


def all_arms_group(station: Station) -> str:
    """Name of the group of all arms: "both", or "all" for more than two; "" on a station with one arm."""
    return {1: '', 2: 'both'}.get(len(station.arms), 'all')


def semantic_description(station: Station) -> str:
    """The SRDF text: groups, the named positions of the station file, end effectors, pairs of links to leave out."""
    robot = ElementTree.fromstring(robot_description(station))
    srdf = ElementTree.Element('robot', name=robot.get('name'))
    for arm in station.arms.values():
        group = ElementTree.SubElement(srdf, 'group', name=arm.name)
        ElementTree.SubElement(group, 'chain', base_link=arm.base_frame, tip_link=arm.tcp_frame)
        group = ElementTree.SubElement(srdf, 'group', name=f'{arm.name}_gripper')
        for joint in (arm.gripper.joint, *_followers(robot, arm)):
            ElementTree.SubElement(group, 'joint', name=joint)
    together = all_arms_group(station)
    if together:
        group = ElementTree.SubElement(srdf, 'group', name=together)
        for name in station.arms:
            ElementTree.SubElement(group, 'group', name=name)
    for arm in station.arms.values():
        for name, positions in arm.named.items():
            _add_state(srdf, name, arm.name, dict(zip(arm.joints, positions)))
        for name, position in (('open', arm.gripper.open), ('closed', arm.gripper.closed)):
            _add_state(srdf, name, f'{arm.name}_gripper', {arm.gripper.joint: position})
    if together:
        for name in _names_of_all(station):
            _add_state(srdf, name, together, {joint: position for arm in station.arms.values()
                                              for joint, position in zip(arm.joints, arm.named[name])})
    for arm in station.arms.values():
        ElementTree.SubElement(srdf, 'end_effector', name=f'{arm.name}_end_effector', group=f'{arm.name}_gripper',
                               parent_link=_parent(robot, arm.gripper.joint), parent_group=arm.name)
        for joint in _followers(robot, arm):
            ElementTree.SubElement(srdf, 'passive_joint', name=joint)
    for (first, second), reason in sorted(disabled_pairs(station).items()):
        ElementTree.SubElement(srdf, 'disable_collisions', link1=first, link2=second, reason=reason)
    ElementTree.indent(srdf)
    return (f'<?xml version="1.0"?>\n<!-- {HEADER.format(station=station.name)} -->\n'
            f'{ElementTree.tostring(srdf, encoding="unicode")}\n')


def disabled_pairs(station: Station) -> dict[tuple[str, str], str]:
    """Pairs of links (sorted names) that need no look for collisions, and why: Adjacent, Default or Never.

    Default: their shapes overlap at a named position, so they are coarse there. Never: of one arm, and apart in all
    of many random positions.
    """
    import pinocchio as pin

    urdf = robot_description(station)
    model = pin.buildModelFromXML(urdf, mimic=True)
    geometry = collision_geometry(model, urdf)
    geometry.addAllCollisionPairs()        # leaves out what hangs on the same joint
    links = [model.frames[shape.parentFrame].name for shape in geometry.geometryObjects]
    pairs = [tuple(sorted((links[pair.first], links[pair.second]))) for pair in geometry.collisionPairs]
    arm_of = {link: arm for arm, members in _arm_links(station, urdf).items() for link in members}
    data, scratch = model.createData(), geometry.createData()

    def meeting(q: np.ndarray) -> set[tuple[str, str]]:
        pin.computeCollisions(model, data, geometry, scratch, q, False)
        return {pair for pair, result in zip(pairs, scratch.collisionResults) if result.isCollision()}

    default = set().union(*(meeting(q) for q in _named_positions(station, model)))
    for request in scratch.collisionRequests:
        request.security_margin = NEVER_CLEARANCE
    low = np.where(np.isfinite(model.lowerPositionLimit), model.lowerPositionLimit, -np.pi)
    high = np.where(np.isfinite(model.upperPositionLimit), model.upperPositionLimit, np.pi)
    generator = np.random.default_rng(0)
    meet = set().union(*(meeting(generator.uniform(low, high)) for _ in range(SAMPLES)))
    adjacent = _adjacent(urdf)
    disabled = {}
    for pair in itertools.combinations(sorted(set(links)), 2):
        fixed = all(model.frames[model.getFrameId(link)].parentJoint == 0 for link in pair)
        if pair in adjacent:
            disabled[pair] = 'Adjacent'
        elif pair in default:
            disabled[pair] = 'Default'
        elif fixed or (arm_of.get(pair[0]) == arm_of.get(pair[1]) and pair not in meet):
            disabled[pair] = 'Never'
    return disabled


def ros2_controllers(station: Station, namespace: str = '/station_1') -> dict[str, Any]:
    """Parameters of the controller_manager and its controllers, one joint trajectory and one gripper controller an arm.

    Each controller's node is put into its arm's namespace, so that its actions have the names of this suite, e.g.
    <namespace>/left/joint_trajectory_controller/follow_joint_trajectory.
    """
    manager: dict[str, Any] = {
        'update_rate': round(station.control_rate),
        'joint_state_broadcaster': {'type': 'joint_state_broadcaster/JointStateBroadcaster'}}
    parameters: dict[str, Any] = {'/**/controller_manager': {'ros__parameters': manager}}
    for arm in station.arms.values():
        for kind, controller, own in (
                ('joint_trajectory_controller', 'joint_trajectory_controller/JointTrajectoryController', {
                    'joints': list(arm.joints), 'command_interfaces': ['position'],
                    'state_interfaces': ['position', 'velocity'], 'allow_partial_joints_goal': False,
                    'constraints': {'stopped_velocity_tolerance': 0.03, 'goal_time': 1.5}}),
                ('gripper_controller', 'position_controllers/GripperActionController', {
                    'joint': arm.gripper.joint, 'max_effort': arm.gripper.max_effort, 'allow_stalling': True,
                    'stall_velocity_threshold': GRIPPER_STALL_VELOCITY, 'goal_tolerance': GRIPPER_TOLERANCE})):
            manager[f'{arm.name}_{kind}'] = {
                'type': controller,
                'node_options_args': ['-r', f'__ns:={namespace.rstrip("/")}/{arm.name}', '-r', f'__node:={kind}']}
            parameters[f'/**/{arm.name}/{kind}'] = {'ros__parameters': own}
    return parameters


def controller_names(station: Station, hardware: str) -> list[str]:
    """What a controller_manager's spawner has to be told to start.

    hardware: as in `robot_description`. Who is behind "topic_based" gives joint_states itself.
    """
    controllers = [f'{name}_{kind}' for name in station.arms
                   for kind in ('joint_trajectory_controller', 'gripper_controller')]
    return controllers if hardware == 'topic_based' else ['joint_state_broadcaster', *controllers]


def moveit_controllers(station: Station) -> dict[str, Any]:
    """How MoveIt executes: through the same actions as this suite."""
    controllers: dict[str, Any] = {}
    for arm in station.arms.values():
        controllers[f'{arm.name}/joint_trajectory_controller'] = {
            'type': 'FollowJointTrajectory', 'action_ns': 'follow_joint_trajectory', 'default': True,
            'joints': list(arm.joints)}
        controllers[f'{arm.name}/gripper_controller'] = {
            'type': 'GripperCommand', 'action_ns': 'gripper_cmd', 'default': True, 'joints': [arm.gripper.joint]}
    return {
        'moveit_controller_manager': 'moveit_simple_controller_manager/MoveItSimpleControllerManager',
        'moveit_simple_controller_manager': {'controller_names': list(controllers), **controllers},
        'trajectory_execution': {'allowed_execution_duration_scaling': 1.5, 'allowed_goal_duration_margin': 1.0,
                                 'allowed_start_tolerance': 0.05},
    }


def kinematics(station: Station) -> dict[str, Any]:
    """The inverse kinematics solver of each arm."""
    return {name: {'kinematics_solver': 'kdl_kinematics_plugin/KDLKinematicsPlugin',
                   'kinematics_solver_search_resolution': 0.005, 'kinematics_solver_timeout': 0.05}
            for name in station.arms}


def joint_limits(station: Station) -> dict[str, Any]:
    """Speeds and accelerations of planned moves, as in the station file."""
    limits = {}
    for arm in station.arms.values():
        for joint, velocity, acceleration in zip(arm.joints, arm.max_velocity, arm.max_acceleration):
            limits[joint] = {'has_velocity_limits': True,
                             'max_velocity': min(velocity, station.safety.max_joint_speed),
                             'has_acceleration_limits': True, 'max_acceleration': acceleration}
    return {'default_velocity_scaling_factor': 1.0, 'default_acceleration_scaling_factor': 1.0, 'joint_limits': limits}


def ompl_planning(station: Station) -> dict[str, Any]:
    """The planning pipeline "ompl"."""
    groups = [*station.arms, *filter(None, [all_arms_group(station)])]
    adapters = 'default_planning_request_adapters/', 'default_planning_response_adapters/'
    return {
        'planning_plugins': ['ompl_interface/OMPLPlanner'],
        'request_adapters': [adapters[0] + name for name in (
            'ResolveConstraintFrames', 'ValidateWorkspaceBounds', 'CheckStartStateBounds', 'CheckStartStateCollision')],
        'response_adapters': [adapters[1] + name for name in (
            'AddTimeOptimalParameterization', 'ValidateSolution', 'DisplayMotionPath')],
        'planner_configs': {'RRTConnectkConfigDefault': {'type': 'geometric::RRTConnect', 'range': 0.0}},
        # Coarser steps were seen to miss thin obstacles.
        **{group: {'planner_configs': ['RRTConnectkConfigDefault'], 'longest_valid_segment_fraction': 0.0015}
           for group in groups},
    }


def moveit_cpp() -> dict[str, Any]:
    """What moveit_py and MoveItCpp need besides."""
    return {
        'planning_scene_monitor_options': {
            'name': 'planning_scene_monitor', 'robot_description': 'robot_description',
            'joint_state_topic': 'joint_states', 'attached_collision_object_topic': 'planning_scene_monitor',
            'publish_planning_scene_topic': 'publish_planning_scene',
            'monitored_planning_scene_topic': 'monitored_planning_scene', 'wait_for_initial_state_timeout': 10.0},
        'planning_pipelines': {'pipeline_names': ['ompl']},
        'plan_request_params': {'planning_pipeline': 'ompl', 'planner_id': 'RRTConnectkConfigDefault',
                                'planning_attempts': 1, 'planning_time': 1.0, 'max_velocity_scaling_factor': 1.0,
                                'max_acceleration_scaling_factor': 1.0},
    }


def moveit_parameters(station: Station) -> dict[str, Any]:
    """All parameters of a move_group node, or the `config_dict` of moveit.planning.MoveItPy."""
    return {
        'robot_description': robot_description(station),
        'robot_description_semantic': semantic_description(station),
        'robot_description_kinematics': kinematics(station),
        'robot_description_planning': joint_limits(station),
        'ompl': ompl_planning(station),
        **moveit_controllers(station),
        **moveit_cpp(),
    }


def configuration_files(station: Station) -> dict[str, str]:
    """File name -> text of everything that this module writes."""
    contents = {
        'ros2_controllers.yaml': ros2_controllers(station),
        'moveit_controllers.yaml': moveit_controllers(station),
        'kinematics.yaml': kinematics(station),
        'joint_limits.yaml': joint_limits(station),
        'ompl_planning.yaml': ompl_planning(station),
        'moveit_cpp.yaml': moveit_cpp(),
    }
    header = ''.join(f'# {line}\n' for line in HEADER.format(station=station.name).splitlines())
    files = {name: header + yaml.safe_dump(content, sort_keys=False, width=110) for name, content in contents.items()}
    return {SRDF_FILE: semantic_description(station), **files}


def configuration_folder(station: Station) -> Path:
    """Where the files of a station that ships with the suite lie."""
    return share_directory() / 'config' / 'moveit' / station.name


def _names_of_all(station: Station) -> list[str]:
    """Named positions that every arm has."""
    arms = list(station.arms.values())
    return [name for name in arms[0].named if all(name in arm.named for arm in arms)]


def _add_state(srdf, name: str, group: str, positions: dict[str, float]) -> None:
    state = ElementTree.SubElement(srdf, 'group_state', name=name, group=group)
    for joint, position in positions.items():
        ElementTree.SubElement(state, 'joint', name=joint, value=repr(position))


def _followers(robot: ElementTree.Element, arm: Arm) -> list[str]:
    """Joints that mimic the arm's gripper joint."""
    return [joint.get('name') for joint in robot.findall('joint')
            if joint.find('mimic') is not None and joint.find('mimic').get('joint') == arm.gripper.joint]


def _parent(robot: ElementTree.Element, joint_name: str) -> str:
    for joint in robot.findall('joint'):
        if joint.get('name') == joint_name:
            return joint.find('parent').get('link')
    raise ConfigurationError(f"the robot description has no joint '{joint_name}'")


def _adjacent(urdf: str) -> set[tuple[str, str]]:
    """Pairs of links that one joint separates; what is fixed to a link is part of it."""
    joints = ElementTree.fromstring(urdf).findall('joint')
    fixed = {joint.find('child').get('link'): joint.find('parent').get('link') for joint in joints
             if joint.get('type') == 'fixed' and joint.find('parent').get('link') != WORLD}

    def body(link: str) -> str:
        while link in fixed:
            link = fixed[link]
        return link

    bodies: dict[str, set[str]] = {}
    for joint in joints:
        for end in ('parent', 'child'):
            link = joint.find(end).get('link')
            bodies.setdefault(body(link), set()).add(link)
    pairs = set()
    for joint in joints:
        ends = [body(joint.find(end).get('link')) for end in ('parent', 'child')]
        for first, second in itertools.product(*(bodies[end] for end in ends)):
            if first != second and WORLD not in (first, second):
                pairs.add(tuple(sorted((first, second))))
    return pairs


def _arm_links(station: Station, urdf: str) -> dict[str, set[str]]:
    """Arm -> its links."""
    joints = [(joint.find('parent').get('link'), joint.find('child').get('link'))
              for joint in ElementTree.fromstring(urdf).findall('joint')]
    arms = {}
    for arm in station.arms.values():
        links, found = {arm.base_frame}, 0
        while len(links) > found:
            found = len(links)
            links |= {child for parent, child in joints if parent in links}
        arms[arm.name] = links
    return arms


def _named_positions(station: Station, model) -> list[np.ndarray]:
    """q (nq,) at each named position of each arm, the other arms at home, grippers closed and open."""
    import pinocchio as pin

    positions = []
    for arm, opening in itertools.product(station.arms.values(), ('closed', 'open')):
        for name in arm.named:
            q = pin.neutral(model)
            for other in station.arms.values():
                values = (*other.named[name if other is arm else 'home'], getattr(other.gripper, opening))
                for joint, value in zip((*other.joints, other.gripper.joint), values):
                    q[model.joints[model.getJointId(joint)].idx_q] = value
            positions.append(q)
    return positions


def main() -> int:
    parser = argparse.ArgumentParser(description='Write the ros2_control and MoveIt files of a station.')
    parser.add_argument('--station', required=True, metavar='NAME', help='name or file')
    parser.add_argument('--output', type=Path, metavar='FOLDER', help='default: config/moveit/<station> of this suite')
    options = parser.parse_args()
    try:
        station = load_station(options.station)
        folder = options.output or configuration_folder(station)
        files = configuration_files(station)
    except ConfigurationError as error:
        print(f'enpire: {error}', file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding='utf-8')
    print(f'{folder}: {", ".join(files)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
