"""The simulated world as one MuJoCo model: the task's scene, the station's arms and cameras."""

from __future__ import annotations

import math
import warnings

import mujoco
import numpy as np

from enpire_bringup.arm_model import simulated_arm
from enpire_bringup.arm_task import ArmTask
from enpire_bringup.camera_model import optical_pose
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.station import Arm, Camera, Station

PHYSICS_STEP = 0.002   # s
GOAL_BODY = 'goal_marking'
OBSTACLE_COLOR = (0.42, 0.36, 0.30, 1.0)


def build_model(station: Station, task: ArmTask) -> mujoco.MjModel:
    """The scene with the arms at their bases (names prefixed, e.g. "left_joint1") and the cameras by name.

    Raises ConfigurationError naming the file and the thing that is wrong in it.
    """
    # MuJoCo's own way of warning is a MUJOCO_LOG.TXT in the current folder.
    mujoco.set_mju_user_warning(lambda message: None)
    spec = _read(task.scene)
    for arm in station.arms.values():
        _attach(spec, station, arm)
    for camera in station.cameras.values():
        _add_camera(spec, camera, station)
    _place_goal_marking(spec, task)
    _add_landmarks(spec, task)
    for obstacle in station.obstacles + task.obstacles:
        spec.worldbody.add_geom(name=f'box {obstacle.name}', type=mujoco.mjtGeom.mjGEOM_BOX,
                                size=[edge / 2 for edge in obstacle.size], pos=obstacle.xyz,
                                quat=quaternion_from_rpy(obstacle.rpy), rgba=OBSTACLE_COLOR)
    spec.option.timestep = PHYSICS_STEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.stat.extent = 1.0        # m; the cameras' near and far planes are given in units of it
    spec.option.impratio = 10.0   # friction as stiff as the contact: what is grasped does not creep
    try:
        with warnings.catch_warnings():
            # Nothing here is saved as MJCF, which is what names without a prefix could spoil.
            warnings.filterwarnings('ignore', message='Attaching a spec with an empty prefix')
            model = spec.compile()
    except ValueError as error:
        raise ConfigurationError(f'{task.scene} with the arms of {station.file}: {error}') from error
    _check_names(model, station, task)
    return model


def _read(file) -> mujoco.MjSpec:
    try:
        return mujoco.MjSpec.from_file(str(file))
    except ValueError as error:
        raise ConfigurationError(f'{file}: MuJoCo cannot read it: {error}') from error


def _attach(spec: mujoco.MjSpec, station: Station, arm: Arm) -> None:
    robot = simulated_arm(station, arm)
    frame = spec.worldbody.add_frame(pos=arm.base_xyz, quat=quaternion_from_rpy(arm.base_rpy))
    # The names in a robot description are complete, those in an arm's own model stand for every such arm.
    frame.attach_body(robot.worldbody.bodies[0], arm.prefix if arm.model is not None else '', '')


def _add_camera(spec: mujoco.MjSpec, camera: Camera, station: Station) -> None:
    parent = spec.worldbody if camera.parent == 'world' else spec.body(camera.parent)
    if parent is None:
        raise ConfigurationError(
            f"{station.file}: cameras.{camera.name}.parent is '{camera.parent}'; expected world or a link: "
            + ', '.join(body.name for body in spec.bodies if body.name))
    pose = optical_pose(camera)
    # MuJoCo's camera looks along -z with y up; the optical frame looks along z with y down.
    rotation = pose[:3, :3] @ np.diag([1.0, -1.0, -1.0])
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    parent.add_camera(name=camera.name, pos=pose[:3, 3], quat=quaternion,
                      fovy=math.degrees(camera.vertical_fov))


def _place_goal_marking(spec: mujoco.MjSpec, task: ArmTask) -> None:
    marking = spec.body(GOAL_BODY)
    if marking is not None:
        marking.pos = [task.goal.x, task.goal.y, marking.pos[2]]
        marking.quat = quaternion_from_rpy((0.0, 0.0, task.goal.yaw))


def _add_landmarks(spec: mujoco.MjSpec, task: ArmTask) -> None:
    """Paint on the table: it touches nothing."""
    if task.landmarks is None:
        return
    radius, thickness = task.landmarks.diameter / 2, 0.00002
    paint = {'contype': 0, 'conaffinity': 0, 'mass': 0}
    for x, y in task.landmarks.positions:
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=[x, y, thickness], rgba=[0.93, 0.93, 0.93, 1],
                                size=[2 * radius, 2 * radius, thickness], **paint)
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, pos=[x, y, 3 * thickness],
                                size=[radius, thickness, 0], rgba=[0.03, 0.03, 0.03, 1], **paint)


def quaternion_from_rpy(rpy) -> np.ndarray:
    """(w, x, y, z) of roll, pitch, yaw about fixed axes (rad), as in URDF."""
    quaternion = np.empty(4)
    mujoco.mju_euler2Quat(quaternion, np.asarray(rpy, float), 'XYZ')
    return quaternion


def _check_names(model: mujoco.MjModel, station: Station, task: ArmTask) -> None:
    def known(kind, count):
        return [mujoco.mj_id2name(model, kind, i) or '' for i in range(count)]

    joints = known(mujoco.mjtObj.mjOBJ_JOINT, model.njnt)
    actuators = known(mujoco.mjtObj.mjOBJ_ACTUATOR, model.nu)
    bodies = known(mujoco.mjtObj.mjOBJ_BODY, model.nbody)
    sites = known(mujoco.mjtObj.mjOBJ_SITE, model.nsite)
    for arm in station.arms.values():
        source = arm.model or station.robot_description
        for joint in (*arm.joints, arm.gripper.joint):
            for what, names in (('joint', joints), ('actuator', actuators)):
                if joint not in names:
                    raise ConfigurationError(
                        f"{station.file}: arms.{arm.name} names the joint '{joint}', but {source} has no "
                        f'such {what}; it has '
                        + ', '.join(n for n in names if arm.model is None or n.startswith(arm.prefix)))
        if arm.base_frame not in bodies:
            raise ConfigurationError(f"{station.file}: arms.{arm.name}.base_frame is '{arm.base_frame}'; "
                                     f'no such body in {source}')
        if arm.tcp_frame not in sites:
            raise ConfigurationError(f"{station.file}: arms.{arm.name}.tcp_frame is '{arm.tcp_frame}'; "
                                     f'no such site in {source}')
    for item in task.objects.values():
        if item.body not in bodies:
            raise ConfigurationError(f"{task.file}: objects.{item.name}.body is '{item.body}'; "
                                     f'no such body in {task.scene}')
        body = model.body(item.body)
        if body.jntnum[0] != 1 or model.jnt_type[body.jntadr[0]] != mujoco.mjtJoint.mjJNT_FREE:
            raise ConfigurationError(
                f"{task.scene}: the body '{item.body}' of objects.{item.name} needs one free joint")
