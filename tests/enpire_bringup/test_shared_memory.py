"""Shared memory of killed processes is freed, that of living ones is not touched."""

from __future__ import annotations

import fcntl
import os
import time

import pytest

from enpire_bringup.shared_memory import remove_dead_segments


@pytest.fixture
def segment(tmp_path):
    """segment(name, age): a segment of 1000 bytes with its lock file, `age` s old."""
    def make(name: str, age: float = 60.0):
        for file in (tmp_path / name, tmp_path / f'{name}_el'):
            file.write_bytes(b'x' * 1000 if file.name == name else b'')
            os.utime(file, (time.time() - age,) * 2)
        return tmp_path / name
    return make


def test_a_segment_nobody_holds_is_freed(segment, tmp_path):
    segment('fastdds_0123456789abcdef')
    assert remove_dead_segments(tmp_path) == 1000
    assert list(tmp_path.iterdir()) == []


def test_a_segment_in_use_stays(segment, tmp_path):
    used = segment('fastdds_0123456789abcdef')
    with (tmp_path / f'{used.name}_el').open('r+') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_dead_segments(tmp_path) == 0
    assert used.exists()


@pytest.mark.parametrize('name, age', [('fastdds_0123456789abcdef', 1.0), ('fastdds_port7410', 60.0),
                                       ('fastdds_0123', 60.0), ('other_0123456789abcdef', 60.0)])
def test_young_segments_ports_and_strangers_stay(segment, tmp_path, name, age):
    file = segment(name, age)
    assert remove_dead_segments(tmp_path) == 0
    assert file.exists()
