"""Seeds of trials: what a researcher may look at (even) and what decides "solved" (odd) never meet."""

from __future__ import annotations

import hashlib
import os

_MASK = (1 << 53) - 1   # exact in JSON readers that hold numbers as float64

GATE_KINDS = ('baseline', 'gate')


def search_seeds(campaign: str, count: int, first: int = 0) -> list[int]:
    """Even seeds `first` .. `first + count - 1` of a campaign's own stream; the same for the same name."""
    return [_number(hashlib.sha256(f'{campaign}/{index}'.encode()).digest()) & ~1
            for index in range(first, first + count)]


def gate_seed() -> int:
    """An odd seed from the operating system's random source: nobody has seen it before."""
    return _number(os.urandom(8)) | 1


def evaluation_seeds(stream: str, count: int) -> list[int]:
    """The first `count` seeds of a stream by its name; odd, as no search uses them; the same for the same name."""
    return [_number(hashlib.sha256(f'evaluation/{stream}/{index}'.encode()).digest()) | 1 for index in range(count)]


def check_seed(kind: str, seed: int) -> None:
    """Raises ValueError when a search would use a gate seed or a gate a search seed."""
    if kind == 'search' and seed % 2:
        raise ValueError(f'seed {seed} is odd: odd seeds belong to the gate. A search uses even seeds')
    if kind in GATE_KINDS and seed % 2 == 0:
        raise ValueError(f'seed {seed} is even: even seeds belong to the search. A {kind} trial uses odd seeds')


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], 'big') & _MASK
