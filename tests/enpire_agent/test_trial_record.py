import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from mcap_ros2.reader import read_ros2_messages
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState

from enpire_agent.trial_record import (EpisodeRecorder, RecordError, message_definition, policy_start, read_frames, read_result,
                                       read_steps, write_result, write_started)
from enpire_bringup.configuration import ConfigurationError
from enpire_msgs.msg import Check, Verdict

MS = 1_000_000


@pytest.fixture
def episode(tmp_path):
    recorder = EpisodeRecorder(tmp_path)
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, :, 0] = 200
    for k in range(30):
        stamp = 10**9 + k * 33 * MS
        state = JointState(name=['a', 'b'], position=[0.1 * k, 0.2], velocity=[0.0, 0.0], effort=[1.0, 2.0])
        recorder.message('joint_states', ('sensor_msgs/msg/JointState', serialize_message(state)), stamp)
        recorder.message('left/servo', PoseStamped(), stamp)
        recorder.message('verdict', Verdict(task='push_t', checks=[Check(name='position', value=0.5)]), stamp)
        recorder.step({'step': k, 'action': [0.1, float('nan')], 'source': 'policy'}, stamp)
        if recorder.wants_frame('top/image_raw/compressed', stamp):
            recorder.frame('top/image_raw/compressed', image, 'top_optical', stamp)
    assert not (tmp_path / 'episode.mcap').exists(), 'complete or absent'
    recorder.close()
    return tmp_path


def test_an_episode_is_read_by_an_ordinary_mcap_reader_with_its_types(episode):
    by_topic = {}
    for message in read_ros2_messages(episode / 'episode.mcap'):
        by_topic.setdefault(message.channel.topic, []).append(message)
    states = by_topic['joint_states']
    assert len(states) == 30 and states[3].ros_msg.position[0] == pytest.approx(0.3)
    assert states[0].log_time_ns == 10**9
    assert by_topic['verdict'][0].ros_msg.checks[0].name == 'position'
    assert by_topic['verdict'][0].schema.name == 'enpire_msgs/msg/Verdict'
    assert by_topic['left/servo'][0].ros_msg.pose.orientation.w == 1.0


def test_frames_come_at_ten_hertz_as_scaled_jpeg(episode):
    frames = list(read_frames(episode))
    assert len(frames) == 10
    assert np.diff([frame.time for frame in frames]) == pytest.approx(np.full(9, 0.099), abs=1e-6)
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


def test_a_full_disk_is_reported_and_leaves_no_half_file(tmp_path):
    recorder = EpisodeRecorder(tmp_path)
    recorder.message('thing', ('no_such_msgs/msg/Thing', b'1234'), 0)
    with pytest.raises(RecordError, match='could not be written'):
        recorder.close()
    assert not (tmp_path / 'episode.mcap').exists()


def test_a_trial_folder_is_used_once_and_a_result_is_read_back(tmp_path):
    write_started(tmp_path / 't', {'trial_id': 't'})
    with pytest.raises(FileExistsError):
        write_started(tmp_path / 't', {'trial_id': 't'})
    with pytest.raises(ConfigurationError, match='no result of a completed trial'):
        read_result(tmp_path / 't')
    write_result(tmp_path / 't', {'outcome': 'SUCCESS', 'duration': float('nan')})
    assert read_result(tmp_path / 't') == {'outcome': 'SUCCESS', 'duration': None}
