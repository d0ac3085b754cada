"""Parts for reward programs (`reward.py` of a task). Plain Python, numpy and OpenCV: no ROS, no files.

    from enpire_reward.toolkit import StillnessTracker, abstain, check, judged, pose_difference

What there is, with an example of each: docs/reward_toolkit.md.
"""

from __future__ import annotations

import importlib

_PARTS = {
    'checks': ('abstain', 'check', 'judged'),
    'contours': ('Contour', 'find_contours', 'largest_contour'),
    'forces': ('EffortBaseline', 'force_from_torques', 'grip_force'),
    'heights': ('height_in', 'height_map'),
    'masks': ('color_mask', 'gray_mask', 'mask_share', 'polygon_mask', 'without_specks'),
    'overlaps': ('coverage', 'intersection_area', 'polygon_area'),
    'poses': ('angle_difference', 'placed', 'pose_difference', 'pose_of_contour'),
    'projection': ('on_table', 'to_pixels'),
    'stillness': ('StillnessTracker', 'changed_share'),
}
_MODULE = {name: module for module, names in _PARTS.items() for name in names}
__all__ = sorted(_MODULE)


def __getattr__(name: str):
    # A program that needs no images does not wait for OpenCV.
    if name not in _MODULE:
        raise AttributeError(f"enpire_reward.toolkit has no '{name}'; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f'{__name__}.{_MODULE[name]}'), name)
