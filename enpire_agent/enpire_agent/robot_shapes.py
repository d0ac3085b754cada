"""What a URDF's links look like, as boxes, cylinders, spheres and meshes. No ROS."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pinocchio

GRAY = (0.7, 0.7, 0.72)
MESH_FORMATS = ('.stl', '.obj', '.ply', '.glb')      # that trimesh reads by itself


@dataclass(frozen=True)
class LinkShape:
    """One shape of a link, at `pose` (4, 4) in its frame; color: red, green, blue, 0 to 1.

    kind and size (m): "box" (x, y, z), "cylinder" (radius, length along z), "sphere" (radius,), "mesh" (scale x, y, z)
    of the file `mesh`.
    """

    link: str
    kind: str
    size: tuple[float, ...]
    pose: np.ndarray
    color: tuple[float, float, float]
    mesh: Path | None = None


def link_shapes(urdf: str) -> list[LinkShape]:
    """The shapes of every link.

    A link whose visual meshes cannot be read (a format of MESH_FORMATS, a file that is there) is drawn by its
    collision geometry.
    """
    root = ElementTree.fromstring(urdf)
    colors = {material.get('name'): _color(material) for material in root.findall('material')}
    shapes = []
    for link in root.findall('link'):
        for element in ('visual', 'collision'):
            found = [_shape(link.get('name'), part, colors) for part in link.findall(element)]
            if found and None not in found:
                shapes += found
                break
    return shapes


def _shape(link: str, part, colors: dict) -> LinkShape | None:
    geometry = part.find('geometry')[0]
    origin = part.find('origin')
    pose = np.eye(4)
    if origin is not None:
        pose[:3, :3] = pinocchio.rpy.rpyToMatrix(*_numbers(origin.get('rpy', '0 0 0')))
        pose[:3, 3] = _numbers(origin.get('xyz', '0 0 0'))
    material = part.find('material')
    color = GRAY
    if material is not None:
        color = _color(material) or colors.get(material.get('name')) or GRAY
    if geometry.tag == 'box':
        return LinkShape(link, 'box', _numbers(geometry.get('size')), pose, color)
    if geometry.tag == 'cylinder':
        size = float(geometry.get('radius')), float(geometry.get('length'))
        return LinkShape(link, 'cylinder', size, pose, color)
    if geometry.tag == 'sphere':
        return LinkShape(link, 'sphere', (float(geometry.get('radius')),), pose, color)
    file = _mesh_file(geometry.get('filename', ''))
    if geometry.tag != 'mesh' or file is None:
        return None
    return LinkShape(link, 'mesh', _numbers(geometry.get('scale', '1 1 1')), pose, color, file)


def _mesh_file(name: str) -> Path | None:
    """The file of a mesh given as file:// or package://, None where it cannot be read."""
    if name.startswith('package://'):
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

        package, _, inside = name.removeprefix('package://').partition('/')
        try:
            file = Path(get_package_share_directory(package)) / inside
        except PackageNotFoundError:
            return None
    else:
        file = Path(name.removeprefix('file://'))
    return file if file.suffix.lower() in MESH_FORMATS and file.is_file() else None


def _color(material) -> tuple[float, float, float] | None:
    color = material.find('color')
    return None if color is None else _numbers(color.get('rgba'))[:3]


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split())
