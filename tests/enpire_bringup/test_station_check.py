"""What a person hears about a station before anything is started."""

import dataclasses

import pytest

from enpire_bringup import station_check
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.obstacles import Obstacle
from enpire_bringup.station import load_station


@pytest.fixture(scope='module')
def panda():
    return load_station('panda_sim')


def changed(station, **values):
    return dataclasses.replace(station, arms={'left': dataclasses.replace(station.arms['left'], **values)})


def problems(station, task):
    return {finding.what: str(finding) for finding in station_check.check_station(station, task) if not finding.good}


def test_stations_that_ship_have_no_problem(panda, station, task):
    assert problems(panda, task) == {} and problems(station, task) == {}


def test_an_arm_that_stands_too_far_away_does_not_reach(panda, task):
    found = problems(changed(panda, base_xyz=(0.36, -0.9, 0.0)), task)
    assert 'the tool reaches' in found['left: reach'] and 'move arms.left.base' in found['left: reach']


def test_home_outside_the_workspace_is_a_problem(panda, task):
    found = problems(changed(panda, named={'home': (1.2, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)}), task)
    assert 'the tool is out of the workspace: ' in found['left: home']


def test_home_that_touches_a_box_of_the_station_is_a_problem(panda, task):
    box = Obstacle('shelf', xyz=(0.36, -0.25, 0.5), rpy=(0.0, 0.0, 0.0), size=(0.1, 0.1, 0.1))
    found = problems(dataclasses.replace(panda, obstacles=(box,)), task)
    assert 'touches box shelf' in found['left: home'] or 'box shelf touches' in found['left: home']


def test_a_camera_that_looks_elsewhere_is_a_problem(panda, task):
    camera = dataclasses.replace(panda.cameras['top'], look_at=(1.5, 1.0, 0.0))
    found = problems(dataclasses.replace(panda, cameras={'top': camera}), task)
    assert 'of 4 corners' in found['top: view'] and 'cameras.top' in found['top: view']


def test_an_arm_that_the_task_names_has_to_be_there(panda, task):
    alone = dataclasses.replace(panda, arms={'only': dataclasses.replace(panda.arms['left'], name='only')})
    with pytest.raises(ConfigurationError, match="action.arm is 'left', but .*panda_sim.yaml has only: only"):
        station_check.check_station(alone, task)


def test_the_command_prints_findings_and_saves_pictures(capsys, tmp_path):
    assert station_check.run('panda_sim', 'push_t', str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert said.count('ok ') == 4 and (tmp_path / 'top.png').stat().st_size > 5000
    assert station_check.run('nowhere', 'push_t') == 2
    assert "no station 'nowhere'" in capsys.readouterr().err
