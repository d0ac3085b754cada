"""Limits come from the station; task and recipe may tighten them, and an attempt to loosen one is refused."""

from dataclasses import replace

import pytest

from enpire_bringup.configuration import ConfigurationError, Section, read_yaml
from enpire_bringup.guard import guard_limits
from enpire_bringup.safety_limits import LIMITS, SafetyLimits, read_changes, read_limits, tightened


def changes(**values):
    return read_changes(Section(values, 'recipe.yaml', 'limits'))


def test_limits_survive_the_way_through_their_names(station):
    values = station.safety.values()
    assert set(values) == set(LIMITS)
    assert SafetyLimits.of(values) == station.safety


@pytest.mark.parametrize('name', LIMITS)
def test_each_limit_can_be_tightened_and_none_loosened(station, name):
    limit, value = LIMITS[name], station.safety.values()[name]
    step = 0.01 * max(abs(value), 0.01) * (-1 if limit.ceiling else 1)
    assert tightened(station.safety, {name: value + step}, 'recipe.yaml', 'station.yaml').values()[name] == value + step
    assert tightened(station.safety, {name: value}, 'recipe.yaml', 'station.yaml') == station.safety
    with pytest.raises(ConfigurationError, match=rf'recipe\.yaml: limits\.{name} is .*, but station\.yaml allows .*; '
                                                 'limits may only be tightened'):
        tightened(station.safety, {name: value - step}, 'recipe.yaml', 'station.yaml')


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -1.0, 1e9])
def test_absurd_limit_is_refused(station, value):
    with pytest.raises(ConfigurationError, match='limits.max_tip_speed is'):
        tightened(station.safety, {'max_tip_speed': value}, 'parameter', 'the station')


def test_limits_are_written_as_in_a_station_file(station):
    found = changes(max_tip_speed=0.2, workspace={'x': [0.2, 0.5]})
    assert found == {'max_tip_speed': 0.2, 'workspace.x.low': 0.2, 'workspace.x.high': 0.5}
    limits = tightened(station.safety, found, 'recipe.yaml', 'station.yaml')
    assert limits.workspace_low == (0.2, *station.safety.workspace_low[1:])


@pytest.mark.parametrize('values, reason', [
    ({'max_tip_sped': 0.2}, r'recipe\.yaml: limits\.max_tip_sped is not a known key'),
    ({'max_tip_speed': 'slow'}, r"recipe\.yaml: limits\.max_tip_speed is the text 'slow'; expected .* m/s"),
    ({'workspace': {'x': [0.5, 0.2]}}, r'limits\.workspace\.x is \[0\.5, 0\.2\]'),
    ({'workspace': {'w': [0.2, 0.5]}}, r'limits\.workspace\.w is not a known key'),
])
def test_wrong_limit_names_file_key_and_unit(values, reason):
    with pytest.raises(ConfigurationError, match=reason):
        changes(**values)


def test_workspace_that_leaves_no_room_is_refused(station):
    with pytest.raises(ConfigurationError, match='limits.workspace.x leaves no room: 0.69 to 0.12 m'):
        tightened(station.safety, {'workspace.x.low': 0.69, 'workspace.x.high': 0.12}, 'recipe.yaml', 'station.yaml')


def test_station_without_one_of_the_limits_is_refused_with_its_unit(station):
    values = dict(read_yaml(station.file).raw('safety'))
    del values['max_tip_force']
    with pytest.raises(ConfigurationError, match=r'safety\.max_tip_force is missing; add it \(a number in N\)'):
        read_limits(Section(values, station.file, 'safety'))


def test_task_tightens_the_limits_of_its_station(station, task):
    assert guard_limits(station, task).max_tip_speed == task.limits['max_tip_speed'] < station.safety.max_tip_speed
    assert guard_limits(station, None) == station.safety
    with pytest.raises(ConfigurationError, match=r'limits\.max_tip_speed is 0\.9 m/s, but .* allows 0\.75 m/s'):
        guard_limits(station, replace(task, limits={'max_tip_speed': 0.9}))
