"""Worlds differ by their seed, in what the task says and within its bounds, and images show it."""

from dataclasses import replace

import numpy as np
import pytest

from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.randomization import CLIP, RandomizationRanges, WorldVariation
from enpire_bringup.world import Renderer, World

RANGES = RandomizationRanges(mass=0.3, friction=0.4, brightness=0.2, tint=0.1, light_tilt=0.1,
                             camera_position=0.003, camera_rotation=0.01)


@pytest.fixture(scope='module')
def varied(task):
    return replace(task, randomization=RANGES)


@pytest.fixture(scope='module')
def plain(task):
    return replace(task, randomization=RandomizationRanges())


@pytest.fixture(scope='module')
def renderer(station, task):
    drawing = Renderer(station.with_camera_size(160, 120), task)
    yield drawing
    drawing.close()


def test_a_seed_gives_the_same_world_bit_for_bit_and_another_seed_another_one(station, varied):
    worlds = [World(station, varied) for _ in range(2)]
    worlds[0].reset(8)
    for world in worlds:
        world.reset(3)
        for _ in range(50):
            world.step({'left_joint1': 0.3})
    assert worlds[0].state().tobytes() == worlds[1].state().tobytes()
    assert np.array_equal(worlds[0].model.body_mass, worlds[1].model.body_mass)
    masses = set()
    for seed in range(5):
        worlds[0].reset(seed)
        masses.add(float(worlds[0].model.body('t_block').mass[0]))
    assert len(masses) == 5


def test_draws_stay_within_what_the_task_says():
    draws = [WorldVariation.draw(RANGES, 2, [True, False], seed) for seed in range(300)]

    def values(name):
        return np.array([getattr(draw, name) for draw in draws])

    assert 0.7 <= values('mass').min() < 0.75 and 1.25 < values('mass').max() <= 1.3
    assert 0.6 <= values('friction').min() and values('friction').max() <= 1.4
    assert 0.8 * 0.9 <= values('light').min() and values('light').max() <= 1.2 * 1.1
    offsets = values('camera_offset')
    assert np.abs(offsets).max() <= CLIP * 0.003 and 0.0025 < offsets[:, 0].std() < 0.0035
    assert not offsets[:, 1].any(), 'a camera on an arm sits in its housing'
    assert np.abs(values('camera_rotation')).max() <= CLIP * 0.01


def test_a_variation_is_read_back_from_its_vector():
    drawn = WorldVariation.draw(RANGES, 2, [True, True, False], 5)
    vector = drawn.vector()
    assert vector.shape == (WorldVariation.size(2, 3),)
    again = WorldVariation.from_vector(vector, 2, 3)
    assert np.array_equal(again.vector(), vector) and np.array_equal(again.camera_rotation, drawn.camera_rotation)


def test_without_randomization_masses_and_cameras_are_those_of_the_files(station, plain, varied):
    world, other = World(station, plain), World(station, varied)
    before = {name: getattr(world.model, name).copy() for name in ('body_mass', 'cam_pos', 'light_diffuse')}
    other.reset(3)
    world.set_state(other.state())
    assert world.model.body('t_block').mass != pytest.approx(0.25)
    world.reset(3)
    for name, value in before.items():
        assert np.array_equal(getattr(world.model, name), value)
    assert world.model.body('t_block').mass == pytest.approx(0.25)


def test_a_heavier_block_with_more_friction_needs_more_force(station, plain):
    world = World(station, plain)
    nominal = WorldVariation.nominal(1, len(station.cameras))
    decelerations = []
    for factor in (0.5, 2.0):
        state = world.state()
        state[-len(nominal.vector()):] = replace(nominal, friction=np.array([factor])).vector()
        world.set_state(state)
        world.set_object_pose('t_block', 0.35, 0.0, 0.0)
        dof = world.model.joint('t_block').dofadr[0]
        world._data.qvel[dof] = 0.5
        for _ in range(5):
            world.step({})
        decelerations.append((0.5 - world._data.qvel[dof]) / 0.05)
    # The scene's friction of 0.35 times g, and its double or half.
    assert decelerations == pytest.approx([0.5 * 0.35 * 9.81, 2 * 0.35 * 9.81], rel=0.15)


def test_images_show_light_and_cameras_of_the_state(station, plain, renderer):
    world = World(station, plain)
    nominal = WorldVariation.nominal(1, len(station.cameras))

    def image(variation):
        state = world.state()
        state[-len(nominal.vector()):] = variation.vector()
        return renderer.render('top', state).astype(float)

    usual = image(nominal)
    assert image(replace(nominal, light=np.array([0.7, 0.7, 0.7]))).mean() < 0.85 * usual.mean()
    turned = np.zeros((len(station.cameras), 3))
    turned[0, 2] = 0.3
    assert np.abs(image(replace(nominal, camera_rotation=turned)) - usual).mean() > 3
    assert np.array_equal(image(nominal), usual), 'the renderer comes back to the nominal world'


def test_depth_is_the_distance_along_the_view_and_fits_the_image(station, plain, renderer):
    world = World(station, plain)
    camera = PinholeCamera.from_station(station.with_camera_size(160, 120).cameras['top'])
    state = world.state()
    depth = renderer.render_depth('top', state)
    assert depth.shape == (120, 160) and depth.dtype == np.float32
    # What the ray of a pixel meets at its depth: the table, where nothing lies on it.
    pixels = np.array([[80, 110], [140, 100], [20, 100]])
    rays = np.column_stack([(pixels[:, 0] - camera.cx) / camera.fx, (pixels[:, 1] - camera.cy) / camera.fy, np.ones(3)])
    points = camera.pose[:3, 3] + (rays * depth[pixels[:, 1], pixels[:, 0], None]) @ camera.pose[:3, :3].T
    assert points[:, 2] == pytest.approx(0.0, abs=2e-3)
    color, same = renderer.look('top', state, color=True, depth=True)
    assert np.array_equal(same, depth) and np.array_equal(color, renderer.render('top', state))
