"""What the verbs of `Station` return: frozen dataclasses with plain values and numpy arrays.

Lengths in m, angles in rad, forces in N, times in s of ROS time unless said; poses in the frame "world".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

OUTCOMES = ('abstain', 'not_yet', 'success')      # by the number in enpire_msgs/Verdict


class StationCallError(RuntimeError):
    """A station did not do what it was asked; one line that says what, why, and the way out.

    result: what the verb would have returned, where the station got as far as an answer; else None.
    """

    def __init__(self, text: str, result=None):
        super().__init__(text)
        self.result = result


@dataclass(frozen=True)
class Status:
    """The station's own words, once a second. `remaining` and `elapsed`: s of wall time."""

    station: str
    task: str
    state: str
    safety: str
    message: str
    campaign: str
    phase: str
    iteration: int
    hypothesis: str
    best_recipe: str
    trials: int
    successes: int
    elapsed: float
    remaining: float


@dataclass(frozen=True)
class Guard:
    """The safety guard: `ok`, or why it holds (level "warning": ends by itself, "error": holds)."""

    level: str
    message: str

    @property
    def ok(self) -> bool:
        return self.level == 'ok'


@dataclass(frozen=True)
class Joints:
    """Joint states by column: `position` (rad, m of a finger), `velocity`, `effort` (n,); `names` in the same order."""

    time: float
    names: tuple[str, ...]
    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray

    def __getitem__(self, name: str) -> float:
        return float(self.position[self.names.index(name)])


@dataclass(frozen=True)
class Move:
    """How a move ended. joints: (n,) rad where the arm ended. `force` is NaN where it cannot be estimated."""

    success: bool
    message: str
    joints: np.ndarray
    duration: float
    contact: bool
    force: float
    planner: str
    planning_time: float


@dataclass(frozen=True)
class Grip:
    """Width (m between the fingers) and force (N on each) at the end; `stalled`: something is between the fingers."""

    success: bool
    message: str
    width: float
    force: float
    stalled: bool
    reached: bool


@dataclass(frozen=True)
class Attempt:
    """One attempt of a reset. before, after: (3,) x, y, yaw; NaN where the object was not seen."""

    success: bool
    reason: str
    before: np.ndarray
    after: np.ndarray
    position_error: float
    yaw_error: float
    duration: float


@dataclass(frozen=True)
class ResetResult:
    """target, reached: (3,) x, y, yaw. picture: the image seen last, when it gave up."""

    success: bool
    message: str
    attempts: int
    tried: tuple[Attempt, ...]
    target: np.ndarray
    reached: np.ndarray
    position_error: float
    yaw_error: float
    duration: float
    picture: str


@dataclass(frozen=True)
class SkillResult:
    """pose: (4, 4) where the tool ended or the object was seen. width, force: NaN where the skill has none."""

    success: bool
    message: str
    pose: np.ndarray
    width: float
    force: float
    stalled: bool
    duration: float


@dataclass(frozen=True)
class CheckView:
    """One condition of a verdict: `value` was compared with `limit`, both in `unit`."""

    name: str
    passed: bool
    value: float
    limit: float
    unit: str
    detail: str


@dataclass(frozen=True)
class VerdictView:
    """outcome: "success", "not_yet" or "abstain". time: capture of the frame judged; latency, compute: s."""

    time: float
    outcome: str
    reason: str
    checks: tuple[CheckView, ...]
    latency: float
    compute: float
    env_hash: str


@dataclass(frozen=True)
class ObjectView:
    """pose: (3,) x, y, yaw; the last trusted one, or NaN, when not visible. covariance: (3, 3) of x, y, yaw."""

    time: float
    name: str
    pose: np.ndarray
    covariance: np.ndarray
    visible: bool
    occluded: bool
    visible_fraction: float
    residual: float


@dataclass(frozen=True)
class Trial:
    """One recorded trial. wall_duration: s of wall time, reset included. directory: its records."""

    trial_id: str
    campaign: str
    recipe: str
    seed: int
    outcome: str
    reason: str
    reset_success: bool
    reset_attempts: int
    duration: float
    wall_duration: float
    steps: int
    late_steps: int
    directory: str
    verdict: VerdictView

    @property
    def success(self) -> bool:
        return self.outcome == 'SUCCESS'


@dataclass(frozen=True)
class Campaign:
    """How a campaign ended; figures on fresh seeds before (baseline) and after (gate) the search."""

    success: bool
    message: str
    best_recipe: str
    baseline_trials: int
    baseline_successes: int
    gate_trials: int
    gate_successes: int
    iterations: int
    trials: int


def seconds(stamp) -> float:
    """s of a builtin_interfaces/Time or Duration."""
    return stamp.sec + 1e-9 * stamp.nanosec


def planar(pose) -> np.ndarray:
    """(3,) x, y, yaw of a geometry_msgs/Pose."""
    q = pose.orientation
    yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
    return np.array([pose.position.x, pose.position.y, yaw])


def same_fields(kind: type, message, **converted):
    """`kind` from the fields of a message that have the same name, besides those given converted."""
    values = {name: getattr(message, name) for name in kind.__dataclass_fields__ if name not in converted}
    return kind(**values, **converted)


def read_move(message) -> Move:
    return same_fields(Move, message, joints=np.array(message.joints, float))


def read_grip(message) -> Grip:
    return same_fields(Grip, message)


def read_reset(message) -> ResetResult:
    tried = tuple(same_fields(Attempt, attempt, before=planar(attempt.before.pose), after=planar(attempt.after.pose))
                  for attempt in message.tried)
    return same_fields(ResetResult, message, tried=tried, target=planar(message.target.pose),
                       reached=planar(message.reached.pose))


def read_verdict(message) -> VerdictView:
    return same_fields(VerdictView, message, time=seconds(message.header.stamp), outcome=OUTCOMES[message.outcome],
                       checks=tuple(same_fields(CheckView, check) for check in message.checks))


def read_trial(message) -> Trial:
    return same_fields(Trial, message, verdict=read_verdict(message.verdict))


def read_object(message) -> ObjectView:
    covariance = np.array(message.pose.covariance, float).reshape(6, 6)
    return same_fields(ObjectView, message, time=seconds(message.header.stamp), name=message.object_id,
                       pose=planar(message.pose.pose), covariance=covariance[np.ix_([0, 1, 5], [0, 1, 5])])


def read_joints(message) -> Joints:
    return Joints(seconds(message.header.stamp), tuple(message.name),
                  *(np.array(column, float) for column in (message.position, message.velocity, message.effort)))


def read_guard(message) -> Guard:
    level = message.level[0] if isinstance(message.level, bytes) else int(message.level)
    return Guard({0: 'ok', 1: 'warning'}.get(level, 'error'), message.message)
