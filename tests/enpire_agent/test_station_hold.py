import threading
import time

from enpire_agent.station_hold import StationHold


def test_a_hold_outlives_the_process_that_was_told(tmp_path):
    file = tmp_path / '.stations' / 'station_1' / 'hold.json'
    StationHold(file).set('a person at the table')
    again = StationHold(file)
    assert again.reason == 'a person at the table'
    again.clear()
    assert StationHold(file).reason == '' and not file.exists()


def test_a_file_that_cannot_be_read_holds(tmp_path):
    file = tmp_path / 'hold.json'
    file.write_text('{"rea')
    assert 'cannot be read' in StationHold(file).reason


def test_who_waits_is_woken_when_it_is_cleared():
    hold = StationHold()
    hold.wait(60)       # not held: no wait
    hold.set('held')
    threading.Timer(0.05, hold.clear).start()
    began = time.monotonic()
    hold.wait(60)
    assert time.monotonic() - began < 30
