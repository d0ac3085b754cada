"""`enpire demo` on a terminal: it starts, shows what it does, and Ctrl-C ends all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_ctrl_c_ends_a_demo_and_all_its_processes_within_five_seconds(tmp_path, ros_domain):
    environment = {**os.environ, 'ENPIRE_RUNS': str(tmp_path / 'runs'), 'PYTHONUNBUFFERED': '1'}
    log = tmp_path / 'demo.log'
    with log.open('w') as output:
        demo = subprocess.Popen([sys.executable, '-m', 'enpire_agent.cli', 'demo', '--gate-trials', '2'],
                                stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + 80
        trial = 'demo/station_1/trials/*/started.json'
        while not list((tmp_path / 'runs').glob(trial)) or '| left ' not in log.read_text():
            assert demo.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        family = psutil.Process(demo.pid).children(recursive=True)
        assert len(family) >= 5
        began = time.monotonic()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=10) == 130
        took = time.monotonic() - began
    finally:
        if demo.poll() is None:
            demo.kill()
    left = [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert left == [] and took < 5.0, (took, left, log.read_text())
