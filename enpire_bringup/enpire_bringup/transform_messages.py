"""geometry_msgs/TransformStamped from poses, and the QoS of tf and tf_static."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile

from enpire_bringup.kinematics import quaternion_of

TF_QOS = QoSProfile(depth=100)
TF_STATIC_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def transform_message(parent: str, child: str, pose: np.ndarray, stamp) -> TransformStamped:
    """The transform whose `pose` (4, 4) is that of the frame `child` in the frame `parent`; m."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = stamp
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = pose[:3, 3].tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion_of(pose)
    return message
