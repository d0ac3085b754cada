"""What the page in the browser draws of a URDF."""

from __future__ import annotations

import math

import numpy as np
import pytest

from enpire_agent.robot_shapes import GRAY, link_shapes
from enpire_bringup.robot_description import robot_description
from enpire_bringup.station import load_station

URDF = '''<robot name="r"><material name="red"><color rgba="1 0 0 1"/></material>
<link name="a"><visual><origin xyz="0 0 1" rpy="0 0 {turn}"/><geometry><box size="1 2 3"/></geometry>
  <material name="red"/></visual>
  <visual><geometry><sphere radius="0.1"/></geometry></visual></link>
<link name="b"><visual><geometry><mesh filename="{mesh}" scale="2 2 2"/></geometry></visual>
  <collision><geometry><cylinder radius="0.2" length="0.5"/></geometry></collision></link>
<link name="c"/></robot>'''


@pytest.fixture
def mesh(tmp_path):
    file = tmp_path / 'part.stl'
    file.write_text('solid s\nendsolid s\n')
    return file


def test_primitives_keep_size_pose_and_color(mesh):
    box, sphere, *_ = link_shapes(URDF.format(turn=math.pi / 2, mesh=mesh))
    assert (box.link, box.kind, box.size, box.color) == ('a', 'box', (1.0, 2.0, 3.0), (1.0, 0.0, 0.0))
    assert np.allclose(box.pose, [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
    assert (sphere.kind, sphere.size, sphere.color) == ('sphere', (0.1,), GRAY)


def test_a_mesh_that_can_be_read_is_drawn_as_it_looks(mesh):
    shape = link_shapes(URDF.format(turn=0, mesh=f'file://{mesh}'))[-1]
    assert (shape.link, shape.kind, shape.size, shape.mesh) == ('b', 'mesh', (2.0, 2.0, 2.0), mesh)


@pytest.mark.parametrize('name', ['file:///nowhere/part.stl', 'package://no_such_package/part.stl', 'part.dae'])
def test_a_link_whose_mesh_cannot_be_read_is_drawn_by_its_collision_geometry(name):
    shape = link_shapes(URDF.format(turn=0, mesh=name))[-1]
    assert (shape.link, shape.kind, shape.size) == ('b', 'cylinder', (0.2, 0.5))


@pytest.mark.parametrize('name', ['yam_bimanual_sim', 'panda_sim'])
def test_every_arm_of_the_stations_that_ship_can_be_drawn(name):
    station = load_station(name)
    links = {shape.link for shape in link_shapes(robot_description(station))}
    assert {arm.base_frame for arm in station.arms.values()} <= links
    assert len(links) >= sum(len(arm.joints) for arm in station.arms.values())
