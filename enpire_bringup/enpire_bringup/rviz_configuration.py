"""The RViz configuration of one station: what every station has (rviz/station.rviz), and its cameras and arms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.composition import STANDARD_REMAPPINGS
from enpire_bringup.guard import guard_limits
from enpire_bringup.paths import share_directory
from enpire_bringup.station import Station


def rviz_configuration(station: Station, task: ArmTask) -> dict:
    """The configuration as data; every topic is relative to the station's namespace."""
    configuration = yaml.safe_load((share_directory() / 'rviz' / 'station.rviz').read_text())
    manager = configuration['Visualization Manager']
    seen_by = {item.camera for item in task.objects.values()}
    displays = manager['Displays']
    # Images are drawn only where a camera would render for perception anyway; the others wait for a tick in their box.
    displays += [_image(f'{name} camera, what perception sees', f'{name}_camera/overlay', True)
                 for name in station.cameras if name in seen_by]
    displays += [_image(f'{name} camera', camera.image_topic, False) for name, camera in station.cameras.items()]
    displays += [_pose(f'{arm} servo target', f'{arm}/servo') for arm in station.arms]
    limits = guard_limits(station, task)
    x, y, _ = (np.add(limits.workspace_low, limits.workspace_high) / 2).tolist()
    next(display for display in displays if display['Name'] == 'Table')['Offset'] = {'X': x, 'Y': y, 'Z': 0}
    manager['Views']['Current']['Focal Point'] = {'X': x, 'Y': y, 'Z': 0.1}
    return configuration


def write_rviz_configuration(station: Station, task: ArmTask, file: Path) -> Path:
    """Write the configuration of a station; returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(rviz_configuration(station, task), sort_keys=False))
    return file


def rviz_arguments(file: Path, namespace: str) -> list[str]:
    """Arguments of the executable rviz2 for the station in `namespace`, e.g. "/station_1"."""
    remappings = [('__ns', namespace), *STANDARD_REMAPPINGS]
    return ['-d', str(file), '--ros-args', *(part for old, new in remappings for part in ('-r', f'{old}:={new}'))]


def _image(name: str, topic: str, enabled: bool) -> dict:
    return {'Class': 'rviz_default_plugins/Image', 'Name': name, 'Enabled': enabled, 'Value': enabled,
            'Topic': {'Value': topic, 'Reliability Policy': 'Best Effort', 'Durability Policy': 'Volatile',
                      'History Policy': 'Keep Last', 'Depth': 2}}


def _pose(name: str, topic: str) -> dict:
    return {'Class': 'rviz_default_plugins/Pose', 'Name': name, 'Enabled': True, 'Value': True, 'Shape': 'Axes',
            'Axes Length': 0.05, 'Axes Radius': 0.005,
            'Topic': {'Value': topic, 'Reliability Policy': 'Best Effort', 'Durability Policy': 'Volatile',
                      'History Policy': 'Keep Last', 'Depth': 1}}
