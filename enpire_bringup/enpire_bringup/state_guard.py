"""The safety guard of measured states: notices in time that an arm is about to pass a limit, whoever moves it. No ROS.

For every joint state it is worked out how far each arm would go if it had to stop now: on as it moves for
guard.REACTION and the station's `stop_time`. A limit that is passed there is a violation now. See docs/safety.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Iterable, Sequence

import numpy as np

from enpire_bringup.arm_extent import ArmExtent
from enpire_bringup.collision_model import CollisionModel
from enpire_bringup.guard import REACTION, SpaceLimits, Violation, distance_violation, station_reach
from enpire_bringup.kinematics import ArmKinematics
from enpire_bringup.safety_limits import SafetyLimits
from enpire_bringup.station import Station
from enpire_bringup.tip_force import TipForce

ABSURD_EFFORT = 3.0          # times a joint's effort limit: no motor gives that, so it is no measurement
LONGEST_STEP = 0.05          # s between two states over which an acceleration means something
LARGEST_GAIN = 20.0          # rad/s^2 with which a joint is believed to go on gaining speed
LARGEST_LOSS = 100.0         # rad/s^2 with which it is believed to go on losing speed
SPEED_REACTION = 0.04        # s for which a joint may go on gaining speed before it is stopped
EFFORT_REACTION = 0.02       # s for which an effort may go on rising
FORCE_PERIOD = 0.03          # s after which the tip force is estimated anew
EFFORT_STEP = 2.0            # N m of any joint that make it worth estimating at once
FORCE_REACTION = 0.03        # s for which a force may go on rising
FASTEST_RISE = 300.0         # N/s that are believed: the stiffness of an arm times its speed
FASTEST_EFFORT_RISE = 5.0    # of a joint's effort limit, a second, that is believed
CREEPING = 0.001             # rad/s, and rad since the last state, below which nothing has got anywhere
STANDING = 0.02              # rad/s below which a joint stands
STOP_DURATION = 0.05         # s in which a stop brings the commanded positions to where the arm was
SLACK = 1e-4                 # m and rad past a limit that are nothing
WAKING_CHECKS = 3            # looks at the wall clock in which no state came, before it counts as stale


@dataclass(frozen=True)
class Stop:
    """The command that stops an arm: joint positions (n,) rad to be reached, standing, after `duration` s."""

    positions: np.ndarray
    duration: float


@dataclass(frozen=True)
class _Allowed:
    """How far past its limits what is may be, because it was there already; all at least 0. rad, N m, m, N."""

    joints: np.ndarray
    efforts: np.ndarray
    space: dict[str, np.ndarray]
    distance: float
    forces: dict[str, float]

    @property
    def any(self) -> bool:
        return bool(self.joints.any() or self.efforts.any() or self.distance or any(self.forces.values())
                    or any(past.any() for past in self.space.values()))

    def tightened(self, now: '_Allowed') -> '_Allowed':
        return _Allowed(np.minimum(self.joints, now.joints), np.minimum(self.efforts, now.efforts),
                        {name: np.minimum(past, now.space[name]) for name, past in self.space.items()},
                        min(self.distance, now.distance),
                        {name: min(past, now.forces[name]) for name, past in self.forces.items()})


class StateGuard:
    """Watches the measured joint states of all arms. Times are s of joint state stamps.

    An arm that is past a limit when it is first seen, or when the guard was cleared, may come back, but nowhere
    farther out. Keeps scratch memory: use one instance a thread. `limits` may be replaced at any time.
    """

    def __init__(self, station: Station, limits: SafetyLimits):
        self._station = station
        self._slices = {name: station.arm_slice(name) for name in station.arms}
        self._extents = {name: ArmExtent(station, name) for name in station.arms}
        self._collisions = CollisionModel(station) if len(station.arms) > 1 else None
        self._reach = station_reach(station)
        n = len(station.joints)
        self._lowest, self._highest = np.full(n, -math.inf), np.full(n, math.inf)
        self._effort_limit = np.full(n, math.inf)
        self._absurd = np.empty(n)
        for name, arm in station.arms.items():
            kinematics, part = ArmKinematics(station, name), self._slices[name]
            self._lowest[part], self._highest[part] = kinematics.lower, kinematics.upper
            self._effort_limit[part] = self._extents[name].effort_limit
            self._absurd[part] = ABSURD_EFFORT * self._effort_limit[part]
            self._absurd[station.joints.index(arm.gripper.joint)] = ABSURD_EFFORT * arm.gripper.max_effort
        self._tip_forces = {name: _TipForceWatch(TipForce(station, name)) for name in station.arms}
        self._arm_joint = np.isfinite(self._lowest)
        self._stamp: float | None = None
        self.positions: np.ndarray | None = None      # (n,) of the newest good state, in the order of Station.joints
        self.velocities = np.zeros(n)
        self._gain = np.zeros(n)
        self._efforts = np.zeros(n)
        self._lenient = False                          # whether something is past a limit and allowed to be
        self._fresh = True                             # the next state decides what is allowed
        self.limits = limits

    @property
    def limits(self) -> SafetyLimits:
        return self._limits

    @limits.setter
    def limits(self, limits: SafetyLimits) -> None:
        self._limits = limits
        self._space = {name: SpaceLimits(name, limits) for name in self._station.arms}
        self._fresh = True

    def allow_present(self) -> None:
        """An arm may stay as far out of its limits as it is at the next state; for when the guard was cleared."""
        self._fresh = True

    # -- one state

    def observe(self, stamp: float, positions: Sequence[float], velocities: Sequence[float],
                efforts: Sequence[float], streaming: Iterable[str] = ()) -> Violation | None:
        """Take in a joint state, in the order of Station.joints; returns the limit that is about to be passed.

        rad, rad/s, N m; m and N for grippers. streaming: arms that servo drives, whose tools have a speed limit.
        """
        bad = self._unusable(positions, velocities, efforts)
        if bad is not None:
            return bad
        p, v, e = np.array(positions), np.array(velocities), np.array(efforts)
        still = self.positions is not None and max(np.abs(v).max(), np.abs(p - self.positions).max()) < CREEPING
        rise = self._take_in(stamp, p, v, e, streaming)
        if self._fresh:
            self._allow(p, e)
        elif still:
            return self._too_strong(e, rise) or self._presses_too_hard(stamp, p, v, e)
        if self._lenient:
            self._tighten(p, e)
        stop = self._stop(p, v)
        return (self._beyond_range(stop) or self._too_fast(v, streaming) or self._too_strong(e, rise)
                or self._presses_too_hard(stamp, p, v, e) or self._out_of_space(stop))

    def _unusable(self, positions, velocities, efforts) -> Violation | None:
        joints = self._station.joints
        for what, values in (('position', positions), ('velocity', velocities), ('effort', efforts)):
            if len(values) != len(joints):
                return Violation(f'missing {what}', '', f'joint_states have {len(values)} of {len(joints)} values of '
                                 f'{what}; the guard needs each joint\'s {what}', len(values), len(joints))
            if not math.isfinite(sum(values)):
                value, joint = max(zip(values, joints),
                                   key=lambda entry: math.inf if math.isnan(entry[0]) else abs(entry[0]))
                return Violation(f'missing {what}', self._arm_of(joint), f'the {what} of {joint} is {value:g}, no '
                                 'measurement')
        return None

    def _arm_of(self, joint: str) -> str:
        return next(name for name, arm in self._station.arms.items() if joint in (*arm.joints, arm.gripper.joint))

    def _take_in(self, stamp: float, p: np.ndarray, v: np.ndarray, e: np.ndarray, streaming) -> np.ndarray:
        """Remember a state; returns how fast (n,) efforts rise, N m/s."""
        step = stamp - self._stamp if self._stamp is not None else 0.0
        rise = np.zeros(len(e))
        if 0.0 < step <= LONGEST_STEP:
            # Along the velocity: positive gains speed.
            gain = np.sign(v) * (v - self.velocities) / step
            self._gain = 0.5 * (self._gain + np.clip(gain, -LARGEST_LOSS, LARGEST_GAIN))
            for name in streaming:
                # What the guard itself streams is known to stop in time.
                self._gain[self._slices[name]] = np.minimum(self._gain[self._slices[name]], 0.0)
            rise = (np.abs(e) - np.abs(self._efforts)) / step
        else:
            self._gain = np.zeros(len(v))
        self._stamp, self.positions, self.velocities, self._efforts = stamp, p, v, e
        return rise

    def _stop(self, p: np.ndarray, v: np.ndarray) -> np.ndarray:
        """(n,) how far every joint would go if its arm had to stop now."""
        then = np.sign(v) * np.maximum(0.0, np.abs(v) + self._gain * REACTION)
        return p + (v + then) * (0.5 * REACTION) + then * self._limits.stop_time

    def _allow(self, p: np.ndarray, e: np.ndarray) -> None:
        """Start over with what is allowed: the limits, and where something is past one, no farther."""
        self._fresh = False
        self._allowed = self._past(p, e)
        self._lenient = self._allowed.any
        self._looks = {name: (None, 0.0) for name in self._space}
        self._distance_look = None, 0.0

    def _tighten(self, p: np.ndarray, e: np.ndarray) -> None:
        """What has come back towards its limits may not go out again."""
        self._allowed = self._allowed.tightened(self._past(p, e))
        self._lenient = self._allowed.any

    def _past(self, p: np.ndarray, e: np.ndarray) -> '_Allowed':
        return _Allowed(
            joints=_leniently(np.maximum(self._lowest - p, p - self._highest), 0.01),
            efforts=_leniently(np.abs(e) - self._limits.max_joint_effort * self._effort_limit, 1.0),
            space={name: _leniently(space.excess(self._extents[name].at(p[self._slices[name]])), 0.005)
                   for name, space in self._space.items()},
            distance=float(_leniently(self._too_near(p)[0], 0.005)),
            forces={name: float(_leniently(watch.force - self._limits.max_tip_force, 2.0))
                    for name, watch in self._tip_forces.items()})

    # -- the limits

    def _beyond_range(self, stop: np.ndarray) -> Violation | None:
        past = np.maximum(self._lowest - stop, stop - self._highest) - self._allowed.joints
        joint = int(past.argmax())
        if past[joint] <= SLACK:
            return None
        name, now = self._station.joints[joint], float(self.positions[joint])
        low, high = float(self._lowest[joint]), float(self._highest[joint])
        return Violation('joint_margin', self._arm_of(name), f'{name} is at {now:.3f} rad with '
                         f'{self.velocities[joint]:.2f} rad/s and could not stop within its range of {low:.3f} to '
                         f'{high:.3f} rad', now, low if stop[joint] < low else high, 'rad')

    def _too_fast(self, v: np.ndarray, streaming: Iterable[str]) -> Violation | None:
        limit = self._limits.max_joint_speed
        speeds = np.abs(v) + np.maximum(self._gain, 0.0) * SPEED_REACTION
        speeds *= self._arm_joint
        joint = int(speeds.argmax())
        if speeds[joint] > limit:
            name = self._station.joints[joint]
            return Violation('max_joint_speed', self._arm_of(name), f'{name} moves at {abs(v[joint]):.2f} rad/s and '
                             f'would pass its limit of {limit:g} rad/s', float(abs(v[joint])), limit, 'rad/s')
        limit = self._limits.max_tip_speed
        for name in streaming:
            part = self._slices[name]
            # A bound first: it takes a tenth of the time.
            if np.abs(v[part]) @ self._reach[part] > limit:
                speed = self._extents[name].tip_speed(self.positions[part], v[part])
                if speed > limit:
                    return Violation('max_tip_speed', name, f'the tool center point moves at {speed:.3f} m/s; the '
                                     f'limit is {limit:g} m/s', speed, limit, 'm/s')
        return None

    def _too_strong(self, e: np.ndarray, rise: np.ndarray) -> Violation | None:
        absolute = np.abs(e)
        absurd = absolute - self._absurd
        joint = int(absurd.argmax())
        if absurd[joint] > 0.0:
            name = self._station.joints[joint]
            return Violation('absurd effort', self._arm_of(name), f'the effort of {name} is reported as {e[joint]:g}, '
                             f'more than {ABSURD_EFFORT:g} times what its motor can give', float(e[joint]),
                             float(self._absurd[joint]), 'N m' if self._arm_joint[joint] else 'N')
        share = self._limits.max_joint_effort
        expected = absolute + np.clip(rise, 0.0, FASTEST_EFFORT_RISE * self._effort_limit) * EFFORT_REACTION
        past = expected - share * self._effort_limit - self._allowed.efforts
        joint = int(past.argmax())
        if past[joint] <= 0.0:
            return None
        name, bound = self._station.joints[joint], float(share * self._effort_limit[joint])
        return Violation('max_joint_effort', self._arm_of(name), f'the effort of {name} is {absolute[joint]:.1f} N m '
                         f'and would pass its limit of {bound:.1f} N m', float(absolute[joint]), bound, 'N m')

    def _presses_too_hard(self, stamp: float, p: np.ndarray, v: np.ndarray, e: np.ndarray) -> Violation | None:
        limit = self._limits.max_tip_force
        for name, watch in self._tip_forces.items():
            part = self._slices[name]
            expected = watch.observe(stamp, p[part], v[part], e[part])
            if expected > limit + self._allowed.forces[name]:
                return Violation('max_tip_force', name, f'the force on the tool is {watch.force:.1f} N and would pass '
                                 f'its limit of {limit:g} N', watch.force, limit, 'N')
        return None

    def tip_force(self, arm_name: str) -> np.ndarray | None:
        """(3,) N in "world" on an arm's tool, as it was estimated last."""
        return self._tip_forces[arm_name].vector

    def _out_of_space(self, stop: np.ndarray) -> Violation | None:
        """Workspace, floor and distance between the arms; looked at only when something can have been passed."""
        for name, space in self._space.items():
            part = self._slices[name]
            q, (at, room) = stop[part], self._looks[name]
            if at is not None and float(np.abs(q - at) @ self._reach[part]) < room:
                continue
            extent = self._extents[name].at(q)
            excess = space.excess(extent)
            past = excess - self._allowed.space[name]
            index = int(past.argmax())
            if past[index] > SLACK:
                return space.violation(index, extent)
            self._looks[name] = q, -float(excess.max())
        at, room = self._distance_look
        if at is None or float(np.abs(stop - at) @ self._reach) >= room:
            near, proximity = self._too_near(stop)
            if near > self._allowed.distance + SLACK:
                return distance_violation('', proximity, self._limits)
            self._distance_look = stop, -near
        return None

    def _too_near(self, p: np.ndarray):
        """(m by which arms are nearer to each other than they may be, negative: they are farther; their distance)."""
        if self._collisions is None:
            return -math.inf, None
        proximity = self._collisions.arm_distance(p)
        return self._limits.min_arm_distance - proximity.distance, proximity

    # -- stopping

    def stop(self, arm_name: str) -> Stop | None:
        """The command that stops an arm: back to where it was measured last; None before it was.

        An arm yields to its motors like a spring, so no gentler way to stop is shorter.
        """
        if self.positions is None:
            return None
        part = self._slices[arm_name]
        return Stop(np.clip(self.positions[part], self._lowest[part], self._highest[part]), STOP_DURATION)

    def standing(self, arm_name: str) -> bool:
        return float(np.abs(self.velocities[self._slices[arm_name]]).max()) < STANDING


def _leniently(past, slack: float):
    """What is past a limit may be that, and a little more: no arm stands quite still. Nothing else may."""
    return np.where(np.asarray(past) > 0.0, np.asarray(past) + slack, 0.0)


class _TipForceWatch:
    """The tip force of one arm, estimated only when it can be another one: that costs as much as all the rest."""

    def __init__(self, estimator: TipForce):
        self._estimator = estimator
        self.vector: np.ndarray | None = None
        self.force = 0.0
        self._expected = 0.0
        self._stamp = -math.inf
        self._efforts: np.ndarray | None = None

    def observe(self, stamp: float, p: np.ndarray, v: np.ndarray, e: np.ndarray) -> float:
        """The force (N) to be expected until the arm can be stopped."""
        age = stamp - self._stamp
        if 0.0 <= age < FORCE_PERIOD and np.abs(e - self._efforts).max() < EFFORT_STEP:
            return self._expected
        before = self.force
        self.vector = self._estimator.observe(stamp, p, v, e)
        self.force = float(np.linalg.norm(self.vector))
        rise = max(0.0, self.force - before) / age if 0.0 < age <= LONGEST_STEP else 0.0
        self._expected = self.force + min(rise, FASTEST_RISE) * FORCE_REACTION
        self._stamp, self._efforts = stamp, e
        return self._expected


class StateWatch:
    """Notices on the wall clock that joint states stay away. Where states are paced by the wall clock only.

    A process that was not let run finds its states in the queue when it goes on. So not the time since the last state
    counts, but the looks at the clock, a third of the limit apart, in which none had come; looks that are late follow
    one another more quickly, so the limit has to be past as well.
    """

    def __init__(self, limit: float):
        self._limit = limit
        self.period = limit / WAKING_CHECKS     # s of wall time between two looks
        self._missed = 0
        self._arrival: float | None = None

    def arrived(self, now: float) -> None:
        """A state came at `now` (s, monotonic)."""
        self._arrival, self._missed = now, 0

    def look(self, now: float) -> float | None:
        """The age (s) of the newest state when it is stale. Call every `period`."""
        if self._arrival is None:
            return None
        self._missed += 1
        age = now - self._arrival
        return age if self._missed > WAKING_CHECKS and age > self._limit else None
