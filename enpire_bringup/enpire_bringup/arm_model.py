"""The simulated arm of a station, as MuJoCo's editable model: read from MJCF, or built from the robot description.

A URDF says where links and joints are and how strong the motors are; what a simulation needs besides is derived from
that: PD gains, gravity compensation, the coupling of the fingers, and which links cannot collide.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import mujoco
import numpy as np

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.robot_description import FILE_SCHEME, robot_description
from enpire_bringup.station import Arm, Station

FULL_EFFORT_ERROR = 0.15      # rad off its target at which an arm joint gives its full effort
FULL_FORCE_ERROR = 0.015      # m off its target at which a finger does
FINGER_INERTIA = 0.02         # kg: of the gripper's motor, as a finger feels it
FINGER_DAMPING = 4.0          # N s/m
FINGER_FRICTION = 0.2         # N
GRIPPER_DAMPING = 0.01        # s: damping of the gripper's motor for each unit of its stiffness
LINK_COLOR, FINGER_COLOR = (0.86, 0.87, 0.88, 1.0), (0.20, 0.21, 0.23, 1.0)
TENDON_SUFFIX = '_coupling'

_COMPILER = ('<mujoco><compiler fusestatic="false" strippath="false" balanceinertia="true" discardvisual="true"/>'
             '</mujoco>')


def simulated_arm(station: Station, arm: Arm) -> mujoco.MjSpec:
    """The arm alone, its one root body being the base; motors are named after the joints that they move.

    Raises ConfigurationError naming the file and what is wrong in it.
    """
    if arm.model is None:
        return _from_description(station, arm)
    try:
        spec = mujoco.MjSpec.from_file(str(arm.model))
    except ValueError as error:
        raise ConfigurationError(f'{arm.model}: MuJoCo cannot read it: {error}') from error
    roots = spec.worldbody.bodies
    if len(roots) != 1:
        raise ConfigurationError(f'{arm.model}: has {len(roots)} bodies in its world body; expected the arm alone')
    return spec


def _from_description(station: Station, arm: Arm) -> mujoco.MjSpec:
    robot = _branch(ElementTree.fromstring(robot_description(station)), arm.base_frame)
    followers = _followers(robot, arm.gripper.joint)
    limits = {joint.get('name'): _effort(station, arm, joint) for joint in robot.findall('joint')
              if joint.get('name') in arm.joints}
    _check_masses(station, robot)
    robot.insert(0, ElementTree.fromstring(_COMPILER))
    text = ElementTree.tostring(robot, encoding='unicode').replace(FILE_SCHEME, '')
    try:
        spec = mujoco.MjSpec.from_string(text)
        _dress(spec, arm, limits, followers)
        spec.compile()
    except ValueError as error:
        raise ConfigurationError(f'{station.robot_description}: MuJoCo cannot build the arm {arm.name} from it: '
                                 f'{error}') from error
    _add_motors(spec, arm, limits, followers)
    _leave_out_overlaps(spec, arm)
    return spec


def _branch(robot: ElementTree.Element, base: str) -> ElementTree.Element:
    """A URDF of the links from `base` on."""
    joints = robot.findall('joint')
    links, found = {base}, -1
    while len(links) > found:
        found = len(links)
        links |= {joint.find('child').get('link') for joint in joints if joint.find('parent').get('link') in links}
    branch = ElementTree.Element('robot', name=base)
    branch.extend(robot.findall('material'))
    branch.extend(link for link in robot.findall('link') if link.get('name') in links)
    branch.extend(joint for joint in joints if joint.find('parent').get('link') in links)
    return branch


def _followers(robot: ElementTree.Element, driver: str) -> dict[str, float]:
    """Joints that mimic the joint `driver` -> how far they go for each unit of it."""
    followers = {}
    for joint in robot.findall('joint'):
        mimic = joint.find('mimic')
        if mimic is not None and mimic.get('joint') == driver:
            followers[joint.get('name')] = float(mimic.get('multiplier', 1.0))
    return followers


def _effort(station: Station, arm: Arm, joint: ElementTree.Element) -> float:
    limit = joint.find('limit')
    effort = float(limit.get('effort', 0.0)) if limit is not None else 0.0
    if not (math.isfinite(effort) and effort > 0):
        raise ConfigurationError(
            f'{station.robot_description}: joint {joint.get("name")} has no effort limit, from which the simulated '
            f'motor of the arm {arm.name} is made; add <limit effort="N m" .../>, or give arms.{arm.name}.model an MJCF file')
    return effort


def _check_masses(station: Station, robot: ElementTree.Element) -> None:
    """Every moving link needs a mass, its own or that of what is fixed to it."""
    fixed = {joint.find('child').get('link'): joint.find('parent').get('link') for joint in robot.findall('joint')
             if joint.get('type') == 'fixed'}
    moving = {joint.find('child').get('link') for joint in robot.findall('joint')} - set(fixed)
    heavy = set()
    for link in robot.findall('link'):
        mass = link.find('inertial/mass')
        if mass is not None and float(mass.get('value', 0)) > 0:
            name = link.get('name')
            while name in fixed:
                name = fixed[name]
            heavy.add(name)
    if moving - heavy:
        raise ConfigurationError(f'{station.robot_description}: without mass: {", ".join(sorted(moving - heavy))}; a '
                                 'simulated arm needs <inertial> with the mass of every moving link')


def _dress(spec: mujoco.MjSpec, arm: Arm, limits: dict[str, float], followers: dict[str, float]) -> None:
    """Everything but the motors."""
    fingers = {arm.gripper.joint, *followers}
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
        for mesh in (geom for geom in body.geoms if geom.meshname):
            mesh.meshname = f'{arm.name}/{mesh.meshname}'
        is_finger = any(joint.name in fingers for joint in body.joints)
        for geom in body.geoms:
            _dress_geom(geom, is_finger, body.name == arm.base_frame)
    for mesh in spec.meshes:
        mesh.name = f'{arm.name}/{mesh.name}'
    for joint in spec.joints:
        joint.actgravcomp = True
        if joint.name in limits:
            joint.actfrcrange = -limits[joint.name], limits[joint.name]
        elif joint.name in fingers:
            joint.armature, joint.damping[0], joint.frictionloss = FINGER_INERTIA, FINGER_DAMPING, FINGER_FRICTION
            joint.actfrclimited = False
    for coupling in spec.equalities:
        coupling.solref[:2] = 0.004, 1.0
    tip = spec.body(arm.tcp_frame)
    if tip is not None:
        tip.add_site(name=arm.tcp_frame, size=[0.003, 0, 0], rgba=[0, 0, 0, 0])


def _dress_geom(geom, is_finger: bool, is_base: bool) -> None:
    geom.rgba = FINGER_COLOR if is_finger else LINK_COLOR
    geom.contype, geom.conaffinity = 2, 3
    if is_base:
        geom.conaffinity = 2      # it stands on the table by design, and must not push itself out of it
    geom.condim, geom.friction = 3, (0.4, 0.005, 0.0001)
    if is_finger:
        # Rubber: it decides the friction of whatever it touches.
        geom.priority, geom.condim, geom.friction = 2, 4, (0.6, 0.01, 0.0001)
        geom.solref[:2] = 0.006, 1.0
        geom.solimp[:3] = 0.95, 0.99, 0.0005


def _add_motors(spec: mujoco.MjSpec, arm: Arm, limits: dict[str, float], followers: dict[str, float]) -> None:
    inertia = _inertia_at_home(spec, arm)
    for joint in arm.joints:
        if joint not in limits:
            continue      # world_model names joints that are missing
        stiffness = limits[joint] / FULL_EFFORT_ERROR
        damping = 2.0 * math.sqrt(stiffness * inertia[joint])
        motor = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        _set_gains(motor, stiffness, stiffness, damping)
    gripper = arm.gripper
    if spec.joint(gripper.joint) is None:
        return
    # One motor drives all fingers: its force acts on each of them, and its length is the sum of their ways.
    tendon = spec.add_tendon(name=f'{gripper.joint}{TENDON_SUFFIX}')
    tendon.wrap_joint(gripper.joint, 1.0)
    for follower, share in followers.items():
        tendon.wrap_joint(follower, share)
    length = 1.0 + sum(share * share for share in followers.values())
    motor = spec.add_actuator(name=gripper.joint, target=tendon.name, trntype=mujoco.mjtTrn.mjTRN_TENDON)
    stiffness = gripper.max_effort / FULL_FORCE_ERROR
    _set_gains(motor, stiffness, stiffness / length, GRIPPER_DAMPING * stiffness)
    motor.forcelimited = True
    motor.forcerange = -gripper.max_effort, gripper.max_effort


def _set_gains(motor, gain: float, stiffness: float, damping: float) -> None:
    """Effort = gain * target - stiffness * position - damping * velocity."""
    motor.gaintype, motor.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
    motor.gainprm[0] = gain
    motor.biasprm[:3] = 0.0, -stiffness, -damping


def _at_home(spec: mujoco.MjSpec, arm: Arm) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = spec.compile()
    data = mujoco.MjData(model)
    for joint, position in zip(arm.joints, arm.named['home']):
        if spec.joint(joint) is not None:
            data.qpos[model.joint(joint).qposadr[0]] = position
    mujoco.mj_forward(model, data)
    return model, data


def _inertia_at_home(spec: mujoco.MjSpec, arm: Arm) -> dict[str, float]:
    """What each joint has to turn at home, kg m^2."""
    model, data = _at_home(spec, arm)
    inertia = np.empty((model.nv, model.nv))
    mujoco.mj_fullM(model, data, inertia)
    return {joint.name: inertia[dof, dof] for joint in spec.joints
            for dof in [model.joint(joint.name).dofadr[0]]}


def _leave_out_overlaps(spec: mujoco.MjSpec, arm: Arm) -> None:
    """Links whose shapes overlap at home, fingers closed, are coarse there; they do not touch."""
    model, data = _at_home(spec, arm)
    pairs = {tuple(sorted(model.body(model.geom_bodyid[geom]).name for geom in contact.geom))
             for contact in data.contact}
    for first, second in sorted(pairs):
        spec.add_exclude(bodyname1=first, bodyname2=second)
