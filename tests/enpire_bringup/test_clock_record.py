"""ROS time of a world that is started again lies beyond all that was published before."""

from enpire_bringup import clock_record
from enpire_bringup.clock_record import ClockRecord

SECOND = 1_000_000_000


def test_a_world_goes_on_beyond_what_the_one_before_it_can_have_reached(tmp_path, monkeypatch):
    wall = [100.0]
    monkeypatch.setattr(clock_record.time, 'monotonic', lambda: wall[0])
    file = tmp_path / 'station_1' / 'clock.json'
    record = ClockRecord(file)
    assert record.continues_at() == 0
    stamp = 0
    for _ in range(1000):       # ten times as fast as the wall clock, killed at any of these moments
        wall[0] += 0.01
        stamp += SECOND // 10
        record.note(stamp)
        if stamp > 5 * SECOND:
            assert stamp < ClockRecord(file).continues_at() < stamp + 30 * SECOND


def test_another_run_of_the_station_begins_at_zero(tmp_path, monkeypatch):
    file = tmp_path / 'clock.json'
    ClockRecord(file).note(7 * SECOND)
    assert ClockRecord(file).continues_at() > 7 * SECOND
    monkeypatch.setattr(clock_record, '_run', lambda: [1, 0.0])
    assert ClockRecord(file).continues_at() == 0


def test_a_broken_record_is_none(tmp_path):
    file = tmp_path / 'clock.json'
    for content in ('', '[]', '{"run": 1}', '{"run": null, "stamp": "x"}'):
        file.write_text(content)
        assert ClockRecord(file).continues_at() == 0
