"""Planar geometry of skills."""

import math

import numpy as np
import pytest

from enpire_reset.geometry import boundary, extent, pose_error, tool_pose, tool_yaw, turned, wrap

# A T: bar 140 x 35 mm, stem 35 x 105 mm below it.
T = [[-0.070, 0.0125], [-0.0175, 0.0125], [-0.0175, -0.0925], [0.0175, -0.0925],
     [0.0175, 0.0125], [0.070, 0.0125], [0.070, 0.0475], [-0.070, 0.0475]]


def test_angles_wrap():
    assert wrap(3 * math.pi / 2) == pytest.approx(-math.pi / 2)
    assert pose_error((0.0, 0.0, math.pi - 0.01), (0.03, 0.04, -math.pi + 0.01)) == pytest.approx((0.05, 0.02))


def test_extent_is_the_farthest_corner_and_boundary_where_the_polygon_ends():
    assert extent(T, 0.0, 0.0) == pytest.approx(0.070) and boundary(T, 0.0, 0.0) == pytest.approx(0.0175)
    assert extent(T, 0.0, -math.pi / 2) == boundary(T, 0.0, -math.pi / 2) == pytest.approx(0.0925)
    assert boundary(T, 1.0, 1.0 + math.pi / 2) == pytest.approx(0.0475)


@pytest.mark.parametrize('yaw', [-2.0, 0.0, 1.2])
def test_tool_pose_has_the_yaw_it_was_made_of(yaw):
    assert tool_yaw(tool_pose(0.3, 0.1, 0.05, yaw, lean=0.4)) == pytest.approx(yaw)
    assert turned(tool_pose(0.3, 0.1, 0.05, 0.2), yaw) == pytest.approx(tool_pose(0.3, 0.1, 0.05, 0.2 + yaw))


def test_leaning_tool_points_outward_until_it_is_level():
    assert tool_pose(0.3, 0.0, 0.05, 0.0, lean=0.3)[:3, 0] == pytest.approx([math.sin(0.3), 0.0, -math.cos(0.3)])
    level = tool_pose(0.3, 0.0, 0.05, math.pi / 2, lean=math.pi / 2)
    assert level[:3, 0] == pytest.approx([0.0, 1.0, 0.0]) and np.linalg.det(level[:3, :3]) == pytest.approx(1.0)
