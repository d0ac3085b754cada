"""What a reset program can do with a robot: move, grasp, place and look. No ROS.

Every skill blocks until it is done, is bounded, and raises SkillError saying which skill failed and why. Poses are
in the frame "world": x, y, z in m, yaw in rad. Unless it leans, the tool points straight down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Protocol, Sequence

import numpy as np

from enpire_bringup.kinematics import ArmKinematics, UnreachableError, tool_down
from enpire_bringup.station import Station

SIGHTINGS = 4                 # images that a look averages over
AGREEMENT = 0.006             # m between these images, beyond which the object is still moving
LOOK_TIMEOUT = 5.0            # s of wall time
JOINT_MARGIN = 0.03           # rad, a little more than the guard keeps
HALF_TURN = math.pi / 2       # rad, longest turn of a straight move in one piece


class SkillError(RuntimeError):
    """A skill could not do its work."""


class SkillCancelled(SkillError):
    """Somebody asked to stop."""


@dataclass(frozen=True)
class GripperState:
    """Where a gripper motion ended. position: m a finger; stalled: something stopped the fingers."""

    position: float
    stalled: bool
    reached: bool


class Robot(Protocol):
    """What skills need of a station. Every method blocks, is bounded and raises SkillError."""

    def move_to_named(self, arm: str, name: str) -> None: ...

    def move_to_pose(self, arm: str, pose: np.ndarray) -> None: ...

    def move_straight(self, arm: str, pose: np.ndarray) -> None: ...

    def move_gripper(self, arm: str, position: float, max_effort: float) -> GripperState: ...

    def sightings(self, name: str, count: int, timeout: float) -> list[tuple[float, float, float]]:
        """(x, y, yaw) from the next `count` images taken from now on in which the object is visible."""


@dataclass
class _Tool:
    """Where a tool was sent last."""

    x: float
    y: float
    height: float
    yaw: float
    lean: float


class Skills:
    """Skills on one station. `report(stage)` is called with the name of what begins."""

    def __init__(self, station: Station, robot: Robot, report: Callable[[str], None] = lambda stage: None):
        self._station = station
        self._robot = robot
        self._report = report
        self._kinematics = {name: ArmKinematics(station, name) for name in station.arms}
        self._tools: dict[str, _Tool] = {}

    # -- looking

    def locate(self, name: str, timeout: float = LOOK_TIMEOUT) -> tuple[float, float, float]:
        """Pose (x, y, yaw) of an object at rest, from images taken from now on. The view has to be clear: go home
        first."""
        self._report('locate')
        for _ in range(3):
            poses = np.array(self._robot.sightings(name, SIGHTINGS, timeout))
            x, y = np.median(poses[:, 0]), np.median(poses[:, 1])
            if np.abs(poses[:, :2] - (x, y)).max() < AGREEMENT:
                yaw = math.atan2(np.sin(poses[:, 2]).mean(), np.cos(poses[:, 2]).mean())
                return float(x), float(y), yaw
        raise SkillError(f'locate: {name} does not come to rest')

    # -- moving

    def go_home(self, arm: str) -> None:
        """Joint-space move to the arm's named position "home"."""
        self._report('home')
        self._robot.move_to_named(arm, 'home')
        self._tools.pop(arm, None)

    def move_above(self, arm: str, x: float, y: float, height: float, yaw: float, lean: float = 0.0) -> None:
        """Joint-space move of the tool centre point to `height` over (x, y). At yaw 0 the fingers close along y.

        lean (rad): turns the tool about its closing direction, so that it points outward; it reaches farther so.
        """
        self._report('approach')
        self._robot.move_to_pose(arm, self.tool_pose(x, y, height, yaw, lean))
        self._tools[arm] = _Tool(x, y, height, yaw, lean)

    def lower(self, arm: str, height: float) -> None:
        """Straight down, or up, to `height`."""
        self._report('lower')
        self._change_height(arm, height)

    def lift(self, arm: str, height: float) -> None:
        """Straight up to `height`."""
        self._report('lift')
        self._change_height(arm, height)

    def carry(self, arm: str, x: float, y: float, turn: float) -> None:
        """Straight, at the present height, to (x, y), turning the tool by `turn` (rad) on the way."""
        self._report('carry')
        tool = self._tool(arm)
        pieces = max(1, math.ceil(abs(turn) / HALF_TURN))
        start = tool.x, tool.y, tool.yaw
        for piece in range(1, pieces + 1):
            share = piece / pieces
            tool.x, tool.y = start[0] + share * (x - start[0]), start[1] + share * (y - start[1])
            tool.yaw = start[2] + share * turn
            self._straight(arm, tool)

    def retreat(self, arm: str, height: float) -> None:
        """Up to `height`, then home, out of the cameras' way."""
        self.lift(arm, height)
        self.go_home(arm)

    def can_reach(self, arm: str, x: float, y: float, height: float, yaw: float, lean: float = 0.0) -> bool:
        """Whether the tool can be there."""
        home = self._station.arms[arm].named['home']
        pose = self.tool_pose(x, y, height, yaw, lean)
        limits = self._station.safety
        if not all(low <= value <= high for low, value, high in
                   zip(limits.workspace_low, pose[:3, 3], limits.workspace_high)):
            return False
        try:
            self._kinematics[arm].ik(pose, home, margin=JOINT_MARGIN)
        except UnreachableError:
            return False
        return True

    def bearing(self, arm: str, x: float, y: float) -> float:
        """Direction (rad) in which (x, y) lies from the arm's base, counted from the arm's own forward."""
        base = self._station.arms[arm]
        return math.atan2(y - base.base_xyz[1], x - base.base_xyz[0]) - base.base_rpy[2]

    @staticmethod
    def tool_pose(x: float, y: float, height: float, yaw: float, lean: float = 0.0) -> np.ndarray:
        """TCP pose (4, 4); see `move_above`."""
        pose = tool_down(x, y, height, yaw)
        c, s = math.cos(lean), math.sin(lean)
        pose[:3, :3] = pose[:3, :3] @ np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
        return pose

    # -- gripping

    def open_gripper(self, arm: str) -> GripperState:
        """Open as far as the gripper goes."""
        self._report('open')
        gripper = self._station.arms[arm].gripper
        return self._robot.move_gripper(arm, gripper.open, gripper.max_effort)

    def close_gripper(self, arm: str, max_effort: float = 0.0) -> GripperState:
        """Close with limited force (N; 0: the station file's) until something stops the fingers."""
        self._report('close')
        return self._robot.move_gripper(arm, self._station.arms[arm].gripper.closed, max_effort)

    def grasp(self, arm: str, width: float, max_effort: float) -> GripperState:
        """Close on an object that is `width` m wide. Raises SkillError when the fingers hold something else."""
        state = self.close_gripper(arm, max_effort)
        self.check_grasp(arm, width, state)
        return state

    def check_grasp(self, arm: str, width: float, state: GripperState) -> None:
        """Raise SkillError unless the fingers are about `width` m apart."""
        between = 2.0 * abs(state.position - self._station.arms[arm].gripper.closed)
        if not 0.6 * width <= between <= 1.5 * width:
            raise SkillError(f'grasp: the fingers of {arm} are {between * 1000:.1f} mm apart; an object of '
                             f'{width * 1000:.0f} mm was expected between them')

    def place(self, arm: str, height: float) -> None:
        """Down to `height`, and let go."""
        self._report('place')
        self._change_height(arm, height)
        self.open_gripper(arm)

    # --

    def _change_height(self, arm: str, height: float) -> None:
        tool = self._tool(arm)
        tool.height = height
        self._straight(arm, tool)

    def _straight(self, arm: str, tool: _Tool) -> None:
        self._robot.move_straight(arm, self.tool_pose(tool.x, tool.y, tool.height, tool.yaw, tool.lean))

    def _tool(self, arm: str) -> _Tool:
        if arm not in self._tools:
            raise SkillError(f'{arm}: nobody knows where its tool is; begin with move_above')
        return self._tools[arm]


def wrap(angle: float) -> float:
    """The same angle in (-pi, pi]."""
    return math.atan2(math.sin(angle), math.cos(angle))


def pose_error(pose: Sequence[float], target: Sequence[float]) -> tuple[float, float]:
    """Distance (m) and angle (rad, positive) between two planar poses (x, y, yaw)."""
    return math.hypot(pose[0] - target[0], pose[1] - target[1]), abs(wrap(pose[2] - target[2]))
