"""The simulated station as a plain class: load, reset, step, look. No ROS.

The simulation node wraps it, and anything in-process (training, large evaluations, tests) uses it as it is.
"""

from __future__ import annotations

import importlib
import math
import os
from typing import Mapping, Sequence

import mujoco
import numpy as np

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.control_ticks import is_policy_tick
from enpire_bringup.model_variation import ModelVariation
from enpire_bringup.randomization import WorldVariation
from enpire_bringup.station import Station
from enpire_bringup.world_model import PHYSICS_STEP, build_model

SETTLE_TICKS = 30
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_FATAL_WARNINGS = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL,
                   mujoco.mjtWarning.mjWARN_BADQACC, mujoco.mjtWarning.mjWARN_BADCTRL)


class WorldError(RuntimeError):
    """The simulated world cannot go on, or was asked for something it does not have."""


class World:
    """Arms, table and objects in MuJoCo; one `step` is one control tick (10 ms at 100 Hz).

    Raises ConfigurationError when station, arm model and scene do not fit together.
    """

    def __init__(self, station: Station, task: ArmTask):
        self.station = station
        self.task = task
        # Warnings become errors in _advance; MuJoCo's own way is a MUJOCO_LOG.TXT in the current folder.
        mujoco.set_mju_user_warning(lambda message: None)
        self.model = build_model(station, task)
        self._substeps = round(1.0 / (station.control_rate * PHYSICS_STEP))
        if abs(self._substeps * PHYSICS_STEP * station.control_rate - 1.0) > 1e-9:
            raise ConfigurationError(
                f'{station.file}: rates.control is {station.control_rate} Hz; expected a rate whose period is '
                f'a multiple of the physics step of {PHYSICS_STEP} s')
        self._variation = ModelVariation(self.model, station, task)
        self._data = mujoco.MjData(self.model)
        model = self.model
        self._qpos = np.array([model.joint(name).qposadr[0] for name in station.joints])
        self._dof = np.array([model.joint(name).dofadr[0] for name in station.joints])
        self._actuator = {name: model.actuator(name).id for name in station.joints}
        self._limits = {name: tuple(model.joint(name).range) for name in station.joints}
        # s by which the target is put ahead a unit of velocity, see _set_targets
        self._gain = {name: -model.actuator_biasprm[i, 2] / model.actuator_gainprm[i, 0]
                      for name, i in self._actuator.items()}
        self._grippers = {arm.gripper.joint: arm.gripper for arm in station.arms.values()}
        self._objects = {item.name: model.joint(model.body(item.body).jntadr[0])
                         for item in task.objects.values()}
        for gripper in self._grippers:
            self._gain[gripper] = 0.0
        self._tick = 0
        self.reset(0)
        self.start_at(0)

    # -- time

    @property
    def tick(self) -> int:
        """Control ticks since the world was made.

        A reset goes on to a whole second, never back, so every run begins in step with the grids of policy and
        cameras; and by more than a second, so that nobody takes the jump of the arms for a motion.
        """
        return self._tick

    def start_at(self, tick: int) -> None:
        """Count control ticks from here on: a world that goes on where another one ended."""
        self._tick = tick

    @property
    def period(self) -> float:
        """Seconds of a control tick."""
        return self._substeps * PHYSICS_STEP

    @property
    def stamp_ns(self) -> int:
        return self._tick * round(self.period * 1e9)

    @property
    def time(self) -> float:
        """Seconds since the world was made."""
        return self.stamp_ns * 1e-9

    def is_policy_tick(self, rate: float) -> bool:
        """Whether a step of `rate` (Hz) begins now."""
        return is_policy_tick(self._tick, rate, self.station.control_rate)

    # -- acting

    def reset(self, seed: int, object_pose: Sequence[float] | None = None) -> None:
        """Arms at "home", grippers closed, the task's object at its start pose for `seed`, and the seed's variation.

        object_pose: (x, y in m, yaw in rad) of the object instead. Bit for bit the same, whatever happened before.
        """
        self.randomize(seed)
        x, y, yaw = self.task.start_pose(seed) if object_pose is None else object_pose
        data = self._data
        mujoco.mj_resetData(self.model, data)
        targets = self._home()
        for index, name in zip(self._qpos, self.station.joints):
            data.qpos[index] = targets[name]
        self._set_object_pose(self.task.start.object, x, y, yaw)
        self._set_effort_limits({name: gripper.max_effort for name, gripper in self._grippers.items()})
        self._set_targets(targets, {})
        for _ in range(SETTLE_TICKS):
            self._advance()
        second = round(self.station.control_rate)
        self._tick = (self._tick // second + 2) * second

    def randomize(self, seed: int) -> None:
        """Masses, friction, light and cameras of `seed` (task.yaml's `randomization`); everything stays where it is."""
        standing = [camera.parent == 'world' for camera in self.station.cameras.values()]
        self._variation.apply(WorldVariation.draw(
            self.task.randomization, len(self.task.objects), standing, seed).vector())

    def step(self, targets: Mapping[str, float], efforts: Mapping[str, float] | None = None,
             velocities: Mapping[str, float] | None = None) -> None:
        """Advance one control tick.

        targets: joint -> position (rad; m a finger). A joint that is not named keeps its last target; a
        target beyond the joint's limits is brought back to them.
        efforts: finger joint -> force limit (N on each finger), kept until changed.
        velocities: joint -> velocity of the target (rad/s), so that the joint does not trail behind it.
        Raises WorldError for an unknown joint, a value that is not finite, or physics that diverges.
        """
        self._set_effort_limits(efforts or {})
        self._set_targets(targets, velocities or {})
        self._advance()
        self._tick += 1

    def _home(self) -> dict[str, float]:
        home = {}
        for arm in self.station.arms.values():
            home.update(zip(arm.joints, arm.named['home']))
            home[arm.gripper.joint] = arm.gripper.closed
        return home

    def _set_targets(self, targets, velocities) -> None:
        for name, value in targets.items():
            if name not in self._actuator:
                raise WorldError(f"no joint '{name}'; known: {', '.join(self.station.joints)}")
            velocity = velocities.get(name, 0.0)
            if not (math.isfinite(value) and math.isfinite(velocity)):
                raise WorldError(
                    f'target of {name} is {value} with velocity {velocity}; expected finite numbers')
            low, high = self._limits[name]
            # kp (q* - q) + kd (v* - v) with the one input that the actuator has
            self._data.ctrl[self._actuator[name]] = min(max(value, low), high) + self._gain[name] * velocity

    def _set_effort_limits(self, efforts) -> None:
        for name, effort in efforts.items():
            gripper = self._grippers.get(name)
            if gripper is None:
                raise WorldError(f"'{name}' has no force limit; joints that do: {', '.join(self._grippers)}")
            if not math.isfinite(effort) or effort < 0:
                raise WorldError(f'force limit of {name} is {effort}; expected N, at least 0')
            limit = min(effort, gripper.max_effort)
            self.model.actuator_forcerange[self._actuator[name]] = -limit, limit

    def _advance(self) -> None:
        mujoco.mj_step(self.model, self._data, self._substeps)
        for warning in _FATAL_WARNINGS:
            if self._data.warning[warning].number:
                raise WorldError(f'physics diverged at {self._data.time:.3f} s of the world: '
                                 f'{warning.name.removeprefix("mjWARN_")}; reset the world')

    # -- looking

    def joint_state(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]:
        """(names in the order of Station.joints, position rad or m, velocity, effort N m or N).

        Effort is what the motor gives, gravity compensation included.
        """
        data = self._data
        return (self.station.joints, data.qpos[self._qpos].copy(), data.qvel[self._dof].copy(),
                data.qfrc_actuator[self._dof].copy())

    def state(self) -> np.ndarray:
        """Everything that the physics goes on from and that an image shows, (n,) float64.

        For `set_state` of another World, or for a Renderer, of the same station and task.
        """
        size = mujoco.mj_stateSize(self.model, _STATE)
        state = np.empty(size + self._variation.size)
        mujoco.mj_getState(self.model, self._data, state[:size], _STATE)
        state[size:] = self._variation.current
        return state

    def set_state(self, state: np.ndarray) -> None:
        """Take over a `state()`, its variation included. Force limits and the tick stay as they are.

        Raises WorldError for a state of another world.
        """
        _set_state(self.model, self._data, self._variation, state)

    # -- the truth, for tests: nothing that decides about a trial may look at it

    def object_pose(self, name: str) -> tuple[float, float, float, float, float]:
        """(x, y in m, yaw in rad, z in m, upright) of an object's body frame.

        upright is 1 when it stands straight and -1 upside down.
        """
        start = self._object(name)
        x, y, z = self._data.qpos[start:start + 3]
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, self._data.qpos[start + 3:start + 7])
        return float(x), float(y), math.atan2(rotation[3], rotation[0]), float(z), float(rotation[8])

    def set_object_pose(self, name: str, x: float, y: float, yaw: float) -> None:
        """Put an object flat on the table, at rest. m, rad."""
        self._set_object_pose(name, x, y, yaw)
        mujoco.mj_forward(self.model, self._data)

    def frame_pose(self, name: str) -> np.ndarray:
        """Pose (4, 4) in "world" of a link or a TCP frame."""
        data = self._data
        mujoco.mj_kinematics(self.model, data)
        kind = data.site if mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SITE, name) >= 0 else data.body
        try:
            frame = kind(name)
        except KeyError as error:
            raise WorldError(f"no frame '{name}'") from error
        pose = np.eye(4)
        pose[:3, :3] = frame.xmat.reshape(3, 3)
        pose[:3, 3] = frame.xpos
        return pose

    def sees(self, camera: str, body: str, points: np.ndarray) -> np.ndarray:
        """Whether each of `points` (n, 3), m in "world", of a body can be seen by a camera, (n,) bool: whether nothing
        that is drawn stands between them, the body itself left out."""
        model, data = self.model, self._data
        start = data.cam_xpos[model.camera(camera).id]
        drawn = np.array([1, 1, 1, 0, 0, 0], np.uint8)
        excluded, hit = model.body(body).id, np.zeros(1, np.int32)
        seen = np.empty(len(points), bool)
        for index, point in enumerate(points):
            way = point - start
            distance = mujoco.mj_ray(model, data, start, way, drawn, 1, excluded, hit)
            seen[index] = not 0.0 <= distance < 0.995
        return seen

    def _object(self, name: str) -> int:
        if name not in self._objects:
            raise WorldError(f"no object '{name}'; known: {', '.join(self._objects)}")
        return self._objects[name].qposadr[0]

    def _set_object_pose(self, name, x, y, yaw) -> None:
        start = self._object(name)
        self._data.qpos[start:start + 7] = x, y, 0.0, math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)
        dof = self._objects[name].dofadr[0]
        self._data.qvel[dof:dof + 6] = 0.0


def _set_state(model: mujoco.MjModel, data: mujoco.MjData, variation: ModelVariation, state) -> None:
    state = np.asarray(state, np.float64)
    size = mujoco.mj_stateSize(model, _STATE)
    if state.shape != (size + variation.size,):
        raise WorldError(f'world state of shape {state.shape}; this station and task need ({size + variation.size},)')
    variation.apply(state[size:])
    mujoco.mj_setState(model, data, state[:size], _STATE)


class Renderer:
    """Draws what the station's cameras see of a world state. Needs off-screen OpenGL: osmesa or egl.

    Belongs to the thread that made it. Raises WorldError, naming the package to install, when there is none.
    """

    def __init__(self, station: Station, task: ArmTask):
        self.model = build_model(station, task)
        self._variation = ModelVariation(self.model, station, task)
        self._data = mujoco.MjData(self.model)
        self._sizes = {camera.name: (camera.height, camera.width) for camera in station.cameras.values()}
        quality = self.model.vis.global_
        quality.offwidth = max(width for _, width in self._sizes.values())
        quality.offheight = max(height for height, _ in self._sizes.values())
        self._options = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(self.model, maxgeom=500)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._context, self.backend = _open_gl(quality.offwidth, quality.offheight)
        self._drawing = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)

    def render(self, camera: str, state: np.ndarray) -> np.ndarray:
        """Image (height, width, 3) uint8 RGB of a camera of the station, of a `World.state()`."""
        return self.look(camera, state, color=True)[0]

    def render_depth(self, camera: str, state: np.ndarray) -> np.ndarray:
        """Distances (height, width) float32 m along the camera's view, pixel by pixel those of `render`."""
        return self.look(camera, state, depth=True)[1]

    def look(self, camera: str, state: np.ndarray, *, color: bool = False,
             depth: bool = False) -> tuple[np.ndarray | None, np.ndarray | None]:
        """(image, distances) of one drawing, as `render` and `render_depth` give them; None for what is not wanted."""
        if camera not in self._sizes:
            raise WorldError(f"no camera '{camera}'; known: {', '.join(self._sizes)}")
        view = mujoco.MjvCamera()
        view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        view.fixedcamid = self.model.camera(camera).id
        return self._render(view, state, *self._sizes[camera], color, depth)

    def render_from(self, look_at, distance: float, azimuth: float, elevation: float, state: np.ndarray,
                    height: int, width: int) -> np.ndarray:
        """Image from a free view point (m, degrees), for pictures; no larger than the largest camera."""
        view = mujoco.MjvCamera()
        view.lookat[:] = look_at
        view.distance, view.azimuth, view.elevation = distance, azimuth, elevation
        return self._render(view, state, height, width, True, False)[0]

    def _render(self, view, state, height, width, color: bool, depth: bool):
        _set_state(self.model, self._data, self._variation, state)
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_camlight(self.model, self._data)
        mujoco.mjv_updateScene(self.model, self._data, self._options, None, view,
                               mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        area = mujoco.MjrRect(0, 0, width, height)
        self._context.make_current()
        mujoco.mjr_render(area, self._scene, self._drawing)
        image = np.empty((height, width, 3), np.uint8) if color else None
        nearness = np.empty((height, width), np.float32) if depth else None
        mujoco.mjr_readPixels(image, nearness, area, self._drawing)
        # OpenGL counts rows from below.
        return (image[::-1].copy() if color else None), (self._distances(nearness)[::-1].copy() if depth else None)

    def _distances(self, nearness: np.ndarray) -> np.ndarray:
        """m of what the depth buffer holds: 0 at the near plane, 1 at the far one."""
        planes = self.model.vis.map
        near, far = planes.znear * self.model.stat.extent, planes.zfar * self.model.stat.extent
        return near / (1.0 - nearness * np.float32(1.0 - near / far))

    def close(self) -> None:
        if self._context is not None:
            self._context.make_current()   # else it would free what another renderer draws with
            self._drawing.free()
            self._context.free()
            self._context = None

    def __del__(self):
        if getattr(self, '_drawing', None) is not None:
            self.close()


# off-screen OpenGL -> module with its GLContext, in the order of trial
_CONTEXTS = {'osmesa': 'mujoco.osmesa', 'egl': 'mujoco.egl'}


def _open_gl(width: int, height: int):
    """(current context, name of the backend): MUJOCO_GL where it names one, else the first that works."""
    wanted = os.environ.get('MUJOCO_GL', '').lower()
    reasons = []
    for backend in (wanted,) if wanted in _CONTEXTS else _CONTEXTS:
        os.environ['PYOPENGL_PLATFORM'] = backend
        try:
            context = importlib.import_module(_CONTEXTS[backend]).GLContext(width, height)
            context.make_current()
            return context, backend
        except Exception as error:  # PyOpenGL raises whatever its platform module trips over
            reasons.append(f'{backend}: {error}')
    raise WorldError('cameras cannot be rendered: no off-screen OpenGL (' + '; '.join(reasons)
                     + '). Install it with "sudo apt-get install -y libosmesa6" and set MUJOCO_GL=osmesa')
