"""Where objects lie: by the task's camera, and by the wrist cameras where that one sees nothing."""

from __future__ import annotations

import math
from typing import Callable, Iterator, Sequence

import numpy as np

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.kinematics import ArmKinematics, UnreachableError
from enpire_bringup.motion_planning import SINGULAR
from enpire_bringup.planar_pose import PlanarPoseEstimator
from enpire_bringup.station import Camera, Station
from enpire_reset.geometry import tool_pose
from enpire_reset.robot import CameraSilent, Move, Robot, SkillCancelled, SkillError

SIGHTINGS = 4                 # images that a look averages over
LOOKS = 6                     # looks after which an object counts as not visible, or as never at rest
AGREEMENT = 0.006             # m between the images of a look, beyond which the object is still moving
LOOK_TIMEOUT = 5.0            # s of wall time for the images of one look
HOME_TOLERANCE = 0.02         # rad
JOINT_MARGIN = 0.03           # rad, a little more than the guard keeps
AT_EASE = 1.5 * SINGULAR      # m/rad (see ArmKinematics.least_motion): straight lines are possible from there

# Where a wrist camera looks straight down for an object that the task's camera does not see.
SEARCH_HEIGHT = 0.35          # m, of the tool above the table
SEARCH_RADIUS = 0.30          # m, of the tool from the arm's base
SEARCH_BEARINGS = (0.0, 1.0, -1.0)    # rad from the arm's own forward


class Looking:
    """Skills that look. `report(stage)` is called with the name of what begins."""

    def __init__(self, station: Station, task: ArmTask, robot: Robot, report: Callable[[str], None] = lambda stage: None):
        self.station = station
        self.task = task
        self.robot = robot
        self.report = report
        self._kinematics = {name: ArmKinematics(station, name) for name in station.arms}
        self._estimators: dict[str, PlanarPoseEstimator] = {}
        self._located: dict[str, tuple[float, float, float]] = {}

    @property
    def arms(self) -> list[str]:
        return list(self.station.arms)

    # -- by the task's camera

    def locate(self, name: str) -> tuple[float, float, float]:
        """Pose (x, y, yaw) of an object at rest, from images taken from now on.

        The view has to be clear: go home first. Raises SkillError.
        """
        self.report('locate')
        self._check_object(name)
        seen = fresh = 0
        for _ in range(LOOKS):
            sightings = self.robot.look(name, SIGHTINGS, LOOK_TIMEOUT)
            poses = np.array([sighting.pose for sighting in sightings if sighting.visible])
            seen, fresh = seen + len(poses), fresh + len(sightings)
            if len(poses) < SIGHTINGS:
                continue
            x, y = np.median(poses[:, 0]), np.median(poses[:, 1])
            if np.abs(poses[:, :2] - (x, y)).max() < AGREEMENT:
                yaw = math.atan2(np.sin(poses[:, 2]).mean(), np.cos(poses[:, 2]).mean())
                self._located[name] = float(x), float(y), yaw
                return self._located[name]
        camera = self.task.objects[name].camera
        if seen > fresh / 2:
            raise SkillError(f'locate: {name} does not come to rest')
        partly = max(sighting.fraction for sighting in sightings)
        if seen or partly > 0.0:
            raise SkillError(
                f'locate: {name} was visible in {seen} of {fresh} images of the camera {camera}: something of its '
                f'color is in view, but not all of its outline ({100 * partly:.0f} % of it); it is partly covered or '
                'out of view, or it stands on edge')
        raise SkillError(f'locate: {name} was visible in {seen} of {fresh} images of the camera {camera}, nothing of '
                         'its color is in view: it is covered, out of view or upside down')

    def still_lies(self, name: str, pose: tuple[float, float, float]) -> bool:
        """Whether the task's camera sees the object lie where it was; False also where it does not see it at all."""
        self._check_object(name)
        return any(sighting.visible and math.dist(sighting.pose[:2], pose[:2]) < AGREEMENT
                   for sighting in self.robot.look(name, 1, LOOK_TIMEOUT))

    # -- by the wrist cameras

    def find(self, name: str) -> tuple[float, float, float]:
        """Pose (x, y, yaw) of an object: by the task's camera, else by every wrist camera in turn.

        Sends all arms home first, and every arm that searched afterwards. Raises SkillError saying where it looked.
        """
        self.go_home(*self.arms)
        try:
            return self.locate(name)
        except (SkillCancelled, CameraSilent):
            raise       # whatever a wrist camera found, nobody would see how the reset ends
        except SkillError as error:
            reason = error
        places = 0
        for camera in self._wrist_cameras():
            arm = self._arm_of(camera)
            try:
                for pose in self._viewpoints(arm, camera):
                    self.report('search')
                    self.robot.run(Move(arm, pose=pose))
                    places += 1
                    found = self._seen_by(camera, arm, name)
                    if found is not None:
                        self._located[name] = found
                        return found
            finally:
                self.go_home(arm)
        if not places:
            raise reason
        raise SkillError(f'{reason}; nor did the wrist cameras see it from {places} places above the table. Put it '
                         'face up into the view, within reach of an arm')

    def go_home(self, *arms: str) -> None:
        """Joint-space moves of the arms, together, to their named position "home"; those that are there stay."""
        away = [arm for arm in arms if not self.is_home(arm)]
        if away:
            self.report('home')
            self.robot.run(*(Move(arm, named='home') for arm in away))

    def is_home(self, arm: str) -> bool:
        home = np.asarray(self.station.arms[arm].named['home'])
        return bool(np.abs(self.robot.joints(arm) - home).max() < HOME_TOLERANCE)

    def _wrist_cameras(self) -> list[Camera]:
        return [camera for camera in self.station.cameras.values() if self._arm_of(camera)]

    def _arm_of(self, camera: Camera) -> str:
        """The arm that carries a camera, or ''."""
        return next((arm.name for arm in self.station.arms.values() if camera.parent.startswith(arm.prefix)), '')

    def _viewpoints(self, arm: str, camera: Camera) -> Iterator[np.ndarray]:
        """Tool poses (4, 4) from which the camera on the arm's wrist looks straight down."""
        kinematics, base = self._kinematics[arm], self.station.arms[arm]
        home = base.named['home']
        view = self._camera_at(camera, arm, home).pose[:3, 2]
        forward, _, up = kinematics.fk(home)[:3, :3].T @ view      # in the tool's frame
        lean = math.atan2(-up, forward)
        for bearing in SEARCH_BEARINGS:
            direction = base.base_rpy[2] + bearing
            pose = tool_pose(base.base_xyz[0] + SEARCH_RADIUS * math.cos(direction),
                             base.base_xyz[1] + SEARCH_RADIUS * math.sin(direction), SEARCH_HEIGHT, direction, lean)
            if self.reaches(arm, pose):
                yield pose

    def _camera_at(self, camera: Camera, arm: str, joints) -> PinholeCamera:
        """The wrist camera in "world" at the arm's joint positions (n,)."""
        return PinholeCamera.from_station(camera).at(self._kinematics[arm].frame_pose(joints, camera.parent))

    def _seen_by(self, camera: Camera, arm: str, name: str) -> tuple[float, float, float] | None:
        if name not in self._estimators:
            self._estimators[name] = PlanarPoseEstimator(self.task.objects[name])
        image = self.robot.photograph(camera.name, LOOK_TIMEOUT)
        found = self._estimators[name].estimate(image, self._camera_at(camera, arm, self.robot.joints(arm)))
        return tuple(float(value) for value in found.pose) if found.visible else None

    # --

    def reaches(self, arm: str, pose: np.ndarray) -> bool:
        """Whether the tool of an arm can be at `pose` (4, 4)."""
        limits = self.station.safety
        if not all(low <= value <= high for low, value, high in
                   zip(limits.workspace_low, pose[:3, 3], limits.workspace_high)):
            return False
        return self._posture(arm, pose, self.station.arms[arm].named['home']) is not None

    def _posture(self, arm: str, pose: np.ndarray, near: Sequence[float]) -> np.ndarray | None:
        """Joint positions (n,), beside `near` where there are several, with the tool at `pose` and the arm at ease."""
        kinematics = self._kinematics[arm]
        try:
            joints = kinematics.ik(pose, near, margin=JOINT_MARGIN, restarts=0)
        except UnreachableError:
            return None
        return joints if kinematics.least_motion(joints) >= AT_EASE else None

    def _check_object(self, name: str) -> None:
        if name not in self.task.objects:
            raise SkillError(f"no object '{name}' in {self.task.file}; there are: {', '.join(self.task.objects)}")
