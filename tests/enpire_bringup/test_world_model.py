"""Scene, arms and cameras put together into one model, and what is said when they do not fit."""

import dataclasses

import mujoco
import pytest

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.station import load_station
from enpire_bringup.world_model import build_model


def changed_arm(station, **values):
    return dataclasses.replace(station, arms={**station.arms,
                                              'left': dataclasses.replace(station.arms['left'], **values)})


def changed_camera(station, **values):
    top = dataclasses.replace(station.cameras['top'], **values)
    return dataclasses.replace(station, cameras={'top': top})


def test_every_joint_frame_and_camera_of_the_station_is_in_the_model(station, task):
    model = build_model(station, task)
    for joint in station.joints:
        assert model.joint(joint) is not None and model.actuator(joint) is not None
    for arm in station.arms.values():
        assert model.body(arm.base_frame).pos == pytest.approx(arm.base_xyz)
        assert model.site(arm.tcp_frame) is not None
    for camera in station.cameras.values():
        assert model.camera(camera.name).fovy[0] == pytest.approx(camera.vertical_fov * 57.29578, abs=1e-4)


def test_goal_marking_lies_at_the_goal_of_the_task(station, task):
    task = dataclasses.replace(task, goal=dataclasses.replace(task.goal, x=0.28, y=-0.05, yaw=1.0))
    marking = build_model(station, task).body('goal_marking')
    assert marking.pos[:2] == pytest.approx((0.28, -0.05))
    assert marking.quat == pytest.approx((0.87758, 0, 0, 0.47943), abs=1e-4)


def test_what_perception_looks_for_is_the_blocks_outline(station, task):
    model = build_model(station, task)
    for item in task.objects.values():
        faces = [model.geom(name) for name in ('t_face_bar', 't_face_stem')]
        corners = {(round(geom.pos[0] + sx * geom.size[0], 6), round(geom.pos[1] + sy * geom.size[1], 6))
                   for geom in faces for sx in (-1, 1) for sy in (-1, 1)}
        assert {tuple(point) for point in item.outline} <= corners
        assert faces[0].pos[2] + faces[0].size[2] == pytest.approx(item.face_height)
        assert model.body(item.body).mass[0] == pytest.approx(0.25)
        assert model.body(item.body).ipos[:2] == pytest.approx((0, 0), abs=1e-4), 'origin = center of mass'


@pytest.mark.parametrize('change, message', [
    (lambda s: changed_arm(s, joints=('left_joint1', 'left_elbow')),
     r"arms.left names the joint 'left_elbow', but .*yam.xml has no such joint; it has left_joint1"),
    (lambda s: changed_arm(s, tcp_frame='left_tool'),
     r"arms.left.tcp_frame is 'left_tool'; no such site in .*yam.xml"),
    (lambda s: changed_arm(s, base_frame='left_foot'), r"arms.left.base_frame is 'left_foot'; no such body"),
    (lambda s: changed_camera(s, parent='left_wrist'),
     r"cameras.top.parent is 'left_wrist'; expected world or a link"),
    (lambda s: changed_camera(s, look_at=s.cameras['top'].position), 'camera top: look_at .* must differ'),
    (lambda s: changed_camera(s, up=(-0.38, 0.10, -0.50)),
     'camera top: .* up .* must not point along the view'),
])
def test_a_station_that_does_not_fit_is_named(station, task, change, message):
    with pytest.raises(ConfigurationError, match=message):
        build_model(change(station), task)


@pytest.mark.parametrize('scene, message', [
    ('<mujoco><worldbody>', 'scene.xml: MuJoCo cannot read it'),
    ('<mujoco><worldbody/></mujoco>', "objects.t_block.body is 't_block'; no such body in .*scene.xml"),
    ('<mujoco><worldbody><body name="t_block"><geom size="0.1"/></body></worldbody></mujoco>',
     "the body 't_block' of objects.t_block needs one free joint"),
])
def test_a_scene_that_does_not_fit_is_named(station, task, tmp_path, scene, message):
    file = tmp_path / 'scene.xml'
    file.write_text(scene)
    with pytest.raises(ConfigurationError, match=message):
        build_model(station, dataclasses.replace(task, scene=file))


def test_another_station_file_moves_the_arms(station, task, tmp_path):
    text = station.file.read_text().replace('xyz: [0.0, -0.61, 0.0], rpy: [0.0, 0.0, 0.0]',
                                            'xyz: [0.9, 0.0, 0.0], rpy: [0.0, 0.0, 3.14159265]')
    file = tmp_path / 'facing.yaml'
    file.write_text(text)
    model = build_model(load_station(file), task)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    assert data.site('right_tcp').xpos == pytest.approx((0.9 - 0.2552, 0.0, 0.1734), abs=1e-6)
