"""Parameters of a running node: what may change, and what is refused, with which words."""

from __future__ import annotations

import math

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.station_node import StationNode


class Adjustable(StationNode):
    def __init__(self, **kwargs):
        super().__init__('adjustable', **kwargs)
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self.speed = self.declare_adjustable('speed', 0.5, 0.1, 1.0, 'm/s')


@pytest.fixture(scope='module')
def context():
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    yield context
    context.try_shutdown()


@pytest.fixture
def make_node(context):
    """make_node(**parameters) -> a node that an executor has, as a running one."""
    made = []

    def make(**parameters) -> Adjustable:
        values = {'station': 'yam_bimanual_sim', 'task': 'push_t', 'use_sim_time': True, **parameters}
        node = Adjustable(context=context, parameter_overrides=[
            Parameter(name, value=value) for name, value in values.items()])
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        made.append((node, executor))
        return node

    yield make
    for node, executor in made:
        executor.shutdown(timeout_sec=0.0)
        node.destroy_node()


def outcome(node, name, value):
    result, = node.set_parameters([Parameter(name, value=value)])
    return result


@pytest.mark.parametrize('name, value', [
    ('station', 'another'), ('task', 'another'), ('real_time_factor', 3.0), ('camera_width', 1280),
    ('use_sim_time', True)])
def test_what_a_node_read_at_its_start_is_refused_while_it_runs(make_node, name, value):
    node = make_node()
    before = node.get_parameter(name).value
    result = outcome(node, name, value)
    assert not result.successful
    assert f"adjustable: parameter '{name}' cannot change while the node runs" in result.reason
    assert 'stop the station' in result.reason
    after = node.get_parameter(name).value
    assert after == before or (math.isnan(after) and math.isnan(before))


@pytest.mark.parametrize('value', [0.09, 1.1, -1.0, math.nan, math.inf])
def test_a_value_out_of_range_is_refused_and_the_old_one_stays(make_node, value):
    node = make_node()
    result = outcome(node, 'speed', value)
    assert not result.successful
    assert result.reason == f"adjustable: parameter 'speed' is {value!r}; expected a number from 0.1 to 1 m/s"
    assert node.get_parameter('speed').value == 0.5


@pytest.mark.parametrize('value', [True, 'fast', 1])
def test_a_value_of_another_type_is_refused(make_node, value):
    node = make_node()
    assert not outcome(node, 'speed', value).successful
    assert node.get_parameter('speed').value == 0.5


def test_a_value_in_range_is_taken_while_the_node_runs(make_node):
    node = make_node()
    assert outcome(node, 'speed', 1.0).successful
    assert node.get_parameter('speed').value == 1.0


def test_a_refused_parameter_keeps_the_others_of_the_same_request_from_changing(make_node):
    node = make_node()
    result = node.set_parameters_atomically([Parameter('speed', value=0.7), Parameter('task', value='another')])
    assert not result.successful
    assert node.get_parameter('speed').value == 0.5


def test_a_node_does_not_start_with_a_value_out_of_range(make_node):
    with pytest.raises(ConfigurationError, match=r"parameter 'speed' is 7.0; expected a number from 0.1 to 1 m/s"):
        make_node(speed=7.0)
