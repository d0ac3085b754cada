"""A recipe as data: the folder that research changes, with policy.py, train.py, recipe.yaml and program.md."""

from __future__ import annotations

import ast
import hashlib
import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import yaml

from enpire_bringup.configuration import ConfigurationError, read_yaml
from enpire_bringup.safety_limits import read_changes

EDITABLE = ('policy.py', 'train.py', 'recipe.yaml', 'weights.json')   # and everything below notes/
_PROGRAMS = ('policy.py', 'train.py')


@dataclass(frozen=True)
class Recipe:
    """One recipe folder: the method's family, the numbers, flags and texts that its policy reads, and the limits of the
    station that it tightens, by the names of safety_limits.LIMITS."""

    directory: Path
    method: str
    parameters: dict[str, float | int | bool | str]
    limits: dict[str, float]


def load_recipe(directory: Path | str) -> Recipe:
    """Read and check a recipe folder's recipe.yaml.

    Raises ConfigurationError naming file and key.
    """
    directory = Path(directory)
    if not (directory / 'policy.py').is_file():
        raise ConfigurationError(f'{directory}: no policy.py there; give the folder of a recipe')
    _check_plain(directory)
    top = read_yaml(directory / 'recipe.yaml')
    method = top.text('method')
    if not method.isprintable():     # commits and ledgers carry it
        raise top.error('method', f'is {method[:40]!r}; expected a text on one line without control characters')
    parameters = top.raw('parameters', default={})
    if not isinstance(parameters, dict):
        raise top.error('parameters', 'must be a mapping of names to numbers, true/false or texts')
    for name, value in parameters.items():
        if not isinstance(name, str) or not isinstance(value, (bool, int, float, str)) or (
                isinstance(value, float) and not math.isfinite(value)):
            raise top.error(f'parameters.{name}', f'is {value!r}; expected a finite number, true/false or a text')
    limits = read_changes(top.section('limits', default={}))
    top.finish()
    return Recipe(directory.resolve(), method, dict(parameters), limits)


def static_check(directory: Path | str, changed: list[str]) -> None:
    """Everything that can be said about an edit without running it.

    changed: paths relative to the recipe that the edit changed.
    Raises ConfigurationError for a path out of bounds, a program that does not compile, a policy.py without a
    class Policy, and a recipe.yaml that does not read.
    """
    directory = Path(directory)
    for path in changed:
        if not _is_editable(path):
            raise ConfigurationError(
                f'{directory}: the edit changes {path}; a recipe may change only {", ".join(EDITABLE)} and notes/')
    for name in _PROGRAMS:
        if (directory / name).is_file():
            _compiled(directory / name)
    policy = _compiled(directory / 'policy.py')
    if not any(isinstance(node, ast.ClassDef) and node.name == 'Policy' for node in policy.body):
        raise ConfigurationError(f'{directory / "policy.py"}: defines no class Policy')
    load_recipe(directory)


def _check_plain(directory: Path) -> None:
    """Raise ConfigurationError where the folder holds what is neither a file nor a folder, e.g. a link out of it."""
    for place, folders, files in os.walk(directory):
        if '.git' in folders:
            folders.remove('.git')
        for name in folders + files:
            file = Path(place, name)
            if not (stat.S_ISREG(mode := file.lstat().st_mode) or stat.S_ISDIR(mode)):
                what = f'is a link to {os.readlink(file)}' if file.is_symlink() else 'is no plain file'
                raise ConfigurationError(f'{file}: {what}; a recipe holds plain files, put a copy there')


def _is_editable(path: str) -> bool:
    parts = path.split('/')
    hidden = any(part in ('', '.', '..', '__pycache__') or part.startswith('.git') or part.endswith('.pyc')
                 for part in parts)     # what Git or a reader of the folder does not see as it is
    return not hidden and (path in EDITABLE or len(parts) > 1 and parts[0] == 'notes')


def with_parameters(text: str, values: dict) -> str:
    """The recipe.yaml `text` with some of its parameters replaced or added; comments stay where they can.

    Raises ConfigurationError when the text is not a recipe.
    """
    for name, value in values.items():
        line = re.compile(rf'^(\s+{re.escape(name)}\s*:[ \t]*)([^#\n]*?)([ \t]*(?:#.*)?)$', re.MULTILINE)
        replaced, count = line.subn(lambda m: f'{m[1]}{_scalar(value)}{m[3]}', text)
        if count == 1:
            text = replaced
        else:
            content = yaml.safe_load(text)
            content.setdefault('parameters', {})[name] = value
            text = yaml.safe_dump(content, sort_keys=False)
    found = yaml.safe_load(text)
    if not isinstance(found, dict) or any(found['parameters'].get(k) != v for k, v in values.items()):
        raise ConfigurationError(f'recipe.yaml: cannot set {", ".join(values)}')
    return text


def files_hash(directory: Path | str) -> str:
    """`sha256:...` of a recipe folder's files (names and contents; hidden files and caches left out)."""
    directory = Path(directory)
    digest = hashlib.sha256()
    for file in sorted(directory.rglob('*')):
        relative = file.relative_to(directory)
        if file.is_file() and not any(part.startswith('.') or part == '__pycache__' for part in relative.parts):
            digest.update(f'{relative.as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n'.encode())
    return f'sha256:{digest.hexdigest()}'


def _compiled(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding='utf-8'), filename=str(file))
    except OSError as error:
        raise ConfigurationError(f'{file}: cannot be read ({error.strerror})') from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, 'lineno', None)
        raise ConfigurationError(f'{file}{f" line {line}" if line else ""} does not compile ({error})') from error


def _scalar(value) -> str:
    return yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
