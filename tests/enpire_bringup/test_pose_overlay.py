"""What is written over a small image can be read to its end."""

import cv2
import numpy as np
import pytest

from drawn_scene import ITEM

from enpire_bringup.object_tracking import Look
from enpire_bringup.planar_pose import nothing_found
from enpire_bringup.pose_overlay import draw_look, wrapped

REASON = 'it is silent: no new image for 1.2 s (its 1 publisher(s) send nothing)'


@pytest.mark.parametrize('width', [160, 320, 640])
def test_text_is_wrapped_to_the_width_of_the_image_and_nothing_is_lost(width):
    rows = wrapped(REASON, 0.35, width)
    assert ' '.join(rows) == REASON
    assert all(cv2.getTextSize(row, cv2.FONT_HERSHEY_SIMPLEX, 0.35, 1)[0][0] <= width for row in rows)
    assert (len(rows) == 1) == (width == 640)


def test_overlay_of_a_small_image_leaves_its_right_edge_free_of_text():
    drawn = draw_look(np.full((240, 320, 3), 100, np.uint8), Look({ITEM.name: nothing_found(REASON)}), [ITEM], None)
    written = (drawn != 100).any(axis=2)
    assert written[200:].any() and not written[:, -4:].any()
