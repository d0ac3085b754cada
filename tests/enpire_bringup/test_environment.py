"""What decides what a score means is in one hash."""

import shutil

import pytest

from enpire_bringup import environment
from enpire_bringup.environment import (EnvironmentWatch, environment_files, environment_hash, package_folder,
                                        read_environment)
from enpire_bringup.paths import share_directory
from enpire_bringup.station import load_station, overridden
from enpire_bringup.task import load_task


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Task and scoring code as copies that may be changed; (task, station, folder of the copies)."""
    shutil.copytree(share_directory() / 'tasks' / 'push_t', tmp_path / 'push_t')
    for name in ('enpire_reward', 'enpire_agent'):
        shutil.copytree(package_folder(name), tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
    monkeypatch.setattr(environment, 'package_folder', lambda name: tmp_path / name)
    return load_task(tmp_path / 'push_t'), load_station('yam_bimanual_sim'), tmp_path


@pytest.mark.parametrize('file', [
    'push_t/task.yaml', 'push_t/scene.xml', 'push_t/reward.py', 'push_t/reset.py', 'enpire_agent/score.py',
    'enpire_reward/judge.py', 'enpire_reward/toolkit/stillness.py'])
def test_whoever_tampers_with_task_reward_or_scorer_changes_the_hash(copied, file):
    task, station, folder = copied
    before = environment_hash(task, station)
    assert environment_hash(task, station) == before
    (folder / file).write_text((folder / file).read_text() + '\n# kinder\n')
    assert environment_hash(task, station) != before


def test_what_the_scene_draws_in_belongs_to_the_environment(copied):
    task, station, folder = copied
    part = folder / 'push_t' / 'parts' / 'fence.xml'
    part.parent.mkdir()
    part.write_text('<mujoco><worldbody><geom name="fence" type="box" size="0.1 0.1 0.1"/></worldbody></mujoco>')
    scene = folder / 'push_t' / 'scene.xml'
    scene.write_text(scene.read_text().replace('<worldbody>', '<include file="parts/fence.xml"/>\n<worldbody>', 1))
    before = read_environment(task, station)
    assert environment_files(task, station)['scene/parts/fence.xml'] == part
    part.write_text(part.read_text().replace('0.1 0.1 0.1', '0.1 0.1 0.0001'))
    assert before.changes(read_environment(task, station)) == [
        f'{part} (scene/parts/fence.xml) was changed (90 bytes before, 93 now)']


def test_the_recipe_and_the_ideas_are_free_to_change(copied):
    task, station, folder = copied
    before = environment_hash(task, station)
    (folder / 'push_t' / 'recipe' / 'policy.py').write_text('# better')
    assert environment_hash(task, station) == before
    assert not any('recipe' in str(file.relative_to(folder)) for file in environment_files(task, station).values()
                   if folder in file.parents and 'push_t' in file.parts)


def test_what_was_changed_is_named_with_its_file(copied):
    task, station, folder = copied
    watch = EnvironmentWatch(task, station, read_environment(task, station))
    assert watch.changes() == []
    (folder / 'push_t' / 'reward.py').write_text('# kind')
    (folder / 'enpire_reward' / 'more.py').write_text('')
    assert watch.changes() == [
        f'{folder}/push_t/reward.py (reward) was changed (1476 bytes before, 6 now)',
        f'{folder}/enpire_reward/more.py (verdict/more.py) was added']
    (folder / 'push_t' / 'reset.py').unlink()
    assert watch.changes() == [f'{folder}/push_t/reset.py cannot be read']


def test_another_camera_size_is_another_environment(copied):
    task, station, _ = copied
    small = read_environment(task, overridden(station, camera_width=320, camera_height=240))
    usual = read_environment(task, station)
    assert small.env_hash != usual.env_hash and all('camera' in said for said in usual.changes(small))
