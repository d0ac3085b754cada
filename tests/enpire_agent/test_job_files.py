"""What travels to machines without a shared disk, and how a difference there is named."""

import shutil

import pytest

from enpire_agent.evaluation import Job
from enpire_agent.job_files import JobFilesError, differences, loaded_modules, suite_fingerprint
from enpire_bringup.paths import share_directory
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task
from evaluated_jobs import short_push_t

STATION = 'yam_bimanual_sim'


@pytest.fixture
def job(tmp_path):
    task = short_push_t(tmp_path)
    return Job(str(task / 'recipe'), str(task), str(load_station(STATION).file))


def test_a_job_that_was_sent_has_the_same_files_in_the_same_environment(job, tmp_path):
    there = Job(*job.pack().unpack(tmp_path / 'elsewhere'))
    assert there.task == str(tmp_path / 'elsewhere' / 'task' / 'push_t')
    modules = 'enpire_agent.evaluation', 'enpire_bringup.world'
    assert differences(there.fingerprint(modules), job.fingerprint(modules)) == []
    for name in ('policy.py', 'recipe.yaml'):
        assert (tmp_path / 'elsewhere' / 'recipe' / name).read_bytes() == \
            (load_task(job.task).recipe / name).read_bytes()


def test_what_a_station_file_names_in_its_own_folder_travels_with_it(job, tmp_path):
    lab = tmp_path / 'lab'
    (lab / 'arms').mkdir(parents=True)
    shutil.copy(share_directory() / 'description' / 'yam.xml', lab / 'arms' / 'yam.xml')
    text = load_station(STATION).file.read_text()
    (lab / 'lab.yaml').write_text(text.replace('model: description/yam.xml', 'model: arms/yam.xml'))
    (lab / 'secret.txt').write_text('not named by anything')
    packed = Job(job.recipe, job.task, str(lab / 'lab.yaml')).pack()
    assert {name for name in packed.files if name.startswith('station/')} == {
        'station/lab/lab.yaml', 'station/lab/arms/yam.xml'}
    shutil.rmtree(lab)
    there = Job(*packed.unpack(tmp_path / 'elsewhere'))
    model = load_station(there.station).arms['left'].model
    assert model == tmp_path / 'elsewhere' / 'station' / 'lab' / 'arms' / 'yam.xml'


def test_links_in_a_recipe_and_huge_folders_are_refused(job, tmp_path, monkeypatch):
    key = tmp_path / 'key'
    key.write_text('of the user')
    link = load_task(job.task).recipe / 'weights.json'
    link.symlink_to(key)
    with pytest.raises(JobFilesError, match='weights.json is a link'):
        job.pack()
    link.unlink()
    monkeypatch.setattr('enpire_agent.job_files.MOST_BYTES', 1000)
    with pytest.raises(JobFilesError, match='other machines get at most 0 MB'):
        job.pack()


def test_differences_name_versions_and_files():
    modules = loaded_modules()
    assert 'enpire_agent.evaluation' in modules
    here = suite_fingerprint(modules)
    assert len(here['enpire_agent.evaluation']) == 64
    there = {**here, 'mujoco': '3.1.0', 'enpire_agent.evaluation': 'f' * 64}
    del there['numpy']
    assert differences(there, here) == [
        f'enpire_agent.evaluation is ffffffff... there, {here["enpire_agent.evaluation"][:8]}... here',
        f'mujoco is 3.1.0 there, {here["mujoco"]} here', f'numpy is missing there, {here["numpy"]} here']
