import base64
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from enpire_agent.report import encode_video, write_report
from enpire_agent.trial_record import EpisodeRecorder
from enpire_bringup.configuration import ConfigurationError


def _film(directory, color):
    directory.mkdir(parents=True)
    recorder = EpisodeRecorder(directory)
    for k in range(20):
        image = np.full((240, 320, 3), 235, np.uint8)
        cv2.rectangle(image, (20 + 8 * k, 90), (80 + 8 * k, 150), color, -1)
        recorder.frame('top_camera/color/image_raw/compressed', image, 'top', 10**9 + k * 100_000_000)
    recorder.close()


@pytest.fixture
def campaign_directory(make_campaign):
    campaign, world, _ = make_campaign()
    state = campaign.run()
    trials = campaign.directory / 'trials'
    _film(trials / state.baseline.trial_ids[0], (200, 60, 40))
    for trial_id in state.gate.trial_ids:
        _film(trials / trial_id, (40, 160, 90))
        break
    return campaign.directory.parent


def test_the_report_is_one_page_that_shows_the_whole_campaign(campaign_directory):
    page = write_report(campaign_directory).read_text()
    assert page.count('data:video/webm;base64,') == 2
    assert '<svg' in page and 'A curved approach' in page
    assert 'class="add">+  curve: true' in page and 'class="del">-  curve: false' in page
    assert 'of 20 fresh seeds' in page
    assert 'chain intact' in page
    outside = [link for link in re.findall(r'(?:src|href)="([^"]+)"', page)
               if not link.startswith(('data:', '#'))]
    assert outside == [], 'nothing is loaded from elsewhere'


def test_texts_of_a_recipe_cannot_change_the_page(campaign_directory):
    file = next(campaign_directory.glob('*/campaign.json'))
    file.write_text(file.read_text().replace('A curved approach', '<script>alert(1)</script>'))
    assert '<script>' not in write_report(campaign_directory).read_text()


def test_a_broken_ledger_is_said_on_the_page(campaign_directory):
    ledger = next(campaign_directory.glob('*/ledger.jsonl'))
    ledger.write_text(ledger.read_text().replace('TIMEOUT', 'SUCCESS', 1))
    assert 'was changed: its content does not give its hash' in write_report(campaign_directory).read_text()


def test_a_folder_without_a_campaign_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigurationError, match='no campaign in it'):
        write_report(tmp_path)


def test_a_video_plays_in_chromium(tmp_path):
    chromium = shutil.which('chromium')
    if chromium is None:
        pytest.skip('no chromium here')
    ok, jpeg = cv2.imencode('.jpg', np.full((300, 400, 3), (40, 160, 40), np.uint8))
    data = base64.b64encode(encode_video([jpeg.tobytes()] * 15)).decode()
    page = tmp_path / 'page.html'
    page.write_text(f'<body style="margin:0"><video muted autoplay src="data:video/webm;base64,{data}"></video>'
                    '<script>v=document.querySelector("video");v.onloadeddata=()=>document.title='
                    '"plays "+v.videoWidth+"x"+v.videoHeight+" "+v.duration.toFixed(2)</script></body>')
    dom = subprocess.run([chromium, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=5000',
                          f'--user-data-dir={tmp_path / "profile"}', '--dump-dom', str(page)],
                         capture_output=True, text=True, timeout=60).stdout
    assert '<title>plays 400x300 0.75</title>' in dom


def test_no_frames_make_no_video():
    assert encode_video([]) == b''
