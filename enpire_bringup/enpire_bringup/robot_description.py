"""The station's URDF, and where its links are for given joint positions. No ROS."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Mapping

import numpy as np
import xacro

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.station import Station


def robot_description(station: Station) -> str:
    """The URDF text of the station, each arm at the base pose of the station file.

    Raises ConfigurationError naming the file when xacro cannot read it.
    """
    mappings = {}
    for arm in station.arms.values():
        mappings[f'{arm.prefix}xyz'] = ' '.join(map(repr, arm.base_xyz))
        mappings[f'{arm.prefix}rpy'] = ' '.join(map(repr, arm.base_rpy))
    return _expand(station.robot_description, tuple(mappings.items()))


@lru_cache(maxsize=4)
def _expand(file: Path, mappings: tuple[tuple[str, str], ...]) -> str:
    try:
        return xacro.process_file(str(file), mappings=dict(mappings)).toxml()
    except Exception as error:   # xacro raises its own and those of the XML parser
        raise ConfigurationError(f'{file}: xacro cannot read it: {error}') from error


@dataclass(frozen=True)
class _Joint:
    parent: str
    child: str
    fixed: bool


class LinkTransforms:
    """Transforms between the links of a URDF.

    joints: names of the joints that have a position, mimic joints left out.
    Raises ConfigurationError for a URDF that cannot be read.
    """

    def __init__(self, urdf: str):
        import pinocchio      # here: who only wants the URDF text, as a launch file does, may not have it

        try:
            self._model = pinocchio.buildModelFromXML(urdf)
            root = ElementTree.fromstring(urdf)
        except (ValueError, ElementTree.ParseError) as error:
            raise ConfigurationError(f'robot description: not a URDF: {error}') from error
        self._data = self._model.createData()
        self._joints = []
        self._mimics = {}
        for joint in root.findall('joint'):
            self._joints.append(_Joint(joint.find('parent').get('link'), joint.find('child').get('link'),
                                       joint.get('type') == 'fixed'))
            mimic = joint.find('mimic')
            if mimic is not None:
                self._mimics[joint.get('name')] = (mimic.get('joint'), float(mimic.get('multiplier', 1)),
                                                   float(mimic.get('offset', 0)))
        self._index = {name: self._model.joints[i].idx_q
                       for i, name in enumerate(self._model.names) if i > 0}
        self._frames = {frame.name: i for i, frame in enumerate(self._model.frames)
                        if frame.type == pinocchio.FrameType.BODY}
        self.joints = tuple(name for name in self._index if name not in self._mimics)

    def fixed(self) -> list[tuple[str, str, np.ndarray]]:
        """(parent link, child link, pose (4, 4) of the child in the parent) of every fixed joint."""
        return self._transforms({}, fixed=True)

    def moving(self, positions: Mapping[str, float]) -> list[tuple[str, str, np.ndarray]]:
        """The same of every other joint, for positions (rad, m) by joint name; joints not named are at 0."""
        return self._transforms(positions, fixed=False)

    def pose(self, link: str, positions: Mapping[str, float]) -> np.ndarray:
        """Pose (4, 4) of a link in the URDF's root link. Raises KeyError for an unknown link."""
        self._update(positions)
        return self._data.oMf[self._frames[link]].homogeneous

    def _transforms(self, positions, fixed):
        self._update(positions)
        placement = {name: self._data.oMf[index] for name, index in self._frames.items()}
        return [(j.parent, j.child, placement[j.parent].actInv(placement[j.child]).homogeneous)
                for j in self._joints if j.fixed == fixed]

    def _update(self, positions: Mapping[str, float]) -> None:
        import pinocchio

        q = pinocchio.neutral(self._model)
        for name, index in self._index.items():
            source, multiplier, offset = self._mimics.get(name, (name, 1.0, 0.0))
            q[index] = multiplier * positions.get(source, 0.0) + offset
        pinocchio.framesForwardKinematics(self._model, self._data, q)
