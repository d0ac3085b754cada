"""What one campaign found out, for researchers of another: Markdown, and which families of ideas helped how often.

`enpire distill` writes it (distill.py). A campaign that is given some keeps its own copy in its folder, so that it goes
on with the same after a restart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping

from enpire_agent.durable_file import write_durably
from enpire_bringup.configuration import ConfigurationError

LONGEST = 8000                     # characters; a model reads all of it
DISTILLED, GIVEN = 'knowledge.md', 'given_knowledge.md'      # in the folder of a campaign
_HEADING = '## Families of ideas'
_MOST_FAMILIES = 12


@dataclass(frozen=True)
class Knowledge:
    """text: Markdown. families: a recipe's method -> (ideas of it that were kept, ideas that were tried)."""

    text: str = ''
    families: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_knowledge(file: Path | str) -> Knowledge:
    """Read what `enpire distill` or a person wrote; without a table of families there are none.

    Raises ConfigurationError for what is no text, or too long for a model to read each time.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f'{file}: cannot be read ({error}); `enpire distill CAMPAIGN` writes one') from error
    if len(text) > LONGEST:
        raise ConfigurationError(f'{file}: has {len(text)} characters; knowledge has at most {LONGEST}')
    rows = re.findall(r'^\| ([^|\n]+) \| (\d{1,6}) \| (\d{1,6}) \|$', text.partition(_HEADING)[2], re.MULTILINE)
    return Knowledge(text, {family.strip(): (min(int(kept), int(tried)), int(tried)) for family, kept, tried in rows})


def family_table(families: Mapping[str, tuple[int, int]]) -> str:
    """The part of the Markdown that `read_knowledge` reads back, the families that helped most first."""
    order = sorted(families, key=lambda name: (-families[name][0], families[name][1], name))[:_MOST_FAMILIES]
    rows = [f'| {name.replace("|", "/")[:40]} | {families[name][0]} | {families[name][1]} |' for name in order]
    return '\n'.join([_HEADING, '', '| family | kept | tried |', '|---|---|---|', *rows]) + '\n'


def give_knowledge(file: Path | str, campaign: Path | str) -> None:
    """Put a copy of a file into a campaign's folder (runs/<campaign>). Raises ConfigurationError."""
    write_durably(Path(campaign) / GIVEN, read_knowledge(file).text.encode('utf-8'))


def given_knowledge(campaign: Path | str) -> Knowledge:
    """What a campaign was given; nothing where it was given nothing. Raises ConfigurationError."""
    file = Path(campaign) / GIVEN
    return read_knowledge(file) if file.exists() else Knowledge()
