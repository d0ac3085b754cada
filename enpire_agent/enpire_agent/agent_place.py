"""Where an agent works: which campaign and station its verbs are about, found from its folder or its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from enpire_agent.ledger import Ledger
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.paths import runs_directory

# What a supervisor sets for an agent that works elsewhere than below runs/; ENPIRE_RUNS says where the results are.
CAMPAIGN, STATION, TASK, RECIPE = 'ENPIRE_CAMPAIGN', 'ENPIRE_STATION', 'ENPIRE_TASK', 'ENPIRE_RECIPE'
_MARKS = 'campaign.json', 'ledger.jsonl'      # either is in runs/<campaign>/<station>


@dataclass(frozen=True)
class Place:
    """directory: runs/<campaign>/<station>; recipe: the folder with the recipe that is being edited."""

    directory: Path
    recipe: Path

    @property
    def campaign(self) -> str:
        return self.directory.parent.name

    @property
    def station(self) -> str:
        return self.directory.name

    @property
    def trials(self) -> Path:
        return self.directory / 'trials'

    def __str__(self) -> str:
        return f'{self.campaign}/{self.station}'

    def task(self, environment: Mapping[str, str] = os.environ) -> str:
        """Name or folder of the campaign's task."""
        if environment.get(TASK):
            return environment[TASK]
        entries = Ledger(self.directory / 'ledger.jsonl').entries()
        if not entries:
            raise ConfigurationError(f'{self}: no trial yet that says which task it is; set ${TASK}')
        return entries[-1]['task']


def find_place(campaign: str = '', station: str = '', folder: Path | None = None,
               environment: Mapping[str, str] = os.environ) -> Place:
    """The place that is named, else of `folder` (None: the current one), else of the newest ledger.

    Raises ConfigurationError listing what there is.
    """
    folder = (folder or Path.cwd()).resolve()
    around = surrounding_station(folder)
    if not campaign and not station and around is not None and not environment.get(CAMPAIGN):
        directory = around
    else:
        directory = _named_directory(campaign or environment.get(CAMPAIGN, ''), station or environment.get(STATION, ''),
                                     around)
    edited = _recipe_around(folder) or Path(environment.get(RECIPE) or directory / 'recipe')
    return Place(directory, edited)


def place_at_work(folder: Path | None = None, environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that `folder` (None: the current one) lies in, or that an agent was given; None for anybody else."""
    folder = (folder or Path.cwd()).resolve()
    if surrounding_station(folder) is None and not environment.get(RECIPE):
        return None
    return find_place(folder=folder, environment=environment)


def surrounding_station(folder: Path) -> Path | None:
    """runs/<campaign>/<station> that `folder` lies in; None where it lies in none."""
    return next((place for place in (folder, *folder.parents) if any((place / mark).is_file() for mark in _MARKS)),
                None)


def _named_directory(campaign: str, station: str, around: Path | None) -> Path:
    runs = around.parents[1] if around is not None else runs_directory()
    if campaign and station and any((runs / campaign / station / mark).is_file() for mark in _MARKS):
        return runs / campaign / station      # a confined agent may not list what else there is
    found = {file.parent: file.stat().st_mtime for mark in _MARKS for file in runs.glob(f'*/*/{mark}')}
    if around is not None and not campaign:
        campaign = around.parent.name
    fitting = [directory for directory in found
               if campaign in ('', directory.parent.name) and station in ('', directory.name)]
    if not fitting:
        known = ', '.join(sorted(f'{directory.parent.name}/{directory.name}' for directory in found)) or 'none'
        raise ConfigurationError(f'{runs}: no campaign {campaign or "*"}/{station or "*"}; there are: {known}. '
                                 f'$ENPIRE_RUNS, ${CAMPAIGN} and ${STATION} say which one is meant')
    return max(fitting, key=lambda directory: found[directory])


def _recipe_around(folder: Path) -> Path | None:
    return next((place for place in (folder, *folder.parents)
                 if (place / 'policy.py').is_file() and (place / 'recipe.yaml').is_file()), None)
