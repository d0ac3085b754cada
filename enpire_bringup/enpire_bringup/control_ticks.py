"""On which control ticks the steps of policies and cameras begin."""

from __future__ import annotations

import math


def is_policy_tick(tick: int, rate: float, control_rate: float) -> bool:
    """Whether a step of `rate` (Hz) begins at this control tick: the ticks ceil(k * control_rate / rate)."""
    # tick = ceil(k * ratio) for some k  <=>  an integer k lies in (tick - 1, tick] / ratio
    ratio = control_rate / rate
    return math.floor(tick / ratio + 1e-9) > math.floor((tick - 1) / ratio + 1e-9)
