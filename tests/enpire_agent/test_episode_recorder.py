"""Recordings made by a process of their own: complete or absent, and never in the way of a trial."""

import base64
import os
import resource
import shutil
import signal
import subprocess
import time

import cv2
import numpy as np
import pytest

from enpire_agent.episode_recorder import EpisodeRecorder
from enpire_agent.episode_writer import EpisodeWriter
from enpire_agent.trial_record import RecordError, policy_start, read_frames, read_steps
from enpire_agent.trial_video import make_video, video_of
from enpire_bringup.serialized_messages import ImageWriter

TOPIC = 'top_camera/color/image_raw/compressed'
STEP = 100_000_000     # ns


@pytest.fixture
def recorder():
    recorder = EpisodeRecorder()
    yield recorder
    recorder.close()


def record(recorder, directory, steps=10, width=320):
    directory.mkdir(exist_ok=True)
    camera = ImageWriter('top', 240, width, 'rgb8')
    recorder.begin(directory)
    for k in range(steps):
        stamp = 10**9 + k * STEP
        recorder.image(TOPIC, camera.write(stamp, np.full((240, width, 3), 10 * k, np.uint8)))
        if k >= 2:
            recorder.step({'step': k - 2, 'source': 'policy'}, stamp)


def wait_for(condition, what, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'waited {seconds} s for {what}'
        time.sleep(0.02)


def test_episodes_are_recorded_one_after_the_other_and_get_their_videos(recorder, tmp_path):
    for name in 'ab':
        record(recorder, tmp_path / name)
        recorder.end()
        assert len(list(read_frames(tmp_path / name))) == 10 and recorder.remark == ''
        assert [step['step'] for step in read_steps(tmp_path / name)] == list(range(8))
        assert policy_start(tmp_path / name) == pytest.approx(1.2)
    for name in 'ab':
        wait_for((tmp_path / name / 'video.mp4').exists, 'the video')
        assert sorted(file.name for file in (tmp_path / name).iterdir()) == ['episode.mcap', 'video.mp4']


def test_a_station_that_dies_leaves_what_was_recorded_until_then(tmp_path):
    child = os.fork()
    if child == 0:
        recorder = EpisodeRecorder()
        record(recorder, tmp_path / 'a')
        recorder._wake.set()
        recorder._sender.join(20)      # all is sent
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    wait_for((tmp_path / 'a' / 'episode.mcap').exists, 'the finished file')
    assert len(list(read_frames(tmp_path / 'a'))) == 10


def test_a_recording_process_that_is_killed_is_said_and_replaced(recorder, tmp_path):
    record(recorder, tmp_path / 'a')
    os.kill(recorder._process.pid, signal.SIGKILL)
    with pytest.raises(RecordError, match=r'a/episode.mcap: could not be written: the recording process'):
        recorder.end()
    assert list((tmp_path / 'a').iterdir()) == [], 'complete or absent'
    record(recorder, tmp_path / 'b')
    recorder.end()
    assert len(list(read_frames(tmp_path / 'b'))) == 10


def test_a_recording_process_that_hangs_costs_no_more_than_the_bound(recorder, tmp_path):
    record(recorder, tmp_path / 'a')
    os.kill(recorder._process.pid, signal.SIGSTOP)
    with pytest.raises(RecordError, match='did not finish it within 0.2 s'):
        recorder.end(timeout=0.2)


def test_a_full_disk_ends_the_recording_and_gives_its_room_back(recorder, tmp_path):
    _, hard = resource.prlimit(recorder._process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(recorder._process.pid, resource.RLIMIT_FSIZE, (2000, hard))
    record(recorder, tmp_path / 'a')
    with pytest.raises(RecordError, match='[Ff]ile too large'):
        recorder.end()
    assert list((tmp_path / 'a').iterdir()) == []
    resource.prlimit(recorder._process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    record(recorder, tmp_path / 'b')
    recorder.end()
    assert (tmp_path / 'b' / 'episode.mcap').exists()


def test_an_image_that_cannot_be_read_is_missing_and_nothing_else(recorder, tmp_path):
    record(recorder, tmp_path / 'a')
    recorder.image(TOPIC, b'\0\1\0\0 no image at all')
    recorder.end()
    assert 'no sensor_msgs/Image' in recorder.remark
    assert len(list(read_frames(tmp_path / 'a'))) == 10


@pytest.fixture(scope='module')
def filmed(tmp_path_factory):
    directory = tmp_path_factory.mktemp('filmed')
    writer = EpisodeWriter(directory)
    for k in range(30):
        image = np.full((241, 321, 3), 235, np.uint8)
        cv2.rectangle(image, (20 + 6 * k, 90), (80 + 6 * k, 150), (200, 60, 40), -1)
        writer.frame(TOPIC, image, 'top', 10**9 + k * STEP)
        if k >= 15:
            writer.step({'step': k - 15}, 10**9 + k * STEP)
    writer.close()
    return directory


def test_the_video_shows_the_policy_at_its_own_speed(filmed):
    file = video_of(filmed)
    assert file == filmed / 'video.mp4'
    reader = cv2.VideoCapture(str(file))
    images = []
    while (read := reader.read())[0]:
        images.append(read[1])
    assert reader.get(cv2.CAP_PROP_FPS) == 10 and len(images) == 20, 'from half a second before the policy began'
    assert images[0].shape == (240, 320, 3)
    reader.release()
    made = file.stat().st_mtime_ns
    assert video_of(filmed).stat().st_mtime_ns == made, 'made once'


def test_the_video_plays_in_chromium(filmed, tmp_path):
    chromium = shutil.which('chromium')
    if chromium is None:
        pytest.skip('no chromium here')
    data = base64.b64encode(video_of(filmed).read_bytes()).decode()
    page = tmp_path / 'page.html'
    # The page's end of loading waits for the frame at 1 s: there the block is in the middle, and was not before.
    page.write_text(f'<body><video muted preload="auto" src="data:video/mp4;base64,{data}#t=1"></video>'
                    '<script>v=document.querySelector("video");v.onloadeddata=()=>{'
                    'c=document.createElement("canvas").getContext("2d");c.drawImage(v,0,0);'
                    'p=c.getImageData(170,120,1,1).data;document.title="shows "+v.videoWidth+"x"+v.videoHeight+" of "+'
                    'v.duration.toFixed(1)+" s, red "+(p[0]>150&&p[1]<110&&p[2]<90)}</script></body>')
    dom = subprocess.run([chromium, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=5000',
                          f'--user-data-dir={tmp_path / "profile"}', '--dump-dom', str(page)],
                         capture_output=True, text=True, timeout=60).stdout
    assert '<title>shows 320x240 of 2.0 s, red true</title>' in dom


def test_a_disk_that_fills_up_while_the_video_is_made_leaves_no_half_video(filmed, tmp_path):
    shutil.copy(filmed / 'episode.mcap', tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RecordError, match='is the disk full'):
            make_video(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ['episode.mcap']


def test_a_trial_that_was_not_filmed_has_no_video(tmp_path):
    writer = EpisodeWriter(tmp_path)
    writer.step({'step': 0}, 1)
    writer.close()
    assert video_of(tmp_path) is None
    with pytest.raises(RecordError, match='cannot be read'):
        video_of(tmp_path / 'nowhere')
