"""A task's reset program: loading it, running it a few times, and looking whether the object is where it belongs."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Callable

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.configuration import ConfigurationError
from enpire_reset.geometry import pose_error
from enpire_reset.robot import CameraSilent, SkillCancelled, SkillError
from enpire_reset.skills import Skills

MAX_ATTEMPTS = 3
DEFAULT_TOLERANCE = (0.012, math.radians(8))   # m, rad; a reset program may state its own as TOLERANCE

PlanarPose = tuple[float, float, float]


@dataclass(frozen=True)
class Attempt:
    """One attempt. before, after: pose seen, None where it was not seen; errors are of `after`, NaN without it."""

    success: bool
    reason: str
    before: PlanarPose | None
    after: PlanarPose | None
    position_error: float
    yaw_error: float
    duration: float


@dataclass(frozen=True)
class ResetOutcome:
    """How a reset ended. reached: pose seen at the end, None when it was not seen; errors NaN then."""

    success: bool
    message: str
    attempts: tuple[Attempt, ...]
    target: PlanarPose
    reached: PlanarPose | None
    position_error: float
    yaw_error: float


class ResetProgram:
    """`reset.py` of a task: `reset(skills, task, seed)`, and optionally TOLERANCE (m, rad).

    Raises ConfigurationError naming the file when it does not load or has no such function.
    """

    def __init__(self, task: ArmTask):
        module = _load(task)
        self._task = task
        self._reset = getattr(module, 'reset', None)
        if not callable(self._reset):
            raise ConfigurationError(f'{task.reset}: has no function reset(skills, task, seed); add it')
        self.tolerance = getattr(module, 'TOLERANCE', DEFAULT_TOLERANCE)

    def run(self, skills: Skills, seed: int, begin_attempt: Callable[[int], None]) -> ResetOutcome:
        """Reset for `seed`; looks first, and does not move what lies there already.

        begin_attempt(k) is called with 0 for the first look, then with the number of each attempt. Raises
        SkillCancelled.
        """
        target = self._task.start_pose(seed)
        begin_attempt(0)
        seen, problem = self._look(skills)
        attempts: list[Attempt] = []
        # Without images no attempt is made at all: nothing moves that nobody watches.
        blind = isinstance(problem, CameraSilent)
        while not self._there(seen, target) and len(attempts) < MAX_ATTEMPTS and not blind:
            begin_attempt(len(attempts) + 1)
            began, before = skills.robot.now(), seen
            failure = self._attempt(skills, seed)
            seen, problem = self._look(skills)
            problem = failure or problem
            attempts.append(self._judged(problem, before, seen, target, skills.robot.now() - began))
            # Not seen before and not after: whatever hides it, another attempt does not know more.
            blind = before is None and seen is None
        return self._outcome(seen, target, attempts, problem)

    def _attempt(self, skills: Skills, seed: int) -> SkillError | None:
        """None, or why it failed."""
        try:
            self._reset(skills, self._task, seed)
        except SkillCancelled:
            raise
        except SkillError as error:
            return error
        except Exception as error:
            return SkillError(f'{self._task.reset.name} raised {type(error).__name__}: {error}')
        return None

    def _look(self, skills: Skills) -> tuple[PlanarPose | None, SkillError | None]:
        """Pose of the start object with all arms at home and grippers closed, as a trial begins; or None and why it
        was not seen."""
        try:
            skills.put_down()
            skills.go_home(*skills.arms)
            skills.close_grippers()
            return skills.locate(self._task.start.object), None
        except SkillCancelled:
            raise
        except SkillError as error:
            return None, error

    def _there(self, seen, target) -> bool:
        if seen is None:
            return False
        position, yaw = pose_error(seen, target)
        return position <= self.tolerance[0] and yaw <= self.tolerance[1]

    def _judged(self, problem, before, after, target, duration) -> Attempt:
        success = self._there(after, target)
        position, yaw = (math.nan, math.nan) if after is None else pose_error(after, target)
        reason = '' if success else str(problem or self._miss(position, yaw))
        return Attempt(success, reason, before, after, position, yaw, duration)

    def _miss(self, position: float, yaw: float) -> str:
        return (f'{position * 1000:.1f} mm and {math.degrees(yaw):.1f} deg from the start pose of the seed; allowed '
                f'are {self.tolerance[0] * 1000:.0f} mm and {math.degrees(self.tolerance[1]):.0f} deg')

    def _outcome(self, seen, target, attempts, problem) -> ResetOutcome:
        if seen is None:
            return ResetOutcome(False, str(problem), tuple(attempts), target, None, math.nan, math.nan)
        success = self._there(seen, target)
        position, yaw = pose_error(seen, target)
        message = self._miss(position, yaw)
        if not success and problem:
            message = f'{problem} ({message})'
        return ResetOutcome(success, message, tuple(attempts), target, seen, position, yaw)


def _load(task: ArmTask) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'enpire_task_{task.name}_reset', task.reset)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigurationError(f'{task.reset}: does not load: {type(error).__name__}: {error}') from error
    return module
