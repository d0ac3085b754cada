"""Which researchers there are, how a station chooses one, and whether it can work here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enpire_agent.agent_programs import AGENTS, agent_home, make_agent
from enpire_agent.agent_researcher import AgentResearcher
from enpire_agent.coding_agent import AgentSettings, read_agent_settings
from enpire_agent.knowledge import given_knowledge
from enpire_agent.papers import library_folder
from enpire_agent.researcher import BuiltinResearcher, Researcher
from enpire_bringup.configuration import ConfigurationError, read_yaml
from enpire_bringup.environment import package_folder
from enpire_bringup.task import Task

KNOWN = (BuiltinResearcher.name, *AGENTS)
_SOURCES = ('enpire_agent', 'enpire_bringup', 'enpire_reward', 'enpire_reset')     # packages that an agent may read


@dataclass(frozen=True)
class ResearcherChoice:
    """A researcher by name. settings: of a coding agent; the built-in one has none."""

    name: str = BuiltinResearcher.name
    settings: AgentSettings = AgentSettings()


def read_researcher(said: str) -> ResearcherChoice:
    """The choice that `said` stands for: a name, the path of a settings file (.yaml), or '' for the built-in one.

    Raises ConfigurationError listing the researchers there are, or naming file and key.
    """
    if not said.endswith(('.yaml', '.yml')):
        if said and said not in KNOWN:
            raise ConfigurationError(f"no researcher '{said}'; known: {', '.join(KNOWN)}. Or give the path of a file "
                                     'ending in .yaml with a name and settings')
        return ResearcherChoice(said or BuiltinResearcher.name)
    top = read_yaml(Path(said))
    name = top.choice('name', KNOWN)
    if name == BuiltinResearcher.name:
        top.finish()
        return ResearcherChoice(name)
    return ResearcherChoice(name, read_agent_settings(top))


def choose_researcher(asked: str, default: str) -> ResearcherChoice:
    """What a campaign asked for, else the station's own. The latter's settings go with its name. Raises
    ConfigurationError."""
    own = read_researcher(default)
    if not asked or asked == own.name:
        return own
    return read_researcher(asked)


def make_researcher(choice: ResearcherChoice, task: Task, *, runs: Path, station: str, directory: Path) -> Researcher:
    """The researcher of a campaign of a station in the folder `directory` (runs/<campaign>/<station>).

    Raises ConfigurationError where it cannot work here: its program or its key is missing.
    """
    knowledge = given_knowledge(directory.parent)
    if choice.name == BuiltinResearcher.name:
        return BuiltinResearcher(task.ideas, task, knowledge.families)
    agent = make_agent(choice.name, choice.settings, agent_home(runs, station, choice.name))
    if not (choice.settings.endpoint or agent.key()[1] or agent.has_login()):
        variable = choice.settings.key_variable or agent.key_variables[0]
        raise ConfigurationError(
            f'{choice.name} has no key and no login at {station}: type {agent.login_command()}, or export {variable} '
            'and start the station again')
    sources = [folder for name in _SOURCES if (folder := package_folder(name))]
    # In the campaign's folder: who begins a campaign anew begins a new conversation as well.
    return AgentResearcher(agent, directory / 'agent' / choice.name, task=str(task.directory),
                           knowledge=knowledge.text, readable=(task.directory, library_folder(), *sources))
