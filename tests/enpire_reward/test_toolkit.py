"""Every part of the toolkit, on images that are drawn here."""

import math
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import enpire_reward.toolkit as toolkit
from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.station import load_station
from enpire_reward.toolkit import (
    EffortBaseline, StillnessTracker, changed_share, color_mask, coverage, find_contours, force_from_torques, gray_mask,
    grip_force, height_in, height_map, intersection_area, largest_contour, mask_share, on_table, placed, polygon_area,
    polygon_mask, pose_of_contour, to_pixels, without_specks)

RED, GREEN, GRAY = (220, 18, 15), (40, 190, 60), (120, 120, 120)
T = [(-0.070, 0.0125), (-0.0175, 0.0125), (-0.0175, -0.0925), (0.0175, -0.0925), (0.0175, 0.0125), (0.070, 0.0125),
     (0.070, 0.0475), (-0.070, 0.0475)]


def picture(*shapes, size=(120, 160)):
    """Filled polygons of pixels, (corners, color) each, on a gray table."""
    image = np.full((*size, 3), GRAY, np.uint8)
    for corners, color in shapes:
        cv2.fillPoly(image, [np.array(corners, np.int32)], color)
    return image


def rectangle(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


# ---- masks

def test_a_color_is_found_and_no_other():
    image = picture((rectangle(10, 20, 29, 39), RED), (rectangle(60, 60, 79, 79), GREEN))
    red, green = color_mask(image, (170, 10)), color_mask(image, (50, 70))
    assert cv2.countNonZero(red) == cv2.countNonZero(green) == 400
    assert red[30, 20] == 255 and green[30, 20] == 0 and green[70, 70] == 255


def test_brightness_is_found_in_color_and_gray_images():
    image = picture((rectangle(0, 0, 9, 9), (250, 250, 250)), (rectangle(20, 0, 29, 9), (5, 5, 5)))
    assert cv2.countNonZero(gray_mask(image, low=200)) == cv2.countNonZero(gray_mask(image, high=50)) == 100
    assert np.array_equal(gray_mask(image[..., 0], high=50), gray_mask(image, high=50))


def test_specks_go_and_parts_stay():
    mask = color_mask(picture((rectangle(10, 10, 19, 19), RED), (rectangle(50, 50, 51, 51), RED)), (170, 10))
    kept = without_specks(mask, 20)
    assert cv2.countNonZero(kept) == 100 and kept[50, 50] == 0
    assert cv2.countNonZero(without_specks(mask, 101)) == 0
    assert cv2.countNonZero(without_specks(np.zeros((5, 5), np.uint8), 1)) == 0


def test_a_share_of_a_region():
    red = color_mask(picture((rectangle(0, 0, 49, 119), RED)), (170, 10))
    region = polygon_mask(red.shape, rectangle(25, 10, 74, 59))
    assert mask_share(red, region) == pytest.approx(0.5, abs=0.02)
    assert mask_share(red, np.zeros_like(red)) == 0.0


# ---- contours

def test_parts_come_with_area_center_and_corners_the_largest_first():
    mask = color_mask(picture((rectangle(10, 10, 29, 19), RED), (rectangle(60, 40, 99, 79), RED)), (170, 10))
    first, second = find_contours(mask)
    assert (first.area, second.area) == (1600, 200)
    assert first.center == pytest.approx((79.5, 59.5)) and second.box == (10, 10, 20, 10)
    corners = first.polygon()
    assert sorted(map(tuple, corners.round().astype(int).tolist())) == [(60, 40), (60, 79), (99, 40), (99, 79)]
    assert [part.area for part in find_contours(mask, area=500)] == [1600]


def test_the_largest_part_may_be_none():
    assert largest_contour(np.zeros((10, 10), np.uint8)) is None


def test_a_hole_is_in_the_outline_but_not_in_the_area():
    mask = polygon_mask((60, 60), rectangle(10, 10, 49, 49))
    mask[20:30, 20:30] = 0
    part = largest_contour(mask)
    assert part.area == 1500 and cv2.contourArea(part.points.astype(np.float32)) == 39 * 39


# ---- poses

@pytest.mark.parametrize('angle', [-1.2, -0.3, 0.0, 0.8, 1.5])
def test_a_drawn_bar_has_its_middle_and_direction(angle):
    c, s = math.cos(angle), math.sin(angle)
    bar = np.array([(-40, -8), (40, -8), (40, 8), (-40, 8)]) @ np.array([[c, s], [-s, c]]) + (80, 60)
    mask = color_mask(picture((bar.round(), RED)), (170, 10))
    x, y, yaw = pose_of_contour(largest_contour(mask).points)
    assert (x, y) == pytest.approx((80, 60), abs=0.7)
    assert math.remainder(yaw - angle, math.pi) == pytest.approx(0, abs=0.02)


def test_a_square_has_no_direction_and_a_line_no_pose():
    assert pose_of_contour(rectangle(10, 10, 20, 20)) == pytest.approx((15, 15, 0))
    assert pose_of_contour(rectangle(10, 10, 20, 20)[::-1]) == pytest.approx((15, 15, 0))
    with pytest.raises(ValueError, match='without area'):
        pose_of_contour([(0, 0), (1, 1), (2, 2)])


def test_a_placed_polygon_is_turned_about_its_origin():
    corners = placed([(0.1, 0.0), (0.0, 0.2)], (1.0, 2.0, math.pi / 2))
    np.testing.assert_allclose(corners, [(1.0, 2.1), (0.8, 2.0)], atol=1e-12)


# ---- overlaps

def test_a_t_covers_itself_and_half_of_a_square_is_half():
    assert polygon_area(T) == pytest.approx(0.140 * 0.035 + 0.035 * 0.105)
    assert polygon_area(T[::-1]) == pytest.approx(polygon_area(T))
    assert coverage(T, T) == pytest.approx(1.0)
    assert coverage(rectangle(0, 0, 1, 1), rectangle(0.5, 0, 1.5, 1)) == pytest.approx(0.5)
    assert coverage(rectangle(0, 0, 1, 1), rectangle(2, 0, 3, 1)) == 0.0


@pytest.mark.parametrize('pose', [(0.01, 0.0, 0.0), (0.0, -0.02, 0.4), (0.03, 0.03, 2.0), (0.0, -0.045, math.pi)])
def test_a_moved_t_covers_as_much_as_drawing_says(pose):
    """Two T's drawn with 0.1 mm a pixel, and the pixels that are in both counted."""
    masks = [polygon_mask((3000, 3000), 10_000 * shape + 1500) for shape in (np.array(T), placed(T, pose))]
    drawn = cv2.countNonZero(cv2.bitwise_and(*masks)) / cv2.countNonZero(masks[0])
    assert coverage(placed(T, pose), T) == pytest.approx(drawn, abs=0.003)


def test_a_polygon_needs_three_corners():
    with pytest.raises(ValueError, match=r'shape \(2, 2\); expected'):
        intersection_area([(0, 0), (1, 1)], T)


# ---- places and heights

@pytest.fixture(scope='module')
def view():
    return PinholeCamera.from_station(load_station('yam_bimanual_sim').cameras['top'])


def test_pixels_and_places_belong_together(view):
    k = view.info()['k']
    points = np.array([(0.2, -0.1, 0.03), (0.4, 0.15, 0.03)])
    pixels = to_pixels(points, k, view.pose)
    np.testing.assert_allclose(pixels, view.project(points), atol=1e-9)
    np.testing.assert_allclose(on_table(pixels, k, view.pose, height=0.03), points[:, :2], atol=1e-9)
    assert np.isnan(on_table(pixels, k, view.pose, height=5.0)).all()
    assert np.isnan(to_pixels([view.pose[:3, 3] - view.pose[:3, 2]], k, view.pose)).all()


def test_heights_of_a_drawn_block(view):
    """A depth image of the table with a block's top, 40 mm high, of which one pixel was not measured."""
    rows, columns = np.indices((view.height, view.width))
    pixels = np.column_stack([columns.ravel(), rows.ravel()])
    block = polygon_mask((view.height, view.width),
                         view.project([(*corner, 0.04) for corner in rectangle(0.30, -0.05, 0.40, 0.05)]))
    depth = np.zeros((view.height, view.width), np.float32)
    for height, where in ((0.0, block == 0), (0.04, block > 0)):
        points = view.back_project_to_plane(pixels, height)
        distances = (np.column_stack([points, np.full(len(points), height)]) - view.pose[:3, 3]) @ view.pose[:3, 2]
        depth[where] = distances.reshape(depth.shape)[where]
    v, u = np.argwhere(block)[50]
    depth[v, u] = 0.0
    measured = height_map(depth, view.info()['k'], view.pose)
    assert np.isnan(measured[v, u])
    assert height_in(measured, block) == pytest.approx(0.04, abs=1e-4)
    seen = np.isfinite(depth) & (depth > 0) & (block == 0)
    assert height_in(measured, np.uint8(seen), percentile=99) == pytest.approx(0.0, abs=1e-4)
    assert math.isnan(height_in(measured, np.zeros_like(block)))


# ---- forces

def test_the_force_of_a_grip():
    assert grip_force({'left_finger_joint': -12.5}, 'left_finger_joint') == 12.5
    assert math.isnan(grip_force({}, 'left_finger_joint'))


def test_a_push_stands_out_of_what_was_there_before():
    baseline = EffortBaseline(samples=10)
    for _ in range(10):
        assert baseline.update({'joint1': 3.0}) == {'joint1': 0.0}
    assert baseline.update({'joint1': 4.5}) == {'joint1': 1.5}
    for _ in range(10):
        changes = baseline.update({'joint1': 4.5})
    assert changes == {'joint1': 0.0}       # by now it is what was there before
    assert math.isnan(baseline.update({'joint1': math.nan})['joint1'])
    assert baseline.update({'joint1': 4.5}) == {'joint1': 0.0}


def test_a_force_is_found_from_torques():
    """An arm of two links, 0.3 and 0.2 m, stretched along x and bent up."""
    jacobian = np.array([(0.0, -0.2), (0.3, 0.0), (0.0, 0.0)])
    force = np.array([2.0, -5.0, 0.0])
    np.testing.assert_allclose(force_from_torques(jacobian, jacobian.T @ force), force, atol=1e-9)
    np.testing.assert_allclose(force_from_torques(jacobian, [0.0, 0.0]), 0.0)


# ---- stillness

def test_how_much_of_a_picture_changed():
    before = picture((rectangle(0, 0, 9, 119), RED))
    after = picture((rectangle(10, 0, 19, 119), RED))
    assert changed_share(before, before) == 0.0
    assert changed_share(before, after) == pytest.approx(20 / 160)
    assert changed_share(before[..., 0], after[..., 0]) == pytest.approx(20 / 160)
    with pytest.raises(ValueError, match='expected the same'):
        changed_share(before, after[:-1])


def test_what_lies_for_long_stays_still_and_what_nobody_saw_does_not():
    tracker = StillnessTracker()
    still = [tracker.update(frame / 30, (0.3, 0.1, math.pi if frame % 2 else -math.pi)) for frame in range(4000)]
    assert all(later > 30.0 for later in still[1000:])
    assert tracker.update(4000 / 30, (math.nan, 0.1, 0.0)) == 0.0
    assert tracker.update(4001 / 30, (0.3, 0.1, math.pi)) == 0.0
    assert tracker.update(4002 / 30, (0.3, 0.1, math.pi)) == pytest.approx(1 / 30, abs=1e-5)
    assert tracker.update(4040 / 30, (0.3, 0.1, math.pi)) == 0.0


def test_a_drawn_thing_that_stops_becomes_still():
    """A square slides to the right for ten frames, then rests."""
    tracker = StillnessTracker(position=1.0, yaw=0.1)       # pixels here
    still = []
    for frame in range(25):
        left = 20 + 4 * min(frame, 10)
        mask = color_mask(picture((rectangle(left, 40, left + 19, 59), RED)), (170, 10))
        still.append(tracker.update(frame / 30, pose_of_contour(largest_contour(mask).points)))
    assert max(still[:11]) == 0.0 and still[-1] == pytest.approx(14 / 30, abs=1e-5)


# ---- the package

def test_every_name_is_there_and_a_wrong_one_is_said():
    for name in toolkit.__all__:
        assert callable(getattr(toolkit, name)), name
    with pytest.raises(AttributeError, match="no 'color_masks'; it has .*color_mask"):
        toolkit.color_masks


def test_a_program_that_needs_no_images_does_not_load_opencv():
    code = ('import sys; from enpire_reward.toolkit import StillnessTracker, abstain, check, coverage, judged; '
            "sys.exit('cv2' in sys.modules)")
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def _examples():
    page = Path(__file__).parents[2] / 'docs' / 'reward_toolkit.md'
    return re.findall(r'```python\n(.*?)```', page.read_text(encoding='utf-8'), flags=re.DOTALL)


@pytest.mark.parametrize('example', _examples(), ids=lambda text: text.splitlines()[-1][:40])
def test_the_examples_of_the_page_run(example):
    exec(compile(example, 'docs/reward_toolkit.md', 'exec'), {})


def test_the_page_shows_every_part():
    page = '\n'.join(_examples())
    assert [name for name in toolkit.__all__ if name not in page and name not in ('Contour', 'angle_difference')] == []
