"""The pose of a camera that was nudged, from drawn images of the landmarks."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.extrinsic_refinement import MIN_SEEN, ExtrinsicRefinement

SCALE = 4       # drawn this much larger, then the middles of the pixels are taken


@pytest.fixture(scope='module')
def calibrated(station):
    return PinholeCamera.from_station(station.cameras['top'])


@pytest.fixture(scope='module')
def refinement(task):
    return ExtrinsicRefinement(task.landmarks)


def nudged(camera, translation=(0, 0, 0), rotation=(0, 0, 0)) -> PinholeCamera:
    """translation m; rotation vector, degrees."""
    pose = camera.pose.copy()
    pose[:3, 3] += translation
    pose[:3, :3] = cv2.Rodrigues(np.radians(np.asarray(rotation, float)))[0] @ pose[:3, :3]
    return replace(camera, pose=pose)


def drawn(camera, landmarks, light=1.0, hidden=(), covered=(), table=120) -> np.ndarray:
    """hidden: landmarks that are not there; covered: landmarks half of which something light hides."""
    image = np.full((camera.height * SCALE, camera.width * SCALE, 3), table * light, np.float32)
    turns = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    circle = landmarks.diameter / 2 * np.column_stack([np.cos(turns), np.sin(turns)])
    square = landmarks.diameter * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    for number, center in enumerate(landmarks.positions):
        if number in hidden:
            continue
        shapes = [(square, 240), (circle, 8)]
        if number in covered:
            shapes.append((square * (0.5, 1) - (landmarks.diameter / 2, 0), 200))
        for shape, gray in shapes:
            pixels = camera.project(np.column_stack([shape + center, np.zeros(len(shape))]))
            cv2.fillPoly(image, [np.round((pixels + 0.5) * SCALE * 16).astype(np.int32)], (gray * light,) * 3, shift=4)
    return np.clip(image[SCALE // 2::SCALE, SCALE // 2::SCALE], 0, 255).astype(np.uint8)


def shift_on_the_table(found, truth, task) -> float:
    """Largest error, m, of points in the region of the task's actions that the two cameras back-project."""
    corners = np.array([(x, y, 0.03) for x in (task.action.low[0], task.action.high[0])
                        for y in (task.action.low[1], task.action.high[1])])
    return float(np.max(np.linalg.norm(found.back_project_to_plane(truth.project(corners), 0.03)
                                       - corners[:, :2], axis=1)))


def random_nudges(count, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.uniform(-0.005, 0.005, 3), rng.uniform(-0.5, 0.5, 3)) for _ in range(count)]


@pytest.mark.parametrize('size, limit, least', [((640, 480), 0.0006, 10), ((320, 240), 0.0015, 7)])
def test_a_nudged_camera_is_found(station, task, refinement, size, limit, least):
    calibrated = PinholeCamera.from_station(station.with_camera_size(*size).cameras['top'])
    for nudge in random_nudges(10):
        truth = nudged(calibrated, *nudge)
        refined = refinement.refine(drawn(truth, task.landmarks), calibrated)
        assert not refined.problem and len(refined.seen) >= least
        assert refined.count == len(task.landmarks.positions)
        assert shift_on_the_table(refined.camera, truth, task) < limit
        assert shift_on_the_table(calibrated, truth, task) > 2 * limit       # what it is good for


@pytest.mark.parametrize('light', [0.4, 0.7, 1.5])
def test_light_does_not_matter(calibrated, task, refinement, light):
    truth = nudged(calibrated, (0.003, -0.002, 0.002), (0.2, -0.3, 0.1))
    refined = refinement.refine(drawn(truth, task.landmarks, light), calibrated)
    assert len(refined.seen) == refined.count and shift_on_the_table(refined.camera, truth, task) < 0.0006


def test_hidden_and_half_hidden_landmarks_are_left_out(calibrated, task, refinement):
    truth = nudged(calibrated, (0.003, -0.002, 0.002), (0.2, -0.3, 0.1))
    refined = refinement.refine(drawn(truth, task.landmarks, hidden={0, 5}, covered={2, 7}), calibrated)
    assert len(refined.seen) == refined.count - 4 and not refined.problem
    assert shift_on_the_table(refined.camera, truth, task) < 0.001


def test_a_false_landmark_is_outvoted(calibrated, task, refinement):
    """One dot was printed 8 mm beside its place."""
    positions = list(task.landmarks.positions)
    positions[3] = (positions[3][0] + 0.008, positions[3][1])
    refined = refinement.refine(drawn(calibrated, replace(task.landmarks, positions=tuple(positions))), calibrated)
    assert len(refined.seen) == refined.count - 1
    assert shift_on_the_table(refined.camera, calibrated, task) < 0.0006


def test_too_few_landmarks_leave_the_calibrated_pose_and_its_uncertainty(calibrated, task, refinement):
    hidden = set(range(len(task.landmarks.positions) - MIN_SEEN + 1))
    refined = refinement.refine(drawn(calibrated, task.landmarks, hidden=hidden), calibrated)
    assert refined.camera is calibrated and 'only 2 of 10 landmarks are seen' in refined.problem
    assert math.sqrt(refined.covariance[0, 0]) == pytest.approx(0.005)


@pytest.mark.parametrize('nudge', [((0.0, 0.05, 0.0), (0, 0, 0)), ((0.018, 0, 0), (0, 1.4, 0)), ((0, 0, 0), (3, 0, 0))])
def test_a_camera_that_was_knocked_away_is_not_corrected(calibrated, task, refinement, nudge):
    refined = refinement.refine(drawn(nudged(calibrated, *nudge), task.landmarks), calibrated)
    assert refined.problem and refined.camera is calibrated


def test_the_covariance_is_that_of_the_errors(calibrated, task, refinement):
    squares = []
    for nudge in random_nudges(25, seed=3):
        truth = nudged(calibrated, *nudge)
        refined = refinement.refine(drawn(truth, task.landmarks), calibrated)
        turn = cv2.Rodrigues(refined.camera.pose[:3, :3] @ truth.pose[:3, :3].T)[0].ravel()
        error = np.concatenate([refined.camera.pose[:3, 3] - truth.pose[:3, 3], turn])
        squares.append(error @ np.linalg.solve(refined.covariance, error) / 6)
    assert 0.05 < np.mean(squares) < 3


def test_the_same_image_gives_the_same_camera(calibrated, task, refinement):
    """Whatever was looked at before."""
    image = drawn(nudged(calibrated, (0.002, 0, 0)), task.landmarks)
    first = refinement.refine(image, calibrated).camera.pose
    refinement.refine(drawn(nudged(calibrated, (-0.004, 0, 0)), task.landmarks), calibrated)
    np.testing.assert_array_equal(refinement.refine(image, calibrated).camera.pose, first)
