"""The station's URDF, and where its links are for given joint positions. No ROS.

A station file names a xacro or URDF file. One that describes a whole station has the link "world" and takes the base
poses as xacro arguments (<arm>_xyz, <arm>_rpy). One that describes an arm alone, as robot packages bring it, is put on
its base here. Either way the station file may add a tool frame, and every mesh file is named by where it lies.
"""

from __future__ import annotations

import math
import threading
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Mapping
from xml.sax.saxutils import quoteattr

import numpy as np
import xacro

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.paths import ROS_SCHEME, resource, share_directory
from enpire_bringup.station import Station, ToolFrame

WORLD = 'world'
HARDWARE = ('mock', 'topic_based', 'simulated')
BASE_TOLERANCE = 1e-4     # m, and a unit of a rotation matrix, between the base of station file and description
FILE_SCHEME = 'file://'

_xacro_lock = threading.Lock()      # xacro keeps what it included in a global list


def robot_description(station: Station, hardware: str = 'topic_based', *, for_viewers: bool = False) -> str:
    """The URDF text of the station, each arm at the base pose of the station file.

    hardware: behind the <ros2_control> block, one of HARDWARE; see description/ros2_control.xacro.
    for_viewers: with the meshes that the station file names, where they are installed.
    Raises ConfigurationError naming the file when it cannot be read or does not fit the station file.
    """
    if hardware not in HARDWARE:
        raise ConfigurationError(f"hardware is '{hardware}'; expected one of {', '.join(HARDWARE)}")
    return _described(station, hardware, _mesh_folder(station) if for_viewers else '').text


def description_files(station: Station) -> tuple[Path, ...]:
    """Every file that the robot description is made of: xacro, what it includes, and meshes that can be touched."""
    return _described(station, 'topic_based', '').files


def _mesh_folder(station: Station) -> str:
    """The folder that the station file names as `meshes`; '' where it is not there: nothing but looks depends on it."""
    try:
        return str(resource(station.meshes, station.file.parent)) if station.meshes else ''
    except ConfigurationError:
        return ''


def collision_geometry(model, urdf: str):
    """pinocchio.GeometryModel of everything that can be touched, without pairs, for distances that are cheap.

    model: pinocchio.Model of `urdf`. Meshes become their convex hulls, as in the simulated world, and the spheres that
    round off a capsule for readers who do not know capsules are left out.
    """
    import coal
    import pinocchio

    geometry = pinocchio.buildGeomFromUrdfString(model, urdf, pinocchio.GeometryType.COLLISION)
    shapes = list(geometry.geometryObjects)
    capsules = [shape for shape in shapes if isinstance(shape.geometry, coal.Capsule)]
    ends = [shape.name for shape in shapes if isinstance(shape.geometry, coal.Sphere)
            and any(_rounds_off(shape, capsule) for capsule in capsules)]
    for shape in shapes:
        if isinstance(shape.geometry, coal.BVHModelBase):
            shape.geometry.buildConvexHull(True, 'Qt')
            shape.geometry = shape.geometry.convex
    for name in ends:
        geometry.removeGeometryObject(name)
    return geometry


def _rounds_off(sphere, capsule) -> bool:
    """Whether a sphere is an end of a capsule of the same link."""
    if sphere.parentFrame != capsule.parentFrame or sphere.geometry.radius > capsule.geometry.radius + 1e-9:
        return False
    x, y, z = capsule.placement.actInv(sphere.placement).translation
    return math.hypot(x, y) < 1e-6 and abs(abs(z) - capsule.geometry.halfLength) < 1e-6


@dataclass(frozen=True)
class _Description:
    text: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Mount:
    """What of an arm decides about the description."""

    name: str
    prefix: str
    xyz: tuple[float, float, float]
    rpy: tuple[float, float, float]
    base_frame: str
    tcp_frame: str
    tool: ToolFrame | None
    joints: tuple[str, ...]     # gripper included
    home: tuple[float, ...]


def _described(station: Station, hardware: str, meshes: str) -> _Description:
    mounts = tuple(_Mount(arm.name, arm.prefix, arm.base_xyz, arm.base_rpy, arm.base_frame, arm.tcp_frame, arm.tool,
                          (*arm.joints, arm.gripper.joint), (*arm.named['home'], arm.gripper.closed))
                   for arm in station.arms.values())
    return _describe(station.robot_description, station.file, mounts, hardware, meshes)


@lru_cache(maxsize=8)
def _describe(file: Path, station_file: Path, mounts: tuple[_Mount, ...], hardware: str, meshes: str) -> _Description:
    mappings = {'hardware': hardware, 'meshes': meshes}
    for mount in mounts:
        mappings[f'{mount.prefix}xyz'] = _numbers(mount.xyz)
        mappings[f'{mount.prefix}rpy'] = _numbers(mount.rpy)
    text, included = _expand(file, mappings)
    robot = ElementTree.fromstring(text)
    links = {link.get('name') for link in robot.findall('link')}
    for mount in mounts:
        if mount.base_frame not in links:
            raise ConfigurationError(f"{station_file}: arms.{mount.name}.base_frame is '{mount.base_frame}'; no such "
                                     f'link in {file}; it has {", ".join(sorted(links))}')
    if WORLD in links:
        _check_bases(robot, mounts, file, station_file)
    else:
        _put_on_base(robot, mounts, file, station_file)
    for mount in mounts:
        if mount.tool is not None:
            _add_tool_frame(robot, mount, links, file, station_file)
    if robot.find('ros2_control') is None:
        robot.append(_ros2_control(robot.get('name', 'robot'), mounts, hardware))
    touched = _name_mesh_files(robot, file)
    text = '<?xml version="1.0"?>' + ElementTree.tostring(robot, encoding='unicode')
    return _Description(text, (file, *included, *touched))


def _expand(file: Path, mappings: Mapping[str, str]) -> tuple[str, tuple[Path, ...]]:
    """(URDF text, files that it includes)."""
    with _xacro_lock:
        xacro.all_includes.clear()
        try:
            text = xacro.process_file(str(file), mappings=dict(mappings)).toxml()
        except Exception as error:   # xacro raises its own and those of the XML parser
            raise ConfigurationError(f'{file}: xacro cannot read it: {error}') from error
        return text, tuple(sorted({Path(name).resolve() for name in xacro.all_includes}))


def _put_on_base(robot, mounts, file, station_file) -> None:
    """Put the arm that is described alone on its base in "world"."""
    if len(mounts) > 1:
        raise ConfigurationError(
            f'{station_file}: {file} describes one arm (it has no link "{WORLD}"), the station has {len(mounts)}; name '
            'a xacro file that puts all of them into "world"')
    mount, = mounts
    children = {joint.find('child').get('link') for joint in robot.findall('joint')}
    if mount.base_frame in children:
        raise ConfigurationError(f"{station_file}: arms.{mount.name}.base_frame is '{mount.base_frame}', which {file} "
                                 'attaches to another link; expected its first link')
    ElementTree.SubElement(robot, 'link', name=WORLD)
    _add_fixed_joint(robot, f'{WORLD}_to_{mount.base_frame}', WORLD, mount.base_frame, mount.xyz, mount.rpy)


def _check_bases(robot, mounts, file, station_file) -> None:
    """Raise ConfigurationError where the description puts a base elsewhere than the station file."""
    joints = {joint.find('child').get('link'): joint for joint in robot.findall('joint')}
    for mount in mounts:
        pose, link = np.eye(4), mount.base_frame
        while link in joints:
            if joints[link].get('type') != 'fixed':
                raise ConfigurationError(f"{station_file}: arms.{mount.name}.base_frame is '{mount.base_frame}', which "
                                         f'{file} lets move against "{WORLD}"')
            pose = _origin(joints[link]) @ pose
            link = joints[link].find('parent').get('link')
        expected = _transform(mount.xyz, mount.rpy)
        if link != WORLD or np.abs(pose - expected).max() > BASE_TOLERANCE:
            where = ('does not attach it to "world"' if link != WORLD else
                     f'puts it at {pose[:3, 3].round(4).tolist()} m')
            raise ConfigurationError(
                f'{station_file}: arms.{mount.name}.base is xyz {list(mount.xyz)} m, rpy {list(mount.rpy)} rad, but '
                f'{file} {where}; let it take the pose as the xacro arguments {mount.prefix}xyz and {mount.prefix}rpy')


def _add_tool_frame(robot, mount, links, file, station_file) -> None:
    tool = mount.tool
    if tool.link not in links:
        raise ConfigurationError(f"{station_file}: arms.{mount.name}.tcp.link is '{tool.link}'; no such link in "
                                 f'{file}; it has {", ".join(sorted(links))}')
    if mount.tcp_frame in links:
        raise ConfigurationError(f"{station_file}: arms.{mount.name}.tcp would make the frame '{mount.tcp_frame}', "
                                 f'which {file} has already; leave tcp out, or give tcp_frame another name')
    ElementTree.SubElement(robot, 'link', name=mount.tcp_frame)
    _add_fixed_joint(robot, f'{mount.tcp_frame}_joint', tool.link, mount.tcp_frame, tool.xyz, tool.rpy)


def _add_fixed_joint(robot, name, parent, child, xyz, rpy) -> None:
    joint = ElementTree.SubElement(robot, 'joint', name=name, type='fixed')
    ElementTree.SubElement(joint, 'parent', link=parent)
    ElementTree.SubElement(joint, 'child', link=child)
    ElementTree.SubElement(joint, 'origin', xyz=_numbers(xyz), rpy=_numbers(rpy))


def _ros2_control(name: str, mounts, hardware: str) -> ElementTree.Element:
    """The <ros2_control> block that description/ros2_control.xacro makes for all joints of the station file."""
    include = share_directory() / 'description' / 'ros2_control.xacro'
    joints = ' '.join(joint for mount in mounts for joint in mount.joints)
    home = _numbers(value for mount in mounts for value in mount.home)
    document = xacro.parse(
        f'<robot xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:include filename={quoteattr(str(include))}/>'
        f'<xacro:station_ros2_control name={quoteattr(name)} hardware="{hardware}" joints={quoteattr(joints)} '
        f'home="{home}"/></robot>')
    with _xacro_lock:
        xacro.process_doc(document)
    return ElementTree.fromstring(document.toxml()).find('ros2_control')


def _name_mesh_files(robot, file: Path) -> tuple[Path, ...]:
    """Name every mesh by a file:// address; the files of collision meshes.

    A mesh for the eye that is not there stays as it is: only a viewer misses it. Raises ConfigurationError for one
    that can be touched.
    """
    touched = []
    for link in robot.findall('link'):
        for kind in ('visual', 'collision'):
            for mesh in link.findall(f'{kind}/geometry/mesh'):
                found = _mesh_file(mesh.get('filename', ''), file)
                if found is not None:
                    mesh.set('filename', f'{FILE_SCHEME}{found}')
                if kind == 'collision':
                    if found is None:
                        raise ConfigurationError(
                            f"{file}: link {link.get('name')}: there is no collision mesh '{mesh.get('filename')}': "
                            'neither in a ROS package nor in a folder of that name above the file')
                    touched.append(found)
    return tuple(dict.fromkeys(touched))


def _mesh_file(name: str, description: Path) -> Path | None:
    if name.startswith(FILE_SCHEME):
        candidates = [Path(name.removeprefix(FILE_SCHEME))]
    elif name.startswith(ROS_SCHEME):
        package, _, path = name.removeprefix(ROS_SCHEME).partition('/')
        # A model that came without ROS lies in a folder named after its ROS package.
        candidates = [folder / path for folder in description.parents if folder.name == package]
    else:
        candidates = [description.parent / name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    try:
        return resource(name, description.parent) if name.startswith(ROS_SCHEME) else None
    except ConfigurationError:
        return None


def _numbers(values) -> str:
    return ' '.join(repr(float(value)) for value in values)


def _origin(joint) -> np.ndarray:
    """Pose (4, 4) that a joint's <origin> states."""
    origin = joint.find('origin')
    if origin is None:
        return np.eye(4)
    return _transform([float(v) for v in origin.get('xyz', '0 0 0').split()],
                      [float(v) for v in origin.get('rpy', '0 0 0').split()])


def _transform(xyz, rpy) -> np.ndarray:
    """Pose (4, 4) of a position (m) and roll, pitch, yaw about fixed axes (rad)."""
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(angle), math.sin(angle)) for angle in rpy)
    pose = np.eye(4)
    pose[:3, :3] = [[cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                    [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                    [-sp, cp * sr, cp * cr]]
    pose[:3, 3] = xyz
    return pose


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
