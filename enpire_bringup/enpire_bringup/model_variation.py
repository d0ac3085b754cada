"""Puts a WorldVariation into a MuJoCo model, always starting from the model as it was built."""

from __future__ import annotations

import mujoco
import numpy as np

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.randomization import WorldVariation
from enpire_bringup.station import Station

# what a variation changes, of which the nominal values are kept
_FIELDS = ('body_mass', 'body_inertia', 'geom_friction', 'light_diffuse', 'light_ambient', 'light_dir', 'cam_pos',
           'cam_quat')


class ModelVariation:
    """The variations of one model. `current` is the vector that it has now; a new model has the nominal one."""

    def __init__(self, model: mujoco.MjModel, station: Station, task: ArmTask):
        self._model = model
        self._objects = [_Body(model, item.body) for item in task.objects.values()]
        self._cameras = [model.camera(camera.name).id for camera in station.cameras.values()]
        self._nominal = {field: getattr(model, field).copy() for field in _FIELDS}
        self._headlight = model.vis.headlight.ambient.copy(), model.vis.headlight.diffuse.copy()
        # Also the nominal one is put in: what MuJoCo derives must have come about in the same way every time.
        self.current: np.ndarray | None = None
        self.apply(WorldVariation.nominal(len(self._objects), len(self._cameras)).vector())

    @property
    def size(self) -> int:
        """Length of a variation's vector."""
        return len(self.current)

    def apply(self, vector: np.ndarray) -> None:
        """Make the model that of a `WorldVariation.vector()`, whatever it was before."""
        if self.current is not None and np.array_equal(vector, self.current):
            return
        variation = WorldVariation.from_vector(vector, len(self._objects), len(self._cameras))
        for field, value in self._nominal.items():
            getattr(self._model, field)[:] = value
        self._apply_bodies(variation)
        self._apply_light(variation)
        self._apply_cameras(variation)
        self.current = np.array(vector, float)

    def _apply_bodies(self, variation: WorldVariation) -> None:
        model = self._model
        for body, mass, friction in zip(self._objects, variation.mass, variation.friction):
            model.body_mass[body.bodies] *= mass
            model.body_inertia[body.bodies] *= mass
            model.geom_friction[body.geoms, 0] *= friction
        # What MuJoCo derives from masses; it derives the size of the scene as well, which the cameras are set up by.
        extent, center = model.stat.extent, model.stat.center.copy()
        mujoco.mj_setConst(model, mujoco.MjData(model))
        model.stat.extent, model.stat.center[:] = extent, center

    def _apply_light(self, variation: WorldVariation) -> None:
        model = self._model
        for field in ('light_diffuse', 'light_ambient'):
            getattr(model, field)[:] *= variation.light
        for now, nominal in zip((model.vis.headlight.ambient, model.vis.headlight.diffuse), self._headlight):
            now[:] = nominal * variation.light
        x, y = variation.light_tilt
        tilt = np.empty(4)
        mujoco.mju_euler2Quat(tilt, np.array([x, y, 0.0]), 'XYZ')
        for i in range(model.nlight):
            mujoco.mju_rotVecQuat(model.light_dir[i], self._nominal['light_dir'][i], tilt)

    def _apply_cameras(self, variation: WorldVariation) -> None:
        model = self._model
        for camera, offset, rotation in zip(self._cameras, variation.camera_offset, variation.camera_rotation):
            model.cam_pos[camera] += offset
            mujoco.mju_quatIntegrate(model.cam_quat[camera], rotation, 1.0)


class _Body:
    """Ids of an object's bodies (with those that hang on it) and of their geometries that touch things."""

    def __init__(self, model: mujoco.MjModel, name: str):
        root = model.body(name).id
        self.bodies = [i for i in range(model.nbody) if _descends(model, i, root)]
        self.geoms = [i for i in range(model.ngeom)
                      if model.geom_bodyid[i] in self.bodies and model.geom_contype[i]]


def _descends(model: mujoco.MjModel, body: int, root: int) -> bool:
    while body not in (0, root):
        body = model.body_parentid[body]
    return body == root
