"""Texts of ROS message definitions, as an MCAP file keeps them ("ros2msg"). Reads installed .msg files; no rclpy."""

from __future__ import annotations

from pathlib import Path

from enpire_agent.trial_record import RecordError

_SEPARATOR = '=' * 80
_PRIMITIVES = {'bool', 'byte', 'char', 'float32', 'float64', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32',
               'int64', 'uint64', 'string', 'wstring'}


def message_definition(type_name: str) -> str:
    """The text of a message definition such as "sensor_msgs/msg/JointState" with all it is made of ("ros2msg").

    Raises RecordError when the package is not installed with its definitions.
    """
    sections: list[str] = []
    waiting, seen = [_short(type_name)], set()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        text = _definition_file(name).read_text(encoding='utf-8')
        sections.append(text if not sections else f'{_SEPARATOR}\nMSG: {name}\n{text}')
        waiting += _parts(text, package=name.split('/')[0])
    return '\n'.join(section.rstrip('\n') + '\n' for section in sections)


def _short(type_name: str) -> str:
    package, *_, name = type_name.split('/')
    return f'{package}/{name}'


def _definition_file(name: str) -> Path:
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    package, message = name.split('/')
    try:
        file = Path(get_package_share_directory(package)) / 'msg' / f'{message}.msg'
    except PackageNotFoundError as error:
        raise RecordError(f'no package {package}, so its messages cannot be recorded') from error
    if not file.is_file():
        raise RecordError(f'{file} is not installed, so {name} cannot be recorded')
    return file


def _parts(text: str, package: str) -> list[str]:
    """Message types that a definition is made of, as "package/Name"."""
    parts = []
    for line in text.splitlines():
        words = line.split('#')[0].split()
        if len(words) < 2 or '=' in words[1] or (len(words) > 2 and words[2].startswith('=')):
            continue
        base = words[0].split('[')[0].split('<')[0]
        if base and base not in _PRIMITIVES:
            parts.append(base if '/' in base else ('std_msgs/Header' if base == 'Header' else f'{package}/{base}'))
    return parts
