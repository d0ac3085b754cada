"""The objects of a task in the images of one camera, image after image. No ROS."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Sequence

import numpy as np

from enpire_bringup.arm_task import Landmarks, TaskObject
from enpire_bringup.camera_model import PinholeCamera, optical_pose
from enpire_bringup.extrinsic_refinement import ExtrinsicRefinement
from enpire_bringup.planar_pose import CAMERA_UNCERTAIN, PlanarPose, PlanarPoseEstimator, nothing_found
from enpire_bringup.station import Camera

MEMORY = 0.5            # s for which the last trusted pose helps with the next image


class ImageError(ValueError):
    """An image or camera_info cannot be used; the message says why."""


@dataclass(frozen=True)
class Look:
    """What one image says. poses: by object name. camera: with the pose that the landmarks give it, None without an
    image. landmarks (n, 2): pixels of those that were found. problem: why the camera's pose could not be corrected.
    """

    poses: dict[str, PlanarPose]
    camera: PinholeCamera | None = None
    landmarks: np.ndarray | None = None
    problem: str = ''


class ObjectTracker:
    """Finds the objects `items` in the images of `camera`, which stands in the frame "world".

    The same images with the same times give the same poses, whatever the machine's load.
    """

    def __init__(self, camera: Camera, items: Sequence[TaskObject], landmarks: Landmarks | None):
        self.items = tuple(items)
        self.calibrated: PinholeCamera | None = None
        self.trusted = {item.name: np.full(3, np.nan) for item in items}      # the last poses that were visible
        self._camera = camera
        self._pose = optical_pose(camera)
        self._info: tuple | None = None
        self._refinement = ExtrinsicRefinement(landmarks) if landmarks else None
        self._estimators = {item.name: PlanarPoseEstimator(item) for item in items}
        self._trusted_times = dict.fromkeys(self.trusted, -math.inf)

    def calibrate(self, width: int, height: int, k) -> None:
        """Take over a camera_info (k: 9 numbers, row by row). Raises ImageError; images are of no use then."""
        info = (width, height, *k)
        if info == self._info:
            return
        self._info, self.calibrated = None, None
        expected = self._camera.width, self._camera.height
        if (width, height) != expected:
            raise ImageError(f'camera_info is for {width}x{height}, but the station file has {expected[0]}x'
                             f'{expected[1]}: set one of them to the other')
        try:
            self.calibrated = PinholeCamera.from_info(width, height, k, self._pose)
        except ValueError as error:
            raise ImageError(str(error)) from error
        self._info = info

    def check(self, image: np.ndarray) -> None:
        """Raises ImageError when the image does not have the size of camera_info, or there was none yet."""
        if self.calibrated is None:
            raise ImageError('no camera_info yet')
        expected = self.calibrated.height, self.calibrated.width
        if image.shape[:2] != expected:
            raise ImageError(f'image of {image.shape[1]}x{image.shape[0]}; camera_info says '
                             f'{expected[1]}x{expected[0]}')

    def look(self, image: np.ndarray, time: float) -> Look:
        """Find the objects in an RGB image (h, w, 3) uint8 captured at `time` (s). Raises ImageError as `check`."""
        self.check(image)
        camera, covariance, landmarks, problem = self.calibrated, None, None, ''
        if self._refinement is not None:
            refined = self._refinement.refine(image, self.calibrated)
            camera, covariance = refined.camera, refined.covariance
            landmarks, problem = refined.seen, refined.problem
        poses = {}
        for name, estimator in self._estimators.items():
            recent = 0 <= time - self._trusted_times[name] <= MEMORY
            found = estimator.estimate(image, camera, self.trusted[name] if recent else None, covariance)
            if problem and found.reason == CAMERA_UNCERTAIN:
                found = replace(found, reason=f'{found.reason}: {problem}')
            if found.visible:
                self.trusted[name], self._trusted_times[name] = found.pose, time
            poses[name] = found
        return Look(poses, camera, landmarks, problem)

    def blind(self, reason: str) -> Look:
        """What an image that cannot be used says."""
        return Look({item.name: nothing_found(reason) for item in self.items})
