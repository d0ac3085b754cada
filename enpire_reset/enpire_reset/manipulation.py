"""Moving the tool and gripping with it: approach, lower, grasp, lift, carry, place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from enpire_reset.geometry import moved_to, tool_pose, turned
from enpire_reset.looking import Looking
from enpire_reset.robot import Grip, GripEnd, Move, SkillCancelled, SkillError

HALF_TURN = math.pi / 2       # rad, longest turn of a straight move in one piece
CARRY_TURN, CARRY_STEP = 0.15, 0.03   # rad and m between the places that are looked at on the way of a carry
LARGEST_JOINT_STEP = 0.5      # rad between two of them: more is a jump to another solution
SAME_PLACE = 0.015            # m, a tool this close to where it was sent has only sagged
SAME_TURN = 0.1               # rad, likewise
BEFORE_CONTACT = 0.006        # m above the expected height, from where a place goes on slowly
BEYOND_CONTACT = 0.004        # m below it, where contact is given up
CONTACT_FORCE = 4.0           # N at which what is put down stands
SHUT = 0.003                  # m between the fingers, below which a gripper counts as closed
WIDTH_RANGE = (0.6, 1.5)      # share of the expected width at which the fingers hold the object
FORCE_SHARE = 0.5             # of the force asked for, which has to be measured in a grasp


@dataclass(frozen=True)
class Held:
    """What a gripper holds: width (m), force (N), the tool's height (m) where it was grasped, and the object by name
    where that is known."""

    width: float
    max_force: float
    height: float
    name: str = ''
    lay_at: tuple[float, float, float] | None = None


class Manipulation(Looking):
    """Skills that move. Heights are those of the tool centre point above the table, m."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._sent: dict[str, np.ndarray] = {}
        self._held: dict[str, Held] = {}

    # -- moving

    def approach(self, arm: str, x: float, y: float, height: float, yaw: float, lean: float = 0.0) -> None:
        """Joint-space move to `height` over (x, y), while the gripper opens. At yaw 0 the fingers close along y.

        lean (rad): see `geometry.tool_pose`.
        """
        self.report('approach')
        self._held.pop(arm, None)
        self._go(Move(arm, pose=tool_pose(x, y, height, yaw, lean)), Grip(arm, self.opening(arm)))

    def lower(self, arm: str, height: float) -> None:
        """Straight down to `height`."""
        self.report('lower')
        self._change_height(arm, height)

    def lift(self, arm: str, height: float) -> GripEnd | None:
        """Straight up to `height`. Raises SkillError when what was held is not between the fingers any more."""
        self.report('lift')
        self._change_height(arm, height)
        return self.check_held(arm) if arm in self._held else None

    def carry(self, arm: str, x: float, y: float, turn: float) -> None:
        """Straight, at the present height, to (x, y), turning the tool by `turn` (rad) on the way."""
        self.report('carry')
        pieces = max(1, math.ceil(abs(turn) / HALF_TURN))
        start = self.tool(arm)
        for piece in range(1, pieces + 1):
            share = piece / pieces
            pose = moved_to(turned(start, share * turn), start[0, 3] + share * (x - start[0, 3]),
                            start[1, 3] + share * (y - start[1, 3]))
            self._go(Move(arm, pose=pose, straight=True))

    def place(self, arm: str, height: float) -> GripEnd:
        """Down to about `height`, until what is held stands on something, and let go."""
        self.report('place')
        self._change_height(arm, height + BEFORE_CONTACT)
        try:
            self._go(Move(arm, pose=moved_to(self.tool(arm), height=height - BEYOND_CONTACT), straight=True,
                          stop_force=CONTACT_FORCE))
        except SkillCancelled:
            raise
        except SkillError:
            pass    # nothing is held any more, or it is lower than it was: letting go is right all the same
        return self.open_gripper(arm)

    def retreat(self, arm: str, height: float) -> None:
        """Up to `height`, then home, out of the cameras' way, while the gripper closes."""
        self.report('retreat')
        self._held.pop(arm, None)
        if not self.is_home(arm):
            if self.tool(arm)[2, 3] < height:
                self._change_height(arm, height)
            self._go(Move(arm, named='home'), Grip(arm, 0.0))

    def put_down(self) -> None:
        """Put down what is still held, e.g. since a reset was cancelled, straight below where it is."""
        for arm, held in list(self._held.items()):
            self.place(arm, held.height)
            self.retreat(arm, held.height + self.opening(arm))

    def close_grippers(self) -> None:
        """Close every gripper that is not closed, all together. Raises SkillError when one holds something."""
        wide = [arm for arm in self.arms if self.robot.gripper_width(arm) > SHUT]
        if not wide:
            return
        self.report('close')
        for arm, end in zip(wide, self.robot.run(*(Grip(arm, 0.0) for arm in wide))):
            if end.width > SHUT:
                raise SkillError(f'the gripper of {arm} does not close: something {end.width * 1000:.0f} mm wide is '
                                 'between its fingers; take it out by hand')

    def can_reach(self, arm: str, x: float, y: float, height: float, yaw: float, lean: float = 0.0) -> bool:
        """Whether the tool can be there, pointing down or leaning."""
        return self.reaches(arm, tool_pose(x, y, height, yaw, lean))

    def can_carry(self, arm: str, start: tuple[float, float, float], end: tuple[float, float, float], height: float,
                  lean: float = 0.0) -> bool:
        """Whether the tool can go straight from one x, y (m), yaw (rad) to another without a joint having to jump.

        The yaw is turned by end minus start, which may be more than half a turn.
        """
        steps = 1 + math.ceil(max(abs(end[2] - start[2]) / CARRY_TURN, math.dist(start[:2], end[:2]) / CARRY_STEP))
        joints = np.array(self.station.arms[arm].named['home'])
        for step, share in enumerate(np.linspace(0.0, 1.0, steps + 1)):
            x, y, yaw = (a + share * (b - a) for a, b in zip(start, end))
            before, joints = joints, self._posture(arm, tool_pose(x, y, height, yaw, lean), joints)
            if joints is None or step and np.abs(joints - before).max() > LARGEST_JOINT_STEP:
                return False
        return True

    def heading(self, arm: str, x: float, y: float) -> float:
        """Direction (rad) in which (x, y) lies from the arm's base: the yaw of a tool with an unturned wrist."""
        base = self.station.arms[arm].base_xyz
        return math.atan2(y - base[1], x - base[0])

    def distance(self, arm: str, x: float, y: float) -> float:
        """Horizontal distance (m) of (x, y) from the arm's base."""
        base = self.station.arms[arm]
        return math.hypot(x - base.base_xyz[0], y - base.base_xyz[1])

    def tool(self, arm: str) -> np.ndarray:
        """Pose (4, 4) of the tool: where it was sent last as long as it is there, else where it is measured."""
        sent = self._sent.get(arm)
        return sent if sent is not None and self.is_at(arm, sent) else self._measured_tool(arm)

    def is_at(self, arm: str, pose: np.ndarray) -> bool:
        """Whether the tool is measured at `pose` (4, 4), but for what an arm sags."""
        measured = self._measured_tool(arm)
        return bool(np.linalg.norm(pose[:3, 3] - measured[:3, 3]) < SAME_PLACE
                    and np.trace(pose[:3, :3].T @ measured[:3, :3]) > 1.0 + 2.0 * math.cos(SAME_TURN))

    def _measured_tool(self, arm: str) -> np.ndarray:
        return self._kinematics[arm].fk(self.robot.joints(arm))

    # -- gripping

    def opening(self, arm: str) -> float:
        """The widest that the gripper opens, m between the fingers."""
        return self.station.arms[arm].gripper.opening

    def open_gripper(self, arm: str) -> GripEnd:
        """Open as far as the gripper goes."""
        self._held.pop(arm, None)
        return self._go(Grip(arm, self.opening(arm)))[0]

    def grasp(self, arm: str, width: float, max_force: float, name: str = '') -> GripEnd:
        """Close on an object `width` m wide with `max_force` (N); `name`: which object of the task, if any.

        Raises SkillError unless the fingers were stopped near that width and press with a fair share of the force.
        """
        self.report('grasp')
        self._held.pop(arm, None)
        end = self._go(Grip(arm, 0.0, max_force))[0]
        held = Held(width, max_force, self.tool(arm)[2, 3], name, self._located.get(name))
        self._check_grip(arm, held, end)
        self._held[arm] = held
        return end

    def check_held(self, arm: str) -> GripEnd:
        """Squeeze again, and look: raises SkillError when the object has slipped out or still lies where it was."""
        held = self._held[arm]
        end = self._go(Grip(arm, 0.0, held.max_force))[0]
        try:
            self._check_grip(arm, held, end)
            if held.name and held.lay_at is not None and self.still_lies(held.name, held.lay_at):
                raise SkillError(f'lift: {held.name} still lies where it was; the fingers of {arm} hold something else')
        except SkillError:
            del self._held[arm]
            raise
        return end

    def _check_grip(self, arm: str, held: Held, end: GripEnd) -> None:
        low, high = (share * held.width for share in WIDTH_RANGE)
        if not low <= end.width <= high:
            raise SkillError(f'grasp: the fingers of {arm} are {end.width * 1000:.1f} mm apart; an object of '
                             f'{held.width * 1000:.0f} mm was expected between them')
        least = FORCE_SHARE * (held.max_force or self.station.arms[arm].gripper.max_effort)
        if not end.stalled or not end.force >= least:     # also a force that is NaN
            raise SkillError(f'grasp: the fingers of {arm} meet no resistance: {end.force:.1f} N were measured, at '
                             f'least {least:.1f} N expected')

    # --

    def _change_height(self, arm: str, height: float) -> None:
        self._go(Move(arm, pose=moved_to(self.tool(arm), height=height), straight=True))

    def _go(self, *motions) -> list:
        for motion in motions:
            if isinstance(motion, Move):
                self._sent.pop(motion.arm, None)
        ends = self.robot.run(*motions)
        for motion, end in zip(motions, ends):
            if isinstance(motion, Move) and motion.pose is not None and not end.contact:
                self._sent[motion.arm] = motion.pose
        return ends
