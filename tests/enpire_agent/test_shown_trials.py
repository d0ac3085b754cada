import base64
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from recorded_campaign import film, record_campaign

from enpire_agent.shown_trials import best_and_worst, encode_video, film_strip
from enpire_agent.station_run import read_runs


@pytest.fixture
def jpeg():
    return cv2.imencode('.jpg', np.full((300, 400, 3), (40, 160, 40), np.uint8))[1].tobytes()


def filmed(directory, outcomes=None):
    """The runs of a campaign whose trials are filmed, all or those with certain outcomes."""
    runs = read_runs(directory)
    for run in runs:
        for trial_id, line in run.lines.items():
            if outcomes is None or line['outcome'] in outcomes:
                film(run.directory / 'trials' / trial_id, frames=4)
    return runs


def test_without_a_success_the_nearest_trial_is_the_best(tmp_path):
    runs = filmed(record_campaign(tmp_path / 'c', decisions=('revert',)), ('TIMEOUT', 'FAILURE'))
    for line in runs[0].lines.values():
        line['outcome'] = 'TIMEOUT' if line['outcome'] == 'SUCCESS' else line['outcome']
    best, worst = best_and_worst(runs)
    assert 'no trial succeeded' in best.why
    assert best.line['position_error'] < worst.line['position_error']


def test_when_every_trial_succeeded_the_slowest_is_the_worst(tmp_path):
    runs = filmed(record_campaign(tmp_path / 'c', decisions=('revert',), gate=5))
    for line in runs[0].lines.values():
        line['outcome'] = 'SUCCESS'
    best, worst = best_and_worst(runs)
    durations = [line['duration'] for line in runs[0].lines.values()]
    assert (best.line['duration'], worst.line['duration']) == (min(durations), max(durations))


def test_trials_that_say_nothing_or_were_not_filmed_are_not_shown(tmp_path):
    directory = record_campaign(tmp_path / 'c')
    assert best_and_worst(read_runs(directory)) == []
    assert best_and_worst(filmed(directory, ('ABORTED', 'RESET_FAILED'))) == []


def test_a_strip_shows_the_trial_from_start_to_end(jpeg):
    dark = cv2.imencode('.jpg', np.zeros((300, 400, 3), np.uint8))[1].tobytes()
    strip = cv2.imdecode(np.frombuffer(film_strip([jpeg] * 9 + [dark]), np.uint8), cv2.IMREAD_COLOR)
    assert strip.shape == (150, 5 * 200 + 4 * 4, 3)
    assert strip[75, 100, 1] > 120 and strip[75, -100, 1] < 20


def test_a_video_plays_in_chromium(tmp_path, jpeg):
    chromium = shutil.which('chromium')
    if chromium is None:
        pytest.skip('no chromium here')
    data = base64.b64encode(encode_video([jpeg] * 15)).decode()
    page = tmp_path / 'page.html'
    page.write_text(f'<body style="margin:0"><video muted autoplay src="data:video/webm;base64,{data}"></video>'
                    '<script>v=document.querySelector("video");v.onloadeddata=()=>document.title='
                    '"plays "+v.videoWidth+"x"+v.videoHeight+" "+v.duration.toFixed(2)</script></body>')
    dom = subprocess.run([chromium, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=5000',
                          f'--user-data-dir={tmp_path / "profile"}', '--dump-dom', str(page)],
                         capture_output=True, text=True, timeout=60).stdout
    assert '<title>plays 400x300 0.75</title>' in dom


def test_no_frames_make_no_video():
    assert encode_video([]) == b'' == film_strip([])
