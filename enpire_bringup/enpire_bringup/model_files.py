"""The files that a MuJoCo model is made of: the MJCF itself and the includes, meshes and textures that it draws in."""

from __future__ import annotations

import re
from pathlib import Path

_NAMES_A_FILE = re.compile(rb'\bfile\s*=')


def model_files(file: Path) -> list[Path]:
    """The file first. Raises OSError when it cannot be read."""
    if not _NAMES_A_FILE.search(file.read_bytes()):
        return [file]
    import mujoco      # only where it is needed: to import it takes longer than all the rest

    others = {(file.parent / found).resolve() for found in mujoco.mju_getXMLDependencies(str(file))}
    return [file, *sorted(others - {file.resolve()})]
