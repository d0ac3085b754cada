"""The set-up: what it finds missing, what it says, and that it ends when asked to."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SET_UP = ROOT / 'enpire_bringup' / 'setup' / 'set_up.py'


@pytest.fixture
def set_up():
    spec = importlib.util.spec_from_file_location('set_up', SET_UP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_is_missing_on_a_machine_that_runs_these_tests(set_up):
    assert set_up.missing_system_packages(ROOT / 'apt.txt') == []


def test_missing_tools_are_named_by_their_package(set_up, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(set_up.ctypes.util, 'find_library', lambda _: None)
    assert set_up.missing_system_packages(ROOT / 'apt.txt') == ['git', 'make', 'gcc', 'g++', 'libosmesa6']


def test_without_rights_the_exact_line_to_type_is_said(set_up, monkeypatch):
    monkeypatch.setattr(set_up, 'missing_system_packages', lambda _: ['g++', 'libosmesa6'])
    monkeypatch.setattr(set_up, '_rights_to_install', lambda: None)
    monkeypatch.setattr(set_up.shutil, 'which', lambda name: f'/usr/bin/{name}')
    with pytest.raises(set_up.SetUpError, match=r'\n    sudo apt-get install -y g\+\+ libosmesa6\n'):
        set_up.SetUp(ROOT, '').system_packages()


def test_paths_of_the_wheels_build_machine_are_corrected_once_and_for_all(set_up, tmp_path):
    share = tmp_path / 'share' / 'a_msgs' / 'cmake'
    share.mkdir(parents=True)
    file = share / 'export.cmake'
    file.write_text('set(A "/opt/python/cp312-cp312/include/python3.12;'
                    '/opt/python/cp312-cp312/lib/python3.12/site-packages/numpy/_core/include")\n')
    set_up._correct_wheel_paths(tmp_path, Path(sys.executable))
    corrected = file.read_text()
    assert '/opt/python' not in corrected
    for folder in re.findall(r'"([^"]*)"', corrected)[0].split(';'):
        assert Path(folder).is_dir()
    set_up._correct_wheel_paths(tmp_path, Path(sys.executable))
    assert file.read_text() == corrected


def test_a_failing_step_shows_the_end_of_its_log(set_up, tmp_path):
    with pytest.raises(set_up.SetUpError, match='no space left') as error:
        set_up.run('unpacking', ['bash', '-c', 'echo no space left; exit 1'], tmp_path / 'log')
    assert str(tmp_path / 'log') in str(error.value)


def test_an_interrupted_step_leaves_no_process(tmp_path):
    script = tmp_path / 'step.py'
    script.write_text(f'''
import sys
sys.path.insert(0, {str(SET_UP.parent)!r})
sys.dont_write_bytecode = True
import set_up
from pathlib import Path
set_up.run('a long step', ['bash', '-c', 'trap "" INT TERM; sleep 1000 & sleep 1000 & wait; sleep 1000'], Path('log'))
''')
    step = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while len(family := psutil.Process(step.pid).children(recursive=True)) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        assert len(family) >= 3
        began = time.monotonic()
        step.send_signal(signal.SIGINT)
        step.wait(timeout=10)
        assert time.monotonic() - began < 5.0
        gone, alive = psutil.wait_procs(family, timeout=1.0)
        assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    finally:
        step.kill()
        step.wait()


@pytest.mark.parametrize('name', ['requirements.txt', 'requirements-build.txt', 'requirements-ros.txt',
                                  'constraints.txt'])
def test_every_python_package_is_pinned_exactly(name):
    lines = [line.partition('#')[0].strip() for line in (ROOT / name).read_text().splitlines()]
    for line in filter(None, lines):
        assert re.fullmatch(r'[A-Za-z0-9_.\[\]-]+==[0-9][0-9a-z.]*( *;.*)?', line), line


def test_without_a_suitable_python_the_package_to_install_is_said(tmp_path):
    tools = tmp_path / 'bin'
    tools.mkdir()
    for tool in ('bash', 'env', 'readlink', 'dirname', 'find', 'sort', 'xargs', 'sha256sum', 'cut', 'cat'):
        (tools / tool).symlink_to(subprocess.check_output(['which', tool], text=True).strip())
    root = tmp_path / 'clone'
    (root / 'enpire_bringup').mkdir(parents=True)
    (root / 'enpire_bringup' / 'setup').symlink_to(SET_UP.parent)
    (root / 'enpire').write_text((ROOT / 'enpire').read_text())
    result = subprocess.run(['bash', str(root / 'enpire'), 'status'], env={'PATH': str(tools)}, text=True,
                            capture_output=True)
    assert result.returncode == 2
    assert 'sudo apt-get install -y python3.11 python3.11-venv python3.11-dev' in result.stderr


def test_a_set_up_checkout_starts_at_once():
    environment = {**os.environ}
    subprocess.run([str(ROOT / 'enpire'), '--help'], check=True, capture_output=True, env=environment)
    began = time.monotonic()
    subprocess.run([str(ROOT / 'enpire'), '--help'], check=True, capture_output=True, env=environment)
    assert time.monotonic() - began < 2.0
