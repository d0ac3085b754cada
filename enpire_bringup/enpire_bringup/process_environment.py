"""The environment variables that the suite's processes need, however they are started."""

from __future__ import annotations

import os

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.paths import share_directory


_PROFILES = share_directory() / 'config'


def prepare_environment() -> None:
    """Set in this process's environment what nodes need; what the user has set stays.

    Must run before rclpy is initialised, so that this process can talk to the nodes.
    """
    defaults = {
        'FASTDDS_DEFAULT_PROFILES_FILE': str(_PROFILES / 'fastdds.xml'),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'MUJOCO_GL': 'osmesa',
        # Renderers and linear algebra of several nodes share few cores: threads of their own slow all down.
        'LP_NUM_THREADS': '0', 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1',
        'PYTHONUNBUFFERED': '1',
        # The memory of an image goes back to the allocator, not to the kernel: pages that come fresh for every image
        # cost a subscriber 1.6 ms of 2.5 on a virtual machine.
        'MALLOC_MMAP_THRESHOLD_': '33554432', 'MALLOC_TRIM_THRESHOLD_': '134217728',
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def image_environment() -> dict[str, str]:
    """What a process that publishes camera images needs on top: a larger shared-memory segment.

    Empty where the user has set a Fast DDS profile of their own.
    """
    if os.environ.get('FASTDDS_DEFAULT_PROFILES_FILE') not in (None, str(_PROFILES / 'fastdds.xml')):
        return {}
    return {'FASTDDS_DEFAULT_PROFILES_FILE': str(_PROFILES / 'fastdds_images.xml')}


def environment_domain() -> int:
    """$ROS_DOMAIN_ID, 0 where it is not set. Raises ConfigurationError."""
    text = os.environ.get('ROS_DOMAIN_ID') or '0'
    if not text.isdigit() or int(text) > 232:
        raise ConfigurationError(f"ROS_DOMAIN_ID is '{text}'; expected a whole number from 0 to 232")
    return int(text)
