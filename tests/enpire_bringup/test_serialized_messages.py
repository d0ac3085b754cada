"""Messages written and read as bytes are the same as rclpy's."""

import numpy as np
import pytest

pytest.importorskip('rclpy')

from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402

from enpire_bringup.image_messages import read_image  # noqa: E402
from enpire_bringup.serialized_messages import (  # noqa: E402
    ImageWriter, JointStateReader, JointStateWriter, read_numbers, stamp_of, write_numbers)

STAMP = 12_345_678_901


def state(names, position=(), velocity=(), effort=(), frame=''):
    message = JointState(name=list(names), position=list(position), velocity=list(velocity), effort=list(effort))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(STAMP, 1_000_000_000)
    message.header.frame_id = frame
    return serialize_message(message)


@pytest.mark.parametrize('names', [('a',), ('joint1', 'joint_two', 'j3'), tuple(f'left_joint{i}' for i in range(14))])
def test_a_written_joint_state_is_what_rclpy_would_have_sent(names):
    values = np.random.default_rng(1).normal(size=(3, len(names)))
    writer = JointStateWriter(names)
    writer.write(1, *np.zeros_like(values))
    data = writer.write(STAMP, *values)
    message = deserialize_message(data, JointState)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (12, 345_678_901)
    assert tuple(message.name) == names and message.header.frame_id == ''
    assert [list(message.position), list(message.velocity), list(message.effort)] == values.tolist()


@pytest.mark.parametrize('names, values, frame', [
    (('a', 'bc', 'def'), ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]), ''),
    (('a', 'bc'), ([1.0, 2.0], [], [7.0, 8.0]), 'base'),
    (('a',), ([1.0], [], []), 'x'),
    ((), ([], [], []), ''),
])
def test_any_joint_state_is_read(names, values, frame):
    stamp, read_names, *read = JointStateReader().read(state(names, *values, frame=frame))
    assert (stamp, read_names) == (STAMP, names)
    assert [list(block) for block in read] == list(values)


def test_a_reader_notices_that_names_or_counts_change():
    reader = JointStateReader()
    first = reader.read(state('ab', [1.0, 2.0], [3.0, 4.0]))
    again = reader.read(state('ab', [5.0, 6.0], [7.0, 8.0]))
    assert again[1] is first[1] and list(again[2]) == [5.0, 6.0]
    assert reader.read(state('ba', [5.0, 6.0], [7.0, 8.0]))[1] == ('b', 'a')
    assert reader.read(state('ba', [5.0, 6.0], [], [7.0, 8.0]))[3:] == ((), (7.0, 8.0))


def test_what_is_no_joint_state_is_an_error():
    with pytest.raises(ValueError, match='no sensor_msgs/JointState|says it has'):
        JointStateReader().read(state('ab', [1.0, 2.0])[:30])


def test_the_stamp_is_read_in_either_byte_order():
    data = state('a', [1.0])
    assert stamp_of(data) == STAMP
    swapped = bytes([0, 0, 0, 0]) + data[4:8][::-1] + data[8:12][::-1]
    assert stamp_of(swapped) == STAMP


@pytest.mark.parametrize('encoding, dtype, shape', [
    ('rgb8', np.uint8, (6, 5, 3)), ('16UC1', np.uint16, (6, 5)), ('32FC1', np.float32, (480, 640)),
    ('mono8', np.uint8, (3, 3)),
])
@pytest.mark.parametrize('frame', ['', 'top_camera_color_optical_frame'])
def test_a_written_image_is_what_rclpy_reads(encoding, dtype, shape, frame):
    picture = (np.random.default_rng(2).random(shape) * 255).astype(dtype)
    message = deserialize_message(ImageWriter(frame, *shape[:2], encoding).write(STAMP, picture), Image)
    assert message.header.frame_id == frame and message.header.stamp.nanosec == 345_678_901
    assert (message.encoding, message.height, message.width) == (encoding, *shape[:2])
    assert np.array_equal(read_image(message), picture)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r'image of shape \(4, 5, 3\) and type uint8; expected \(6, 5, 3\)'):
        ImageWriter('', 6, 5, 'rgb8').write(STAMP, np.zeros((4, 5, 3), np.uint8))


def test_numbers_come_back_and_are_what_rclpy_would_read():
    values = np.random.default_rng(3).normal(size=77)
    data = write_numbers(values)
    assert np.array_equal(read_numbers(data), values)
    assert list(deserialize_message(data, Float64MultiArray).data) == values.tolist()
    assert np.array_equal(read_numbers(serialize_message(Float64MultiArray(data=values.tolist()))), values)
    with pytest.raises(ValueError, match='77 numbers in'):
        read_numbers(data[:-8])
