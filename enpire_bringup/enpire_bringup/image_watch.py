"""Notices images that are not news: sent again, out of order, too many, or frozen. No ROS."""

from __future__ import annotations

import threading
from typing import Any, Callable, Mapping

import numpy as np

from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.joint_state_history import JointStateHistory
from enpire_bringup.station import Camera, Station

CLOCK_JUMP = 0.5        # s; a stamp that lies farther back than this begins a new time
SAMPLING = 8            # every so manieth row and column is compared
HAND_MOTION = 0.02      # m that a hand in the picture moves before a picture that stays the same counts as frozen
JOINT_MOTION = 0.02     # rad; smaller changes of all joints move no hand so far
MAX_AGE = 25_000_000    # ns; of a joint state that stands for the time of a picture


class FrameGate:
    """Lets through one image a period. rate: of the camera, Hz."""

    def __init__(self, rate: float):
        self._least_ns = round(0.5e9 / rate)
        self._last: int | None = None
        self.repeated = 0       # images since the last one that was let through that had its very stamp

    def admits(self, stamp: int) -> bool:
        """Whether the image of this capture stamp (ns) is to be looked at.

        Not: the same image once more, one older than the last, one much sooner than the camera's rate. All that
        comes late or in floods so costs nothing but its transport.
        """
        if self._last is not None:
            ahead = stamp - self._last
            self.repeated += ahead == 0
            if -CLOCK_JUMP * 1e9 < ahead < self._least_ns:
                return False
        self._last, self.repeated = stamp, 0
        return True


class FrozenPictureWatch:
    """Notices a camera that sends the same picture with new stamps.

    A picture may stay the same, bit by bit, while nothing moves (in simulation it does). So a picture counts as
    frozen when a hand moved through it meanwhile.
    hand_motion: (joint state before, joint state now), of `joint_states` -> m that a hand in the picture moved in
    between. Asked only when a picture stays the same.
    """

    def __init__(self, hand_motion: Callable[[Any, Any], float], joint_states: JointStateHistory):
        self._hand_motion = hand_motion
        self._joint_states = joint_states
        self._picture = b''
        self._before: Any = None        # joint state of the first of the pictures that are the same
        self._since = 0

    def look(self, image: np.ndarray, stamp: int) -> bool:
        """Whether the picture is frozen, at an image (h, w, ...) with capture stamp (ns)."""
        picture = image[::SAMPLING, ::SAMPLING].tobytes()
        state = self._joint_state(stamp)
        if picture != self._picture or self._before is None or stamp < self._since:
            self._picture, self._before, self._since = picture, state, stamp
            return False
        return state is not None and self._hand_motion(self._before, state) > HAND_MOTION

    def _joint_state(self, stamp: int) -> Any:
        """The newest one not after `stamp`; None when there is none of about that time."""
        known = self._joint_states.at(stamp)
        return known[1] if known and stamp - known[0] <= MAX_AGE else None


class HandMotion:
    """How far the hands in a camera's view moved between two joint states (joint name -> position).

    The kinematics are loaded when they are needed for the first time, in a thread; until then nothing moved.
    """

    def __init__(self, station: Station, camera: Camera):
        self._station = station
        self._camera = PinholeCamera.from_station(camera)
        self._arms: dict[str, Any] = {}
        self._loading: threading.Thread | None = None

    def __call__(self, before: Mapping[str, float], now: Mapping[str, float]) -> float:
        """m; the farthest of the hands that are in view in both."""
        moving = [arm for arm in self._station.arms.values()
                  if any(abs(now.get(joint, 0.0) - before.get(joint, 0.0)) > JOINT_MOTION for joint in arm.joints)
                  and all(joint in now and joint in before for joint in arm.joints)]
        if moving and not self._arms:
            self._begin_loading()
        return max((self._distance(arm, before, now) for arm in moving if arm.name in self._arms), default=0.0)

    def _begin_loading(self) -> None:
        if self._loading is None:
            self._loading = threading.Thread(target=self._load, name='hand kinematics', daemon=True)
            self._loading.start()

    def _load(self) -> None:
        from enpire_bringup.kinematics import ArmKinematics

        self._arms = {name: ArmKinematics(self._station, name) for name in self._station.arms}

    def _distance(self, arm, before, now) -> float:
        hands = np.array([self._arms[arm.name].tip([state[joint] for joint in arm.joints])
                          for state in (before, now)])
        u, v = self._camera.project(hands).T
        in_view = (u >= 0) & (u < self._camera.width) & (v >= 0) & (v < self._camera.height)
        return float(np.linalg.norm(hands[1] - hands[0])) if in_view.all() else 0.0
