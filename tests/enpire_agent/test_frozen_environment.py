"""The manifest of the environment: signed, held against what is on disk at start and at every score."""

import json
import shutil
import stat

import pytest

from enpire_agent.cli import main
from enpire_agent.frozen_environment import (EnvironmentChanged, check_scored, freeze, frozen_environment,
                                             keep_manifest, manifest_file, read_manifest)
from enpire_agent.signing_key import SigningError, check_signature, key_file, signed
from enpire_bringup.environment import environment_hash
from enpire_bringup.paths import share_directory
from enpire_bringup.station import load_station, overridden
from enpire_bringup.task import load_task


@pytest.fixture
def place(tmp_path):
    """(folder of runs, task that may be changed, station)"""
    shutil.copytree(share_directory() / 'tasks' / 'push_t', tmp_path / 'push_t')
    return tmp_path / 'runs', load_task(tmp_path / 'push_t'), load_station('yam_bimanual_sim')


def test_the_first_start_freezes_and_every_later_one_finds_it_unchanged(place):
    runs, task, station = place
    first = frozen_environment(runs, task, station)
    again = frozen_environment(runs, task, station)
    assert first.env_hash == again.env_hash == environment_hash(task, station)
    assert again.frozen == first.frozen and manifest_file(*place).is_file()


def test_a_change_refuses_the_start_and_names_file_and_way_out(place):
    runs, task, station = place
    frozen_environment(runs, task, station)
    task.reward.write_text(task.reward.read_text() + '\n# kinder\n')
    with pytest.raises(EnvironmentChanged, match=rf'{task.reward} \(reward\) was changed .*enpire env freeze'):
        frozen_environment(runs, task, station)
    freeze(runs, task, station)
    assert frozen_environment(runs, task, station).env_hash == environment_hash(task, station)


def test_stations_with_other_camera_sizes_share_a_manifest_and_differ_in_the_hash(place):
    runs, task, station = place
    small = overridden(station, camera_width=320, camera_height=240)
    assert frozen_environment(runs, task, small).env_hash == environment_hash(task, small)
    assert frozen_environment(runs, task, station).env_hash == environment_hash(task, station)


@pytest.mark.parametrize('change, said', [
    (lambda content: content['files'][0].update(sha256='0' * 64), 'changed after it was signed'),
    (lambda content: content.update(frozen='2020-01-01T00:00:00+00:00'), 'changed after it was signed'),
    (lambda content: content.pop('signature'), 'nobody signed it'),
    (lambda content: content.update(signature='abc'), 'changed after it was signed'),
    (lambda content: content.clear(), 'nobody signed it')])
def test_a_forged_manifest_is_refused(place, change, said):
    frozen_environment(*place)
    file = manifest_file(*place)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(EnvironmentChanged, match=said):
        frozen_environment(*place)


def test_a_manifest_that_another_key_signed_is_refused(place, monkeypatch, tmp_path):
    frozen_environment(*place)
    monkeypatch.setenv('ENPIRE_SIGNING_KEY', str(tmp_path / 'other' / 'key'))
    with pytest.raises(EnvironmentChanged, match='signed by another key'):
        frozen_environment(*place)


def test_the_key_is_made_once_for_its_owner_alone(monkeypatch, tmp_path):
    monkeypatch.setenv('ENPIRE_SIGNING_KEY', str(tmp_path / 'new' / 'key'))
    content = signed({'a': 1})
    check_signature(content, 'x')
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    assert signed({'a': 1}) == content
    key_file().write_text('not hex')
    with pytest.raises(SigningError, match='is no signing key'):
        signed({'a': 1})


def test_without_another_place_the_key_lies_in_the_user_s_configuration(monkeypatch, tmp_path):
    monkeypatch.delenv('ENPIRE_SIGNING_KEY')
    monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path))
    assert key_file() == tmp_path / 'enpire' / 'signing_key'


def test_a_score_goes_by_the_manifest_that_lies_with_its_trials(place, tmp_path, monkeypatch):
    runs, task, station = place
    folder, manifest = runs / 'c' / 'station_1', frozen_environment(runs, task, station)
    assert 'is not there' in check_scored(folder, manifest.env_hash)
    keep_manifest(folder, manifest)
    assert check_scored(folder, manifest.env_hash) == ''
    (kept,) = (folder / 'environments').iterdir()
    shutil.copy(kept, kept.with_name(f'{"f" * 64}.json'))
    with pytest.raises(EnvironmentChanged, match='not of this one'):
        check_scored(folder, 'f' * 64)

    scorer = tmp_path / 'score.py'
    scorer.write_text('# counts twice')
    monkeypatch.setattr('enpire_agent.frozen_environment.scorer_files', lambda: {'scorer/score.py': scorer})
    with pytest.raises(EnvironmentChanged, match='score.py: not as when these trials were made'):
        check_scored(folder, manifest.env_hash)
    assert 'score.py' in check_scored(folder, manifest.env_hash, any_scorer=True)


def test_env_freeze_verify_and_show_on_the_command_line(place, monkeypatch, capsys):
    runs, task, station = place
    monkeypatch.setenv('ENPIRE_RUNS', str(runs))
    asked = ['--task', str(task.directory)]
    assert main(['env', 'verify', *asked]) == 1 and 'nothing was frozen yet' in capsys.readouterr().out
    assert main(['env', 'show', *asked]) == 2 and './enpire env freeze' in capsys.readouterr().err
    assert main(['env', 'freeze', *asked]) == 0
    assert main(['env', 'verify', *asked]) == 0 and 'signature holds' in capsys.readouterr().out
    task.reset.write_text('# none')
    assert main(['env', 'verify', *asked]) == 1
    assert f'{task.reset} (reset) was changed' in capsys.readouterr().out
    assert main(['env', 'freeze', *asked]) == 0 and 'reset.py (reset) was changed' in capsys.readouterr().out
    assert main(['env', 'show', '--json', *asked]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown['env_hash'] == environment_hash(task, station)
    assert {'name', 'path', 'sha256', 'size'} == set(shown['files'][0])
    assert read_manifest(manifest_file(*place)).content() == shown
