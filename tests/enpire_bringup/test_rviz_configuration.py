"""RViz shows what the station publishes: every topic exists with the type its display needs, and every frame too."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from enpire_bringup.paths import share_directory
from enpire_bringup.robot_description import robot_description
from enpire_bringup.rviz_configuration import rviz_arguments, rviz_configuration, write_rviz_configuration
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task
from enpire_bringup.topics import station_topics

TYPES = {'RobotModel': 'std_msgs/msg/String', 'MarkerArray': 'visualization_msgs/msg/MarkerArray',
         'Path': 'nav_msgs/msg/Path', 'Image': 'sensor_msgs/msg/Image', 'Pose': 'geometry_msgs/msg/PoseStamped'}
STATIONS = sorted(file.stem for file in (share_directory() / 'config' / 'stations').glob('*.yaml')
                  if load_station(file).arms)


@pytest.fixture(params=STATIONS)
def station(request):
    return load_station(request.param)


@pytest.fixture
def task():
    return load_task('push_t')


def displays(station, task):
    return rviz_configuration(station, task)['Visualization Manager']['Displays']


def kind(display):
    return display['Class'].partition('/')[2]


def test_every_topic_is_one_of_the_station_with_the_displays_type(station, task):
    published = {topic.name: topic for topic in station_topics(station, task)}
    shown = 0
    for display in displays(station, task):
        topic = display.get('Topic') or display.get('Description Topic')
        if topic is None:
            assert kind(display) in ('Grid', 'TF')
            continue
        assert published[topic['Value']].type == TYPES[kind(display)], display['Name']
        shown += 1
    assert shown >= 5


def test_latched_topics_are_asked_for_what_was_said_before(station, task):
    latched = {topic.name for topic in station_topics(station, task) if topic.latched}
    for display in displays(station, task):
        topic = display.get('Topic') or display.get('Description Topic')
        if topic is not None:
            assert (topic['Durability Policy'] == 'Transient Local') == (topic['Value'] in latched), display['Name']


def test_every_camera_and_arm_of_the_station_has_its_display(station, task):
    topics = {display['Topic']['Value'] for display in displays(station, task) if 'Topic' in display}
    assert {camera.image_topic for camera in station.cameras.values()} <= topics
    assert {f'{arm}/servo' for arm in station.arms} <= topics
    assert {f'{item.camera}_camera/overlay' for item in task.objects.values()} <= topics


def test_only_cameras_that_render_anyway_are_shown_from_the_start(station, task):
    shown = {display['Topic']['Value'] for display in displays(station, task)
             if kind(display) == 'Image' and display['Enabled']}
    assert shown == {f'{item.camera}_camera/overlay' for item in task.objects.values()}


def test_its_frames_exist(station, task):
    links = {link.get('name') for link in ElementTree.fromstring(robot_description(station)).findall('link')}
    manager = rviz_configuration(station, task)['Visualization Manager']
    frames = {manager['Global Options']['Fixed Frame'], manager['Views']['Current']['Target Frame']}
    frames |= {display['Reference Frame'] for display in manager['Displays'] if 'Reference Frame' in display}
    assert frames <= links


def test_the_shipped_file_names_no_camera_and_no_arm(station):
    shared = (share_directory() / 'rviz' / 'station.rviz').read_text()
    for name in (*station.cameras, *station.arms):
        assert f'{name}_camera' not in shared and f'{name}/' not in shared


def test_rviz_starts_in_the_stations_namespace(station, task, tmp_path):
    file = write_rviz_configuration(station, task, tmp_path / 'a' / 'station.rviz')
    arguments = rviz_arguments(file, '/lab/station_2')
    assert arguments[:2] == ['-d', str(file)] and file.is_file()
    assert '__ns:=/lab/station_2' in arguments and '/tf:=tf' in arguments and '/clock:=clock' in arguments
