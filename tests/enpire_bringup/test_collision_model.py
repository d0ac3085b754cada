"""The collision model sees what the simulated world would feel, and lets the tool work at the table."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from enpire_bringup.collision_model import PLACES, ArmScene, Clearance, CollisionModel
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.kinematics import ArmKinematics, tool_down
from enpire_bringup.obstacles import Obstacle
from enpire_bringup.station import load_station
from enpire_bringup.world_model import build_model

SHELF = Obstacle('shelf', (0.10, 0.40, 0.02), (0.35, 0.10, 0.14), (0.0, 0.0, 0.3))


@pytest.fixture(scope='module')
def home(station):
    return np.concatenate([[*arm.named['home'], arm.gripper.closed] for arm in station.arms.values()])


@pytest.fixture(scope='module')
def bodies(station):
    return CollisionModel(station)


def with_arm(station, home, name, q):
    positions = home.copy()
    begin = station.joints.index(station.arms[name].joints[0])
    positions[begin:begin + len(q)] = q
    return positions


def test_arms_at_home_are_clear_of_everything(bodies, home):
    assert not bodies.in_collision(home)
    assert bodies.distance(home).distance > 0.02


def test_distance_between_arms_is_that_of_their_nearest_links(station, bodies, home):
    names = list(station.arms)
    toward = {names[0]: -0.9, names[1]: 0.9}      # both shoulders turned to the other arm
    q = home.copy()
    for name, turn in toward.items():
        q = with_arm(station, q, name, [turn, *station.arms[name].named['home'][1:]])
    near = bodies.arm_distance(q)
    assert near.distance < bodies.arm_distance(home).distance - 0.2
    assert all(body.startswith(tuple(arm.prefix for arm in station.arms.values())) for body in near.bodies)
    assert near.bodies[0].split('_')[0] != near.bodies[1].split('_')[0]


def test_cheap_distance_between_arms_is_never_more_than_the_true_one(station, home):
    bodies = CollisionModel(station)
    rng = np.random.default_rng(3)
    for _ in range(60):
        q = home + rng.uniform(-0.7, 0.7, len(home))
        true = bodies._between.nearest(bodies._full(q)).distance
        assert bodies.arm_distance(q).distance <= true + 1e-6


def tip_at(station, home, *place):
    return ArmKinematics(station, 'left').ik(tool_down(*place, 0.0), home[:6])


def test_tool_may_work_at_the_table_where_no_other_link_may_come(station, home):
    scene = ArmScene(station, None, 'left', [home], Clearance(table=0.01, tool_table=0.001))
    assert not scene.in_collision(tip_at(station, home, 0.35, 0.0, 0.005))
    assert scene.in_collision(tip_at(station, home, 0.35, 0.0, 0.0))
    folded = np.array([0.0, 3.6, 1.5, 0.0, 0.0, 0.0])
    assert any(near.bodies[1] == 'table' and 'finger' not in near.bodies[0] for near in scene.too_near(folded))


def test_boxes_of_station_and_task_are_kept_clear(station, task, home):
    at_shelf = tip_at(station, home, 0.35, 0.1, 0.14)
    whole = with_arm(station, home, 'left', at_shelf)
    assert not CollisionModel(station, task).in_collision(whole)
    for with_box in ((replace(station, obstacles=(SHELF,)), task), (station, replace(task, obstacles=(SHELF,)))):
        assert CollisionModel(*with_box).in_collision(whole)
        assert 'box shelf' in CollisionModel(*with_box).distance(whole).bodies
        scene = ArmScene(*with_box, 'left', [home], Clearance())
        assert scene.in_collision(at_shelf) and not scene.in_collision(home[:6])
        assert 'touches box shelf' in str(scene.too_near(at_shelf)[0])


def test_start_that_is_too_near_may_be_left_and_not_approached(station, home):
    scene = ArmScene(station, None, 'left', [home], Clearance(tool_table=0.02))
    low, present, high = (tip_at(station, home, 0.35, 0.0, height) for height in (0.006, 0.010, 0.015))
    assert scene.in_collision(present) and scene.in_collision(high)
    scene.allow_present_distances(present, 0.001)
    assert not scene.in_collision(present) and not scene.in_collision(high)
    assert scene.in_collision(low)


def test_other_arm_is_kept_clear_of_wherever_it_may_be(station, home):
    """Both shoulders turned inward collide; so the one is blocked by any position that the other may take."""
    inward = {name: np.array([turn, 1.8, *station.arms[name].named['home'][2:]])
              for name, turn in (('left', -0.75), ('right', 0.75))}
    both = with_arm(station, with_arm(station, home, 'left', inward['left']), 'right', inward['right'])
    assert CollisionModel(station).in_collision(both)
    crossing = with_arm(station, home, 'right', inward['right'])
    assert not ArmScene(station, None, 'left', [home], Clearance()).in_collision(inward['left'])
    scene = ArmScene(station, None, 'left', [home, crossing, home], Clearance())
    assert scene.in_collision(inward['left'])
    bodies = scene.too_near(inward['left'])[0].bodies
    assert bodies[0].startswith('left_') and bodies[1].startswith('right_')


def test_scene_with_many_places_of_the_other_arm_is_that_of_each_of_them(station, home):
    """A long motion of the other arm, in several sets of pairs, and what one place after the other says."""
    clearance = Clearance(arms=0.04, self=0.005, table=0.01, boxes=0.01)
    places = [with_arm(station, home, 'right', np.array(station.arms['right'].named['home']) + [turn, turn, 0, 0, 0, 0])
              for turn in np.linspace(0.0, 0.7, 2 * PLACES + 1)]
    whole = ArmScene(station, None, 'left', places, clearance)
    single = [ArmScene(station, None, 'left', [place], clearance) for place in places]
    rng = np.random.default_rng(3)
    seen = []
    for _ in range(150):
        q = rng.uniform([-1.4, 0.0, 0.0, -0.3, -0.3, -0.3], [0.2, 1.0, 0.4, 0.3, 0.3, 0.3])
        q += station.arms['left'].named['home']
        seen.append(whole.in_collision(q))
        assert seen[-1] == any(scene.in_collision(q) for scene in single)
        near = whole.too_near(q)
        assert bool(near) == seen[-1] and len({each.bodies for each in near}) == len(near)
    assert 20 < sum(seen) < 130


def test_model_agrees_with_the_contacts_of_the_simulated_world(station, task):
    """Wherever physics has two links of one arm, two arms, or an arm and a box in each other, the model sees it."""
    station = replace(station, obstacles=(SHELF,))
    model = build_model(station, task)
    data = mujoco.MjData(model)
    bodies = CollisionModel(station, task)
    joints = [model.joint(name) for name in station.joints]
    low, high = (np.array([joint.range[i] for joint in joints]) for i in (0, 1))
    arms = tuple(arm.prefix for arm in station.arms.values())
    rng = np.random.default_rng(5)
    felt = 0
    for _ in range(300):
        q = rng.uniform(low, high)
        data.qpos[[joint.qposadr[0] for joint in joints]] = q
        for arm in station.arms.values():
            mirror = f'{arm.gripper.joint}_mirror'
            data.qpos[model.joint(mirror).qposadr[0]] = q[station.joints.index(arm.gripper.joint)]
        mujoco.mj_forward(model, data)
        for contact in data.contact:
            names = [model.body(model.geom_bodyid[geom]).name or model.geom(geom).name for geom in contact.geom]
            if contact.dist < -1e-3 and all(name.startswith(arms) for name in names):
                felt += 1
                assert bodies.in_collision(q), f'{names} overlap by {-contact.dist * 1000:.1f} mm'
                break
    assert felt > 20


@pytest.mark.parametrize('entry, reason', [
    ('{name: shelf, size: [0.1, 0.1], xyz: [0, 0, 0]}', r'obstacles.0.size .* 3 numbers'),
    ('{name: shelf, size: [0.1, 0.1, -1], xyz: [0, 0, 0]}', r'obstacles.0.size is -1, out of range'),
    ('{size: [0.1, 0.1, 0.1], xyz: [0, 0, 0]}', r'obstacles.0.name is missing'),
    ('{name: shelf, size: [0.1, 0.1, 0.1], xyz: [0, 0, 0], color: red}', r'obstacles.0.color is not a known key'),
])
def test_malformed_box_is_named(station, tmp_path, entry, reason):
    file = tmp_path / 'lab.yaml'
    file.write_text(station.file.read_text() + f'\nobstacles:\n  - {entry}\n')
    with pytest.raises(ConfigurationError, match=reason):
        load_station(file)
