"""The shapes that RViz and the browser draw of a station."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from enpire_bringup.guard import guard_limits
from enpire_bringup.station_markers_node import marker_message
from enpire_bringup.station_scene import (NOT_SEEN, SEEN, Box, box_edges, ellipse, fixed_shapes, guard_label,
                                          object_shapes, placed, verdict_label)


def named(shapes):
    return {shape.name: shape for shape in shapes}


def test_the_box_drawn_is_the_workspace_that_the_guard_enforces(station, task):
    limits = guard_limits(station, task)
    points = named(fixed_shapes(station, task))['workspace'].points.reshape(-1, 3)
    assert np.allclose(points.min(axis=0), limits.workspace_low) and np.allclose(points.max(axis=0), limits.workspace_high)


def test_a_task_that_tightens_the_workspace_is_drawn_smaller(station, task):
    tighter = replace(task, limits={**task.limits, 'workspace.x.high': 0.5})
    points = named(fixed_shapes(station, tighter))['workspace'].points.reshape(-1, 3)
    assert points[:, 0].max() == 0.5


def test_a_box_has_twelve_edges_along_the_axes():
    edges = box_edges(np.zeros(3), np.array([1.0, 2.0, 3.0]))
    lengths = np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1)
    assert sorted(lengths.tolist()) == [1.0] * 4 + [2.0] * 4 + [3.0] * 4


def test_the_goal_lies_where_the_task_says(station, task):
    item = task.objects[task.goal.object]
    points = named(fixed_shapes(station, task))['goal'].points[:, 0]
    assert np.allclose(points[:, :2], placed(item, (task.goal.x, task.goal.y, task.goal.yaw)))
    assert np.all(points[:, 2] == item.face_height)


def test_an_object_is_drawn_at_its_pose_with_what_perception_is_sure_of(task):
    item = task.objects[task.goal.object]
    pose = np.array([0.3, -0.1, math.pi / 2])
    shapes = named(object_shapes(item, pose, np.diag([4e-6, 1e-6, 1e-4]), True))
    outline = shapes[f'object {item.name}'].points[:, 0, :2]
    assert np.allclose(outline[0], [0.3 - item.outline[0][1], -0.1 + item.outline[0][0]])
    assert shapes[f'object {item.name}'].color == SEEN
    ring = shapes[f'covariance {item.name}'].points[:, 0, :2] - pose[:2]
    assert np.isclose(np.abs(ring[:, 0]).max(), 0.006) and np.isclose(np.abs(ring[:, 1]).max(), 0.003)


def test_an_object_not_seen_is_drawn_where_it_was_last_without_certainty(task):
    item = task.objects[task.goal.object]
    shapes = object_shapes(item, np.array([0.3, 0.0, 0.0]), np.full((3, 3), np.nan), False)
    assert [shape.color for shape in shapes] == [NOT_SEEN]
    assert object_shapes(item, np.full(3, np.nan), np.full((3, 3), np.nan), False) == []


def test_a_broken_covariance_is_no_error():
    assert np.all(np.isfinite(ellipse((0, 0), np.diag([-1e-9, 1e-6]))))


def test_labels_say_outcome_and_reason_and_do_not_cover_each_other(station, task):
    verdict = verdict_label(station, task, 'not_yet', 'position is 0.08 m, limit 0.01 m')
    guard = guard_label(station, task, 'error', 'left: joint2 too fast')
    assert verdict.text == 'NOT YET: position is 0.08 m, limit 0.01 m'
    assert guard.text == 'guard holds: left: joint2 too fast'
    assert abs(verdict.position[2] - guard.position[2]) > verdict.height


def test_every_shape_becomes_a_marker_in_world(station, task):
    item = task.objects[task.goal.object]
    shapes = [*fixed_shapes(station, task), *object_shapes(item, np.array([0.3, 0, 0.5]), np.eye(3) * 1e-6, True),
              verdict_label(station, task, 'success', ''), guard_label(station, task, 'ok', 'ok')]
    markers = [marker_message(shape) for shape in shapes]
    assert len({marker.ns for marker in markers}) == len(shapes)
    for marker, shape in zip(markers, shapes):
        assert marker.header.frame_id == 'world' and marker.color.a > 0
        assert (marker.scale.x > 0) or marker.text
        if isinstance(shape, Box):
            assert np.allclose([marker.scale.x, marker.scale.y, marker.scale.z], shape.size)
