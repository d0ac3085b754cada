"""Object poses written and read as bytes are the same as rclpy's."""

import math

import numpy as np
import pytest

pytest.importorskip('rclpy')

from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402

from enpire_bringup.object_pose_messages import ObjectPoseWriter, read_object_pose  # noqa: E402
from enpire_msgs.msg import ObjectPose  # noqa: E402

STAMP = 12_345_678_901
COVARIANCE = np.array([[1e-6, 2e-7, 3e-6], [2e-7, 2e-6, 4e-6], [3e-6, 4e-6, 5e-4]])


@pytest.mark.parametrize('name', ['t', 'tb', 't_b', 't_block', 'a_rather_long_name'])
def test_a_written_pose_is_what_rclpy_would_have_sent(name):
    writer = ObjectPoseWriter(name)
    writer.write(1, np.zeros(3), np.ones((3, 3)), visible=False, occluded=True, visible_fraction=0.1, residual=0.0)
    data = writer.write(STAMP, np.array([0.3, -0.2, 2.0]), COVARIANCE, visible=True, occluded=False,
                        visible_fraction=0.9, residual=2e-4)
    expected = ObjectPose(object_id=name, visible=True, visible_fraction=0.9, residual=2e-4)
    expected.header.frame_id = 'world'
    expected.header.stamp.sec, expected.header.stamp.nanosec = 12, 345_678_901
    pose = expected.pose.pose
    pose.position.x, pose.position.y = 0.3, -0.2
    pose.orientation.z, pose.orientation.w = math.sin(1.0), math.cos(1.0)
    covariance = np.zeros((6, 6))
    covariance[np.ix_([0, 1, 5], [0, 1, 5])] = COVARIANCE
    expected.pose.covariance = covariance.ravel()
    assert deserialize_message(data, ObjectPose) == expected


@pytest.mark.parametrize('name, frame', [('t_block', 'world'), ('t', ''), ('tb', 'top_camera'), ('', 'w')])
@pytest.mark.parametrize('yaw', [0.0, 2.0, -3.1, 3.1])
def test_any_object_pose_is_read(name, frame, yaw):
    message = ObjectPose(object_id=name, occluded=True, visible_fraction=0.25, residual=math.nan)
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = 12, 345_678_901
    message.pose.pose.position.x, message.pose.pose.position.y = 1.5, -2.5
    message.pose.pose.orientation.z, message.pose.pose.orientation.w = -math.sin(yaw / 2), -math.cos(yaw / 2)
    found = read_object_pose(serialize_message(message))
    assert (found.stamp, found.object_id, found.visible, found.occluded) == (STAMP, name, False, True)
    assert found.pose == pytest.approx([1.5, -2.5, yaw])
    assert found.visible_fraction == 0.25 and math.isnan(found.residual)


def test_a_pose_that_was_never_seen_stays_unknown():
    data = ObjectPoseWriter('t').write(STAMP, np.full(3, np.nan), np.full((3, 3), np.nan), visible=False,
                                       occluded=False, visible_fraction=0.0, residual=math.nan)
    assert np.isnan(read_object_pose(data).pose).all()


def test_a_message_that_was_cut_off_is_an_error():
    data = ObjectPoseWriter('t').write(STAMP, np.zeros(3), COVARIANCE, visible=True, occluded=False,
                                       visible_fraction=1.0, residual=0.0)
    for size in (8, 20, 30, 60):
        with pytest.raises(ValueError, match='no enpire_msgs/ObjectPose'):
            read_object_pose(data[:size])
