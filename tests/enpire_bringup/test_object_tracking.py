"""Image after image of one camera, drawn here."""

import math

import numpy as np
import pytest
from drawn_scene import HANDLE, ITEM, STATION, STEM, TASK, camera, drawn, errors

from enpire_bringup.object_tracking import ImageError, ObjectTracker

VIEW = camera()
INFO = (VIEW.width, VIEW.height, VIEW.info()['k'])
FRAME = 1 / 30


@pytest.fixture
def tracker():
    tracker = ObjectTracker(STATION.cameras['top'], [ITEM], None)
    tracker.calibrate(*INFO)
    return tracker


def follow(tracker, images):
    return [tracker.look(image, 1 + n * FRAME).poses[ITEM.name] for n, image in enumerate(images)]


def test_a_moving_object_is_followed(tracker):
    poses = [(0.30 + 0.003 * n, 0.05 - 0.004 * n, 0.05 * n) for n in range(12)]
    for found, pose in zip(follow(tracker, [drawn(VIEW, pose, [HANDLE]) for pose in poses]), poses):
        position, yaw = errors(found, pose)
        assert found.visible and position < 0.001 and yaw < math.radians(0.6)


def test_a_turn_by_half_a_circle_between_two_images_is_seen(tracker):
    poses = [(0.33, 0.0, 0.7), (0.33, 0.0, 0.7 + math.pi), (0.33, 0.0, 0.7)]
    for found, pose in zip(follow(tracker, [drawn(VIEW, pose, [HANDLE]) for pose in poses]), poses):
        assert found.visible and errors(found, pose)[1] < math.radians(1)


def test_half_of_it_is_followed_but_not_guessed(tracker):
    """A lone bar could be turned by half a circle; from the image before it is known which way it is. After a while
    without a trusted pose it is not known any more."""
    pose = (0.33, 0.0, 0.7)
    plain, half = drawn(VIEW, pose), drawn(VIEW, pose, [STEM])
    alone = tracker.look(half, 1.0).poses[ITEM.name]
    assert not alone.visible and alone.occluded
    tracker.look(plain, 2.0)
    followed = tracker.look(half, 2.1).poses[ITEM.name]
    if followed.visible:
        assert errors(followed, pose)[1] < math.radians(2)
    assert not tracker.look(half, 3.5).poses[ITEM.name].visible


def test_the_same_images_give_the_same_poses(tracker):
    images = [drawn(VIEW, (0.30 + 0.002 * n, 0.0, 0.3), [HANDLE]) for n in range(5)]
    other = ObjectTracker(STATION.cameras['top'], [ITEM], None)
    other.calibrate(*INFO)
    for one, same in zip(follow(tracker, images), follow(other, images)):
        np.testing.assert_array_equal(one.pose, same.pose)
        np.testing.assert_array_equal(one.covariance, same.covariance)


def test_a_hidden_object_leaves_the_last_trusted_pose(tracker):
    follow(tracker, [drawn(VIEW, (0.33, 0.0, 0.7)), drawn(VIEW, None)])
    np.testing.assert_allclose(tracker.trusted[ITEM.name], (0.33, 0.0, 0.7), atol=0.005)


def test_images_need_a_camera_info_of_the_station_files_size(tracker):
    image = drawn(VIEW, None)
    with pytest.raises(ImageError, match='no camera_info'):
        ObjectTracker(STATION.cameras['top'], [ITEM], None).look(image, 1.0)
    with pytest.raises(ImageError, match='320x240; camera_info says 640x480'):
        tracker.look(image[::2, ::2], 1.0)
    with pytest.raises(ImageError, match='camera_info is for 320x240, but the station file has 640x480'):
        tracker.calibrate(320, 240, INFO[2])
    with pytest.raises(ImageError, match='no camera_info'):     # the one that was refused replaced the good one
        tracker.look(image, 1.0)
    tracker.calibrate(*INFO)
    tracker.look(image, 1.0)


def test_an_uncalibrated_camera_is_refused(tracker):
    with pytest.raises(ImageError, match='not calibrated'):
        tracker.calibrate(640, 480, [0.0] * 9)


def test_without_its_landmarks_a_camera_is_not_trusted():
    """The table is bare: whether the camera still stands where it stood is unknown."""
    tracker = ObjectTracker(STATION.cameras['top'], [ITEM], TASK.landmarks)
    tracker.calibrate(*INFO)
    look = tracker.look(drawn(VIEW, (0.33, 0.0, 0.7)), 1.0)
    found = look.poses[ITEM.name]
    assert not found.visible and not found.occluded
    assert 'camera is too uncertain: only 0 of 10 landmarks are seen' in found.reason
