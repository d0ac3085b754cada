import json

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.reader import read_ros2_messages
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String

from enpire_agent.episode_writer import EpisodeWriter
from enpire_agent.message_definition import message_definition
from enpire_agent.recorded_messages import compressed_image, step_message, step_of
from enpire_agent.trial_record import (RecordError, policy_start, read_frames, read_result, read_steps, write_result,
                                       write_started)
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.serialized_messages import ImageWriter
from enpire_msgs.msg import Check, Verdict

MS = 1_000_000


@pytest.fixture(scope='module')
def episode(tmp_path_factory):
    directory = tmp_path_factory.mktemp('trial')
    writer = EpisodeWriter(directory)
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, :, 0] = 200
    camera = ImageWriter('top_optical', 480, 640, 'rgb8')
    for k in range(30):
        stamp = 10**9 + k * 33 * MS
        state = JointState(name=['a', 'b'], position=[0.1 * k, 0.2], velocity=[0.0, 0.0], effort=[1.0, 2.0])
        writer.message('joint_states', 'sensor_msgs/msg/JointState', serialize_message(state), stamp)
        verdict = Verdict(task='push_t', checks=[Check(name='position', value=0.5)])
        writer.message('verdict', 'enpire_msgs/msg/Verdict', serialize_message(verdict), stamp)
        writer.step({'step': k, 'action': [0.1, float('nan')], 'source': 'policy'}, stamp)
        if k % 3 == 0:
            writer.image('top/image_raw/compressed', camera.write(stamp, image))
    assert not (directory / 'episode.mcap').exists(), 'complete or absent'
    writer.close()
    return directory


def test_an_episode_is_read_by_an_ordinary_mcap_reader_with_its_types(episode):
    by_topic = {}
    for message in read_ros2_messages(episode / 'episode.mcap'):
        by_topic.setdefault(message.channel.topic, []).append(message)
    states = by_topic['joint_states']
    assert len(states) == 30 and states[3].ros_msg.position[0] == pytest.approx(0.3)
    assert states[0].log_time_ns == 10**9
    assert by_topic['verdict'][0].ros_msg.checks[0].name == 'position'
    assert by_topic['verdict'][0].schema.name == 'enpire_msgs/msg/Verdict'
    image = by_topic['top/image_raw/compressed'][1]
    assert image.ros_msg.header.frame_id == 'top_optical' and image.ros_msg.format == 'rgb8; jpeg compressed bgr8'
    assert image.ros_msg.header.stamp.sec == 1 and image.ros_msg.header.stamp.nanosec == 99 * MS
    assert bytes(image.ros_msg.data[:3]) == b'\xff\xd8\xff'
    assert json.loads(by_topic['policy/steps'][7].ros_msg.data)['step'] == 7


def test_an_episode_is_what_rosbag2_expects_of_an_mcap_file(episode):
    with open(episode / 'episode.mcap', 'rb') as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        assert reader.get_header().profile == 'ros2'
    assert {channel.message_encoding for channel in summary.channels.values()} == {'cdr'}
    assert {schema.encoding for schema in summary.schemas.values()} == {'ros2msg'}
    assert all(schema.name.count('/') == 2 for schema in summary.schemas.values())
    assert summary.statistics.message_count == 100 and summary.chunk_indexes
    for schema in summary.schemas.values():
        assert schema.data.decode() == message_definition(schema.name)


def test_what_is_written_without_ros_is_what_ros_writes():
    ours = step_message({'step': 3, 'text': 'Ü'})
    assert deserialize_message(ours, String).data == '{"step":3,"text":"\\u00dc"}'
    step = {'pose': np.array([1 / 3, np.nan]), 'action': None, 'count': np.arange(2)}
    assert step_of(step_message(step)) == {'pose': [0.333333, None], 'action': None, 'count': [0.0, 1.0]}
    for frame in ('', 'a', 'top_optical'):
        image = deserialize_message(compressed_image(b'\xff\xd8\xff12', frame, 5 * 10**9 + 7), CompressedImage)
        assert (image.header.frame_id, image.header.stamp.sec, image.header.stamp.nanosec) == (frame, 5, 7)
        assert bytes(image.data) == b'\xff\xd8\xff12'


def test_frames_are_scaled_jpeg(episode):
    frames = list(read_frames(episode))
    assert [frame.time for frame in frames] == pytest.approx([1.0 + 0.099 * k for k in range(10)])
    picture = cv2.imdecode(np.frombuffer(frames[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (240, 320, 3)
    assert picture[100, 100, 2] > 190 and picture[100, 100, 0] < 10, 'rgb in, bgr for OpenCV out'


def test_steps_are_read_back_without_nan(episode):
    steps = list(read_steps(episode))
    assert [step['step'] for step in steps] == list(range(30))
    assert steps[0]['action'] == [0.1, None]
    assert policy_start(episode) == 1.0


def test_definitions_bring_everything_they_are_made_of():
    text = message_definition('enpire_msgs/msg/Verdict')
    for name in ('std_msgs/Header', 'builtin_interfaces/Time', 'enpire_msgs/Check'):
        assert f'MSG: {name}\n' in text


def test_an_unknown_message_is_one_clear_error(tmp_path):
    with pytest.raises(RecordError, match='no package no_such_msgs'):
        message_definition('no_such_msgs/msg/Thing')


def test_a_trial_folder_is_used_once_and_a_result_is_read_back(tmp_path):
    write_started(tmp_path / 't', {'trial_id': 't'})
    with pytest.raises(FileExistsError):
        write_started(tmp_path / 't', {'trial_id': 't'})
    with pytest.raises(ConfigurationError, match='no result of a completed trial'):
        read_result(tmp_path / 't')
    write_result(tmp_path / 't', {'outcome': 'SUCCESS', 'duration': float('nan')})
    assert read_result(tmp_path / 't') == {'outcome': 'SUCCESS', 'duration': None}
