"""Pinhole cameras: what they compute is what the renderer draws."""

import dataclasses

import numpy as np
import pytest

from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.randomization import RandomizationRanges
from enpire_bringup.world import Renderer, World, WorldError


@pytest.fixture(scope='module')
def task(task):
    """Without variation: the cameras stand where the station file says."""
    return dataclasses.replace(task, randomization=RandomizationRanges())


@pytest.fixture(scope='module')
def world(station, task):
    return World(station, task)


@pytest.fixture(scope='module')
def renderer(station, task):
    renderer = Renderer(station, task)
    yield renderer
    renderer.close()


def blue_pixels(image):
    red, green, blue = image[..., 0].astype(int), image[..., 1].astype(int), image[..., 2].astype(int)
    return np.argwhere((blue > 60) & (blue > 2 * red) & (blue > 2 * green))[:, ::-1]


def handle_points(x, y, yaw):
    """Points (n, 3) densely on the surface of the T's blue handle, in world."""
    line = np.linspace(-1, 1, 41)
    u, v = (grid.ravel() for grid in np.meshgrid(line, line))
    one = np.ones_like(u)
    faces = [np.column_stack(columns) for columns in (
        (u, v, one), (one, u, v), (-one, u, v), (u, one, v), (u, -one, v))]
    local = np.vstack(faces) * [0.010, 0.010, 0.015]
    c, s = np.cos(yaw), np.sin(yaw)
    return np.column_stack([x + c * local[:, 0] - s * local[:, 1], y + s * local[:, 0] + c * local[:, 1],
                            0.045 + local[:, 2]])


@pytest.mark.parametrize('pose', [(0.30, 0.0, 0.0), (0.40, -0.12, 0.7), (0.22, 0.15, 2.0)])
def test_projected_points_are_where_the_renderer_draws_them(station, world, renderer, pose):
    world.reset(0)
    world.set_object_pose('t_block', *pose)
    pixels = blue_pixels(renderer.render('top', world.state()))
    projected = PinholeCamera.from_station(station.cameras['top']).project(handle_points(*pose))
    assert len(pixels) > 50
    # A pixel is drawn when its center is inside: the drawn box ends up to a pixel before the true one.
    assert pixels.min(axis=0) == pytest.approx(projected.min(axis=0), abs=1.0)
    assert pixels.max(axis=0) == pytest.approx(projected.max(axis=0), abs=1.0)
    center = (pixels.min(axis=0) + pixels.max(axis=0)) / 2
    assert center == pytest.approx((projected.min(axis=0) + projected.max(axis=0)) / 2, abs=0.75)


def test_a_wrist_camera_sees_where_its_link_is(station, world, renderer):
    world.reset(0)
    world.set_object_pose('t_block', 0.62, 0.10, 0.0)
    state = world.state()
    camera = PinholeCamera.from_station(station.cameras['left_wrist']).at(world.frame_pose('left_link6'))
    pixels = blue_pixels(renderer.render('left_wrist', state))
    projected = camera.project(handle_points(0.62, 0.10, 0.0))
    assert pixels.mean(axis=0) == pytest.approx((projected.min(axis=0) + projected.max(axis=0)) / 2, abs=3.0)


@pytest.mark.parametrize('arm', ['left', 'right'])
def test_a_wrist_camera_sees_its_own_fingertips(station, world, renderer, arm):
    world.reset(0)
    name = f'{arm}_wrist'
    image = renderer.render(name, world.state())
    camera = PinholeCamera.from_station(station.cameras[name]).at(world.frame_pose(f'{arm}_link6'))
    tip = world.frame_pose(f'{arm}_tcp')
    u, v = camera.project([tip[:3, 3] - 0.01 * tip[:3, 0] + 0.010 * tip[:3, 2]])[0].round().astype(int)
    assert image[v, u].max() < 60, 'the black finger covers its own tip'


def test_a_second_renderer_does_not_disturb_the_first(station, task, world):
    first = Renderer(station, task)
    before = first.render('top', world.state())
    second = Renderer(station.with_camera_size(320, 240), task)
    assert np.array_equal(first.render('top', world.state()), before)
    small = second.render('top', world.state())
    del first
    assert np.array_equal(second.render('top', world.state()), small)
    second.close()


def test_back_projection_undoes_projection(station):
    camera = PinholeCamera.from_station(station.cameras['top'])
    points = np.random.default_rng(0).uniform((0.1, -0.3, 0.03), (0.5, 0.3, 0.03), (50, 3))
    again = camera.back_project_to_plane(camera.project(points), 0.03)
    assert again == pytest.approx(points[:, :2], abs=1e-9)


def test_plane_shifts_are_how_back_projected_points_move_with_the_camera(station):
    camera = PinholeCamera.from_station(station.cameras['top'])
    points = np.array([(0.2, -0.2, 0.03), (0.45, 0.1, 0.03), (0.33, 0.0, 0.03)])
    pixels = camera.project(points)
    for axis, predicted in enumerate(camera.plane_shifts(points).transpose(2, 0, 1)):
        pose, small = camera.pose.copy(), 1e-5
        if axis < 3:
            pose[axis, 3] += small
        else:
            vector = np.zeros(3)
            vector[axis - 3] = small
            skew = np.cross(np.eye(3), vector)
            pose[:3, :3] = (np.eye(3) + skew) @ pose[:3, :3]
        moved = dataclasses.replace(camera, pose=pose).back_project_to_plane(pixels, 0.03)
        np.testing.assert_allclose((moved - points[:, :2]) / small, predicted, atol=1e-3)


def test_rays_that_miss_and_points_behind_give_nan(station):
    camera = PinholeCamera.from_station(station.cameras['top'])
    behind = camera.pose[:3, 3] - camera.pose[:3, 2]
    assert np.isnan(camera.project([behind])).all()
    assert np.isnan(camera.back_project_to_plane([[camera.cx, camera.cy]], 5.0)).all(), 'above the camera'


def test_camera_info_carries_the_whole_camera(station):
    camera = PinholeCamera.from_station(station.cameras['top'])
    info = camera.info()
    again = PinholeCamera.from_info(info['width'], info['height'], info['k'], camera.pose)
    points = np.array([[0.3, 0.1, 0.0], [0.4, -0.1, 0.05]])
    assert again.project(points) == pytest.approx(camera.project(points))
    with pytest.raises(ValueError, match='not calibrated'):
        PinholeCamera.from_info(640, 480, [0.0] * 9, camera.pose)


def test_the_optical_frame_looks_along_z_with_y_down(station):
    camera = PinholeCamera.from_station(station.cameras['top'])
    assert camera.project([station.cameras['top'].look_at]) == pytest.approx(np.array([[319.5, 239.5]]))
    assert camera.pose[2, 1] < 0, 'y of the image points down in the world'


def test_every_part_of_the_start_region_is_in_view_of_the_tasks_camera(station, task):
    camera = PinholeCamera.from_station(station.cameras['top'])
    reach = np.hypot(*np.array(task.objects['t_block'].outline).T).max()
    corners = [(x + dx, y + dy, 0.03) for x in task.start.x for y in task.start.y
               for dx in (-reach, reach) for dy in (-reach, reach)]
    pixels = camera.project(corners)
    assert (pixels > 5).all() and (pixels < (camera.width - 6, camera.height - 6)).all()


def test_only_the_blocks_face_is_red(station, task, world, renderer):
    cv2 = pytest.importorskip('cv2')
    world.reset(0)
    x, y, yaw = 0.33, 0.0, 0.7
    world.set_object_pose('t_block', x, y, yaw)
    item = task.objects['t_block']
    hsv = cv2.cvtColor(renderer.render('top', world.state()), cv2.COLOR_RGB2HSV)
    mask = np.all([(hsv[..., i] >= low) & (hsv[..., i] <= high)
                   for i, (low, high) in enumerate((item.hue, item.saturation, item.value))], axis=0)
    c, s = np.cos(yaw), np.sin(yaw)
    outline = np.array(item.outline) @ np.array([[c, s], [-s, c]]) + (x, y)
    camera = PinholeCamera.from_station(station.cameras['top'])
    polygon = camera.project(np.column_stack([outline, np.full(len(outline), item.face_height)]))
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(drawn, [np.round(polygon).astype(np.int32)], 1)
    near = cv2.dilate(drawn, np.ones((5, 5), np.uint8)).astype(bool)
    assert not (mask & ~near).any(), 'red outside of the face'
    assert mask.sum() > 0.8 * drawn.sum()


def test_images_have_the_size_of_the_station_file_or_its_override(station, task, world):
    small = Renderer(station.with_camera_size(320, 240), task)
    image = small.render('top', world.state())
    small.close()
    assert image.shape == (240, 320, 3) and image.dtype == np.uint8
    assert image.std() > 10, 'a picture, not a plain color'


def test_an_unknown_camera_or_a_missing_opengl_is_said(station, task, world, renderer, monkeypatch):
    with pytest.raises(WorldError, match="no camera 'side'; known: top, left_wrist, right_wrist"):
        renderer.render('side', world.state())
    monkeypatch.setattr('enpire_bringup.world._CONTEXTS', {'osmesa': 'no_module', 'egl': 'no_module'})
    monkeypatch.delenv('MUJOCO_GL', raising=False)
    with pytest.raises(WorldError, match='no off-screen OpenGL .* apt-get install -y libosmesa6'):
        Renderer(station, task)


def test_a_camera_without_a_view_is_an_error(station):
    camera = dataclasses.replace(station.cameras['top'], up=(0.0, 0.0, 0.0))
    with pytest.raises(ConfigurationError, match='camera top: look_at'):
        PinholeCamera.from_station(camera)
