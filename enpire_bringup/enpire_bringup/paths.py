"""Where the suite's files are: shipped data, and results."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

from enpire_bringup.configuration import ConfigurationError

PIP_SCHEME = 'pip://'
ROS_SCHEME = 'package://'


def share_directory() -> Path:
    """The folder with `config`, `tasks`, `description` and `rviz` of enpire_bringup."""
    source = Path(__file__).resolve().parents[1]
    if (source / 'package.xml').is_file():
        # Run from the sources (also through colcon's symlink install): edits and new tasks count at once.
        return source
    from ament_index_python.packages import get_package_share_directory
    return Path(get_package_share_directory('enpire_bringup'))


def runs_directory() -> Path:
    """Where campaigns are written: $ENPIRE_RUNS, else `runs` in the current folder."""
    return Path(os.environ.get('ENPIRE_RUNS') or 'runs').resolve()


def resource(name: str, beside: Path) -> Path:
    """The file or folder that a configuration file in the folder `beside` means by `name`.

    A path (relative to that folder, else to the share folder), "package://<ROS package>/<path in its share folder>",
    or "pip://<distribution>[==<version>]/<path>", what an installed Python package brings. Raises
    ConfigurationError saying what is missing and how to get it.
    """
    if name.startswith(PIP_SCHEME):
        return _distribution_file(name)
    if name.startswith(ROS_SCHEME):
        return _ros_package_file(name)
    for base in (beside, share_directory()):
        if (base / name).exists():
            return (base / name).resolve()
    raise ConfigurationError(f"is '{name}': no such file beside {beside} or in {share_directory()}")


def _distribution_file(name: str) -> Path:
    requirement, _, path = name.removeprefix(PIP_SCHEME).partition('/')
    distribution, _, version = requirement.partition('==')
    install = f'python -m pip install {requirement}'
    try:
        installed = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigurationError(f"is '{name}', but the Python package {distribution} is not installed; type: "
                                 f'{install}') from None
    if version and installed.version != version:
        raise ConfigurationError(f"is '{name}', but {distribution} {installed.version} is installed; type: {install}")
    file = Path(installed.locate_file(path))
    if not path or not file.exists():
        raise ConfigurationError(f"is '{name}', but {distribution} {installed.version} has no file '{path}'")
    return file.resolve()


def _ros_package_file(name: str) -> Path:
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    package, _, path = name.removeprefix(ROS_SCHEME).partition('/')
    try:
        file = Path(get_package_share_directory(package)) / path
    except (PackageNotFoundError, ValueError):
        raise ConfigurationError(f"is '{name}', but the ROS package {package} is not installed; type: sudo apt-get "
                                 f"install ros-$ROS_DISTRO-{package.replace('_', '-')}, or build it and source its "
                                 'workspace') from None
    if not file.exists():
        raise ConfigurationError(f"is '{name}', but {package} has no file '{path}'")
    return file.resolve()
