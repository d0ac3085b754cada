"""Pose of a T from images that are drawn here, so that the truth is known."""

import math
import time

import cv2
import numpy as np
import pytest

from drawn_scene import BAR, HANDLE, ITEM, RED, STEM, TASK, camera, drawn, errors

from enpire_bringup.object_tracking import Look
from enpire_bringup.planar_pose import Outline, PlanarPoseEstimator, boundary_points, color_mask
from enpire_bringup.pose_overlay import draw_look


def random_poses(count, seed=0):
    rng = np.random.default_rng(seed)
    return [tuple(rng.uniform((0.26, -0.12, -math.pi), (0.40, 0.12, math.pi))) for _ in range(count)]


@pytest.fixture(scope='module')
def estimator():
    return PlanarPoseEstimator(ITEM)


@pytest.mark.parametrize('size, median, worst, yaw_median', [
    ((640, 480), 0.0015, 0.004, math.radians(0.5)), ((320, 240), 0.003, 0.008, math.radians(1.0))])
def test_a_plain_view_is_measured_to_a_millimeter(estimator, size, median, worst, yaw_median):
    view = camera(*size)
    results = []
    for pose in random_poses(40):
        found = estimator.estimate(drawn(view, pose), view)
        assert found.visible, found.reason
        assert found.visible_fraction > 0.9
        results.append(errors(found, pose))
    position, yaw = np.array(results).T
    assert np.median(position) < median and position.max() < worst
    assert np.median(yaw) < yaw_median and yaw.max() < math.radians(2.5)


def test_the_estimate_is_not_biased(estimator):
    """Half a pixel (1 mm) too far inside or outside would show as an error that does not average out."""
    view = camera()
    offsets = [estimator.estimate(drawn(view, pose), view).pose[:2] - pose[:2]
               for pose in random_poses(40, seed=1)]
    assert np.linalg.norm(np.mean(offsets, axis=0)) < 0.0002


STEM_END = [(-0.03, -0.11), (0.03, -0.11), (0.03, -0.05), (-0.03, -0.05)]
LEFT_ARM_OF_T = [(-0.09, 0.0), (-0.03, 0.0), (-0.03, 0.06), (-0.09, 0.06)]
ACROSS = [(-0.10, 0.012), (0.10, -0.06), (0.10, -0.03), (-0.10, 0.042)]


@pytest.mark.parametrize('occluder', [STEM_END, LEFT_ARM_OF_T, HANDLE, ACROSS])
def test_a_partly_hidden_t_is_still_measured(estimator, occluder):
    view = camera()
    for pose in random_poses(12, seed=2):
        found = estimator.estimate(drawn(view, pose, [occluder]), view)
        assert found.visible, found.reason
        position, yaw = errors(found, pose)
        assert position < 0.003 and yaw < math.radians(2)
        if occluder is not HANDLE:      # which lies within the face and hides nothing of the outline
            assert found.visible_fraction < 0.97


@pytest.mark.parametrize('occluder', [BAR, STEM])
def test_half_a_t_is_not_trusted(estimator, occluder):
    """A lone bar or stem is a rectangle: it could be turned by 180 degrees."""
    view = camera()
    for pose in random_poses(12, seed=3):
        found = estimator.estimate(drawn(view, pose, [occluder]), view)
        assert not found.visible and found.occluded, found


def test_random_occluders_never_give_a_trusted_wrong_pose(estimator):
    view = camera()
    rng = np.random.default_rng(4)
    trusted = 0
    for pose in random_poses(80, seed=4):
        center, size = rng.uniform(-0.07, 0.06, 2), rng.uniform(0.02, 0.16, 2)
        box = cv2.boxPoints((tuple(center), tuple(size), rng.uniform(0, 180)))
        found = estimator.estimate(drawn(view, pose, [box]), view)
        if found.visible:
            trusted += 1
            position, yaw = errors(found, pose)
            assert position < 0.006 and yaw < math.radians(4), (pose, box, found)
    assert trusted > 30


def test_a_hidden_t_is_not_visible(estimator):
    view = camera()
    found = estimator.estimate(drawn(view, None), view)
    assert not found.visible and np.isnan(found.pose).all() and 'color' in found.reason
    assert not found.occluded       # nothing of it was found, so nobody knows whether it is hidden or gone


def test_a_red_shape_of_another_kind_is_not_the_t(estimator):
    view = camera()
    square = [(0.28, -0.05), (0.38, -0.05), (0.38, 0.05), (0.28, 0.05)]
    found = estimator.estimate(drawn(view, None, extra=[(square, RED)]), view)
    assert not found.visible and not found.occluded


def test_a_small_red_thing_elsewhere_does_not_matter(estimator):
    view = camera()
    pose = (0.33, 0.0, 2.0)
    far = [(0.20, 0.20), (0.22, 0.20), (0.22, 0.22), (0.20, 0.22)]
    position, yaw = errors(estimator.estimate(drawn(view, pose, extra=[(far, RED)]), view), pose)
    assert position < 0.002 and yaw < math.radians(1)


def test_a_wrong_hint_is_overruled_by_a_plain_view(estimator):
    view = camera()
    for pose in random_poses(12, seed=5):
        flipped = np.array([pose[0], pose[1], pose[2] + math.pi])
        found = estimator.estimate(drawn(view, pose), view, near=flipped)
        assert found.visible and errors(found, pose)[1] < math.radians(1)


def test_what_covers_the_middle_of_the_face_counts_as_covered(estimator):
    """An arm across the middle leaves most of the outline: the share of the face tells."""
    view = camera()
    inner = [(-0.065, 0.016), (0.065, 0.016), (0.065, 0.044), (-0.065, 0.044)]
    found = estimator.estimate(drawn(view, (0.33, 0.0, 1.0), [inner]), view)
    assert 0.5 < found.visible_fraction < 0.65


def test_every_yaw_is_found_without_a_hint(estimator):
    view = camera()
    for yaw in np.arange(0, 2 * math.pi, 2 * math.pi / 47):
        pose = (0.40, 0.06, yaw)
        found = estimator.estimate(drawn(view, pose, [HANDLE]), view)
        assert found.visible and errors(found, pose)[1] < math.radians(1), (pose, found)


def test_the_covariance_is_that_of_the_errors(estimator):
    """Mean of the squared errors over the covariances that came with them, a dimension: 1 when they are honest."""
    view = camera()
    squares = []
    for pose in random_poses(40, seed=8):
        found = estimator.estimate(drawn(view, pose, [HANDLE]), view)
        error = found.pose - pose
        error[2] = math.remainder(error[2], 2 * math.pi)
        squares.append(error @ np.linalg.solve(found.covariance, error) / 3)
    assert 0.1 < np.mean(squares) < 3


def test_an_uncertain_camera_makes_an_uncertain_pose(estimator):
    view = camera()
    image = drawn(view, (0.33, 0.0, 1.0))
    certain = np.diag([0.0002] * 3 + [math.radians(0.02)] * 3) ** 2
    found = estimator.estimate(image, view, camera_covariance=certain)
    assert found.visible
    assert 0.0002 < math.sqrt(found.covariance[0, 0]) < 0.0006
    lost = estimator.estimate(image, view, camera_covariance=400 * certain)
    assert not lost.visible and not lost.occluded and 'camera' in lost.reason


def test_a_right_hint_gives_the_same_answer(estimator):
    view = camera()
    pose = (0.31, 0.04, -1.0)
    image = drawn(view, pose)
    hinted = estimator.estimate(image, view, near=np.add(pose, (0.003, -0.003, 0.05)))
    np.testing.assert_allclose(hinted.pose, estimator.estimate(image, view).pose, atol=2e-4)


def test_noise_does_not_move_it(estimator):
    view = camera()
    pose = (0.35, -0.05, 0.4)
    noise = np.random.default_rng(6).normal(0, 8, (view.height, view.width, 3))
    image = np.clip(drawn(view, pose) + noise, 0, 255).astype(np.uint8)
    found = estimator.estimate(image, view)
    assert found.visible and errors(found, pose)[0] < 0.002


def test_a_part_outside_of_the_image_is_no_edge(estimator):
    view = camera()
    edge = view.back_project_to_plane([[view.width - 1, view.height / 2]], ITEM.face_height)[0]
    pose = (edge[0], edge[1], 1.2)
    found = estimator.estimate(drawn(view, pose), view)
    if found.visible:
        assert errors(found, pose)[0] < 0.005
    assert found.visible_fraction < 0.9


def test_an_image_of_the_wrong_size_is_refused(estimator):
    with pytest.raises(ValueError, match=r'\(480, 640, 3\)'):
        estimator.estimate(np.zeros((240, 320, 3), np.uint8), camera())


def test_it_is_fast_enough_for_every_frame(estimator):
    view = camera()
    image = drawn(view, (0.33, 0.0, 0.7))
    took = []
    for _ in range(15):
        started = time.perf_counter()
        estimator.estimate(image, view)
        took.append(time.perf_counter() - started)
    assert min(took) < 0.012        # 4 ms on the development machine; this one may be busy


def test_boundary_points_lie_between_pixels():
    mask = np.zeros((10, 12), np.uint8)
    mask[3:7, 2:9] = 255        # its edges: u 1.5 to 8.5, v 2.5 to 6.5
    points = boundary_points(mask)
    assert points.min(axis=0).tolist() == [1.5, 2.5] and points.max(axis=0).tolist() == [8.5, 6.5]
    assert len(points) == 2 * (4 + 7)


def test_signed_distance_of_a_reflex_corner():
    outline = Outline(ITEM.outline)
    points = np.array([(0.0, 0.03), (0.0, -0.1), (0.08, 0.06), (0.02, 0.0)])
    distance, gradient, _ = outline.signed_distance(points)
    np.testing.assert_allclose(distance, [-0.0175, 0.0075, math.hypot(0.01, 0.0125), 0.0025], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(gradient, axis=1), 1.0)
    assert outline.area == pytest.approx(0.140 * 0.035 + 0.035 * 0.105)


def test_a_hue_range_may_wrap():
    import dataclasses
    image = np.array([[[220, 15, 18], [220, 18, 15], [15, 220, 18]]], np.uint8)     # hues 179, 0, 60
    wrapping = dataclasses.replace(ITEM, hue=(170, 10))
    assert color_mask(image, wrapping).tolist() == [[255, 255, 0]]


def test_the_overlay_marks_outline_and_goal(estimator):
    view = camera()
    image = drawn(view, (0.30, -0.04, 2.0))
    look = Look({ITEM.name: estimator.estimate(image, view)}, view, np.array([(300.0, 200.0)]))
    overlay = draw_look(image, look, [ITEM], TASK.goal)
    assert overlay.shape == image.shape and not np.array_equal(overlay, image)
    assert np.array_equal(image, drawn(view, (0.30, -0.04, 2.0)))     # the original is left alone
