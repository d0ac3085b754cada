from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'enpire_bringup'
HERE = Path(__file__).resolve().parent


def share(folder):
    """data_files entries that install `folder` below share/, keeping its structure."""
    entries = {}
    for file in sorted((HERE / folder).rglob('*')):
        if file.is_file() and '__pycache__' not in file.parts:
            relative = file.relative_to(HERE)
            entries.setdefault(f'share/{PACKAGE}/{relative.parent}', []).append(str(relative))
    return list(entries.items())


setup(
    name=PACKAGE,
    version='0.1.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        *share('launch'), *share('config'), *share('description'), *share('rviz'), *share('tasks'),
    ],
    zip_safe=False,
    maintainer='ENPIRE for ROS 2 maintainers',
    maintainer_email='maintainers@enpire-ros2.org',
    description='The station of ENPIRE for ROS 2',
    license='Apache-2.0',
    entry_points={'console_scripts': [
        'node_group = enpire_bringup.node_group:main',
        'sim_station = enpire_bringup.sim_station_node:main',
        'sim_cameras = enpire_bringup.sim_cameras_node:main',
        'gym_station = enpire_bringup.gym_station_node:main',
        'trajectory_controller = enpire_bringup.trajectory_controller_node:main',
        'arm_control = enpire_bringup.arm_control_node:main',
        'camera_perception = enpire_bringup.camera_perception_node:main',
        'robot_state_publisher = enpire_bringup.robot_state_publisher_node:main',
        'station_markers = enpire_bringup.station_markers_node:main',
    ]},
)
