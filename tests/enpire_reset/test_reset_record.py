"""Every reset is kept with its attempts, and giving up leaves a picture."""

import json
import math

import cv2
import numpy as np

from enpire_reset.reset_program import Attempt, ResetOutcome
from enpire_reset.reset_record import RECORD, ResetRecord, captioned


def test_every_reset_is_a_line_with_all_its_attempts(tmp_path):
    record = ResetRecord(tmp_path / 'station_1')
    missed = Attempt(False, 'the handle slipped', (0.3, 0.1, 0.0), None, math.nan, math.nan, 9.5)
    record.append(7, ResetOutcome(False, 'gone', (missed,), (0.3, 0.0, 0.1), None, math.nan, math.nan), 11.0, 'x.png')
    record.append(8, ResetOutcome(True, '', (), (0.3, 0.0, 0.1), (0.3, 0.0, 0.1), 0.0, 0.0), 1.0, '')
    first, second = [json.loads(line) for line in (tmp_path / 'station_1' / RECORD).read_text().splitlines()]
    assert first['seed'] == 7 and not first['success'] and first['picture'] == 'x.png'
    assert first['attempts'] == [{'success': False, 'reason': 'the handle slipped', 'before': [0.3, 0.1, 0.0],
                                  'after': None, 'position_error': None, 'yaw_error': None, 'duration': 9.5}]
    assert second['success'] and second['attempts'] == []


def test_picture_is_the_image_under_the_reason(tmp_path):
    image = np.full((120, 160, 3), (200, 30, 10), np.uint8)
    shown = captioned(image, 'the reset for seed 7 gave up: ' + 'nothing of its color is in view ' * 3)
    assert shown.shape[1] == 160 and shown.shape[0] > 140 and (shown[-120:] == image).all()
    assert shown[:-120].max() > 200      # the words
    file = ResetRecord(tmp_path).save_picture(7, shown)
    assert file.is_absolute() and file.suffix == '.png' and list(tmp_path.iterdir()) == [file]
    assert (cv2.imread(str(file))[:, :, ::-1] == shown).all()
