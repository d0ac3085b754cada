"""URDF, MJCF and station file describe the same robot."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import coal
import mujoco
import numpy as np
import pinocchio
import pytest
import xacro

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.robot_description import LinkTransforms, collision_geometry, robot_description
from enpire_bringup.world import World

# Joint anchors at q = 0 in the base frame, axes and limits of the arm, from its published description.
ANCHORS = [(0, 0, 0.0680), (0.020, 0, 0.1135), (-0.244, 0, 0.1135), (0.001, 0, 0.1735), (0.075, 0, 0.2140),
           (0.1106, 0, 0.1735)]
AXES = [(0, 0, 1), (0, 1, 0), (0, -1, 0), (0, -1, 0), (0, 0, -1), (1, 0, 0)]
LIMITS = [(-2.618, 3.142), (0, 3.665), (0, 3.142), (-1.693, 1.571), (-1.571, 1.571), (-2.094, 2.094)]
TORQUES = [28, 28, 28, 10, 10, 10]
MASSES = [0.874, 0.101, 1.469, 0.983, 0.462, 0.403, 0.553]
CENTERS = [(0.007, 0.002, 0.091), (-0.109, 0.001, 0.114), (-0.109, -0.001, 0.169), (0.059, 0.001, 0.229),
           (0.076, 0, 0.176), (0.140, 0, 0.174)]


@pytest.fixture(scope='module')
def world(station, task):
    return World(station, task)


@pytest.fixture(scope='module')
def urdf(station):
    return robot_description(station)


def random_positions(station, model, seed):
    rng = np.random.default_rng(seed)
    return {joint: rng.uniform(*model.joint(joint).range) for joint in station.joints}


def place(world, positions):
    for joint, value in positions.items():
        world._data.qpos[world.model.joint(joint).qposadr[0]] = value
        if 'finger' in joint:
            world._data.qpos[world.model.joint(f'{joint}_mirror').qposadr[0]] = value


def test_forward_kinematics_of_urdf_and_mjcf_agree(station, world, urdf):
    links = LinkTransforms(urdf)
    names = [f'{arm.prefix}{link}' for arm in station.arms.values()
             for link in ('tcp', 'link3', 'link4', 'link5', 'link6', 'finger', 'finger_mirror')]
    for seed in range(200):
        positions = random_positions(station, world.model, seed)
        place(world, positions)
        for name in names:
            ours, theirs = links.pose(name, positions), world.frame_pose(name)
            assert np.linalg.norm(ours[:3, 3] - theirs[:3, 3]) < 1e-4, name
            assert np.linalg.norm(pinocchio.log3(ours[:3, :3].T @ theirs[:3, :3])) < 1e-4, name


def test_mjcf_has_the_published_anchors_axes_limits_and_masses(station, world):
    model, data = world.model, mujoco.MjData(world.model)
    mujoco.mj_forward(model, data)   # at q = 0
    for arm in station.arms.values():
        base = np.array(arm.base_xyz)
        for i, joint in enumerate(arm.joints):
            assert data.joint(joint).xanchor - base == pytest.approx(ANCHORS[i], abs=1e-6)
            assert data.joint(joint).xaxis == pytest.approx(AXES[i], abs=1e-9)
            assert tuple(model.joint(joint).range) == LIMITS[i]
            assert tuple(model.jnt_actfrcrange[model.joint(joint).id]) == (-TORQUES[i], TORQUES[i])
            assert data.body(f'{arm.prefix}link{i + 1}').xipos - base == pytest.approx(CENTERS[i], abs=1e-6)
        bodies = [arm.base_frame, *(f'{arm.prefix}link{i}' for i in range(1, 7))]
        assert [model.body(name).mass[0] for name in bodies] == pytest.approx(MASSES)
        assert data.site(arm.tcp_frame).xpos - base == pytest.approx((0.2552, 0, 0.1734), abs=1e-6)


def test_home_puts_the_tcp_where_the_arm_is_known_to_be(station, urdf):
    positions = {joint: value for arm in station.arms.values()
                 for joint, value in zip(arm.joints, arm.named['home'])}
    pose = LinkTransforms(urdf).pose('left_tcp', positions)
    assert pose[:3, 3] == pytest.approx((0.387, 0.0, 0.402), abs=1e-3)
    assert pose[:3, :3] == pytest.approx(np.eye(3), abs=1e-3)


def test_urdf_has_the_joints_limits_and_torques_of_the_mjcf(station, world, urdf):
    joints = {joint.get('name'): joint for joint in ElementTree.fromstring(urdf).findall('joint')}
    for name in station.joints:
        limit = joints[name].find('limit')
        assert (float(limit.get('lower')), float(limit.get('upper'))) == tuple(world.model.joint(name).range)
        effort = (world.model.actuator(name).forcerange if 'finger' in name
                  else world.model.jnt_actfrcrange[world.model.joint(name).id])
        assert float(limit.get('effort')) == pytest.approx(effort[1])
    for arm in station.arms.values():
        assert (arm.gripper.closed, arm.gripper.open) == tuple(world.model.joint(arm.gripper.joint).range)


def test_collision_shapes_of_urdf_and_mjcf_are_the_same(station, world, urdf):
    model = pinocchio.buildModelFromXML(urdf)
    kinds = {coal.Capsule: mujoco.mjtGeom.mjGEOM_CAPSULE, coal.Cylinder: mujoco.mjtGeom.mjGEOM_CYLINDER,
             coal.Box: mujoco.mjtGeom.mjGEOM_BOX}

    def shape(kind, size, place):
        return int(kind), tuple(np.round(size, 5)), tuple(np.round(place, 5))

    described, simulated = [], []
    for part in collision_geometry(model, urdf).geometryObjects:
        solid, link = part.geometry, model.frames[part.parentFrame]
        size = solid.halfSide if isinstance(solid, coal.Box) else (solid.radius, solid.halfLength, 0)
        place = link.placement.actInv(part.placement).translation
        described.append((link.name, *shape(kinds[type(solid)], size, place)))
    for i in range(world.model.ngeom):
        geom = world.model.geom(i)
        body = world.model.body(geom.bodyid[0]).name
        if geom.contype[0] == 2:
            simulated.append((body, *shape(geom.type[0], geom.size, geom.pos)))
    assert sorted(described) == sorted(simulated) and len(described) == 2 * 16


def test_urdf_readers_who_know_no_capsules_see_the_same_solid(urdf):
    """Each capsule's cylinder has a sphere at both ends."""
    for link in ElementTree.fromstring(urdf).findall('link'):
        for capsule in link.findall('collision_checking/capsule'):
            parts = {part.get('name'): part for part in link.findall('collision')}
            name = capsule.get('name')
            cylinder = parts[name].find('geometry/cylinder')
            for end in ('begin', 'end'):
                assert parts[f'{name}_{end}'].find('geometry/sphere').get('radius') == cylinder.get('radius')


def test_meshes_are_for_viewers_and_never_needed(station, tmp_path):
    absent = dataclasses.replace(station, meshes='pip://no-such-meshes==1.0/models')
    assert robot_description(absent, for_viewers=True) == robot_description(station)
    for part in ('arm/yam/v1/assets/base', 'arm/yam/v1/assets/link3', 'gripper/linear_4310/assets/gripper'):
        file = tmp_path / f'{part}.stl'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b'')
    present = dataclasses.replace(station, meshes=str(tmp_path))
    seen = ElementTree.fromstring(robot_description(present, for_viewers=True))
    links = {link.get('name'): link for link in seen.findall('link')}
    assert links['left_link3'].find('visual/geometry/mesh').get('filename') == (
        f'file://{tmp_path}/arm/yam/v1/assets/link3.stl')
    assert [len(link.findall('collision')) for link in seen.findall('link')] == [
        len(link.findall('collision')) for link in ElementTree.fromstring(robot_description(station)).findall('link')]
    assert not seen.findall('link/collision/geometry/mesh')
    assert robot_description(present) == robot_description(station), 'for viewers only'


def test_gravity_that_the_urdf_predicts_is_what_the_simulated_motors_carry(station, task, urdf):
    world = World(station, task)
    for _ in range(100):
        world.step({})
    names, positions, _, efforts = world.joint_state()
    model = pinocchio.buildModelFromXML(urdf)
    q = pinocchio.neutral(model)
    for name, position in zip(names, positions):
        q[model.joints[model.getJointId(name)].idx_q] = position
    gravity = pinocchio.computeGeneralizedGravity(model, model.createData(), q)
    for arm in station.arms.values():
        for joint in arm.joints:
            expected = gravity[model.joints[model.getJointId(joint)].idx_v]
            assert efforts[names.index(joint)] == pytest.approx(expected, abs=0.1), joint


def test_defaults_of_the_xacro_are_the_bases_of_the_station_file(station):
    plain = xacro.process_file(str(station.robot_description)).toxml()
    for arm in station.arms.values():
        pose = LinkTransforms(plain).pose(arm.base_frame, {})
        assert pose[:3, 3] == pytest.approx(arm.base_xyz)


def test_transforms_form_one_tree_from_world_to_every_tcp(station, urdf):
    links = LinkTransforms(urdf)
    parents = {child: parent for parent, child, _ in links.fixed() + links.moving({})}
    for arm in station.arms.values():
        frame = arm.tcp_frame
        while frame != 'world':
            frame = parents[frame]
    assert links.joints and set(links.joints) == set(station.joints)


def test_a_description_that_cannot_be_read_is_named(station, tmp_path):
    file = tmp_path / 'broken.urdf.xacro'
    file.write_text('<robot><link></robot>')
    with pytest.raises(ConfigurationError, match='broken.urdf.xacro: xacro cannot read it'):
        robot_description(dataclasses.replace(station, robot_description=file))
    with pytest.raises(ConfigurationError, match='not a URDF'):
        LinkTransforms('<robot')
