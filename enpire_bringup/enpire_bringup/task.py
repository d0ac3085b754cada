"""A task as data: what its `task.yaml` says, with the paths of the files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enpire_bringup.action_space import ActionSpace
from enpire_bringup.configuration import ConfigurationError, Section, read_yaml
from enpire_bringup.paths import share_directory


@dataclass(frozen=True)
class PolicyTerms:
    """Rate (Hz), deadline a step (s; wall time, in lockstep CPU time), episode timeout (s), for how long (s) verdicts
    have to be success until the episode ends by it, and what ends a trial as POLICY_ERROR."""

    rate: float
    deadline: float
    episode_timeout: float
    success_hold: float
    max_late_steps: int
    camera_latency: int


@dataclass(frozen=True)
class CampaignTerms:
    """success_window: consecutive successes that solve the task; search_trials: trials a hypothesis gets."""

    success_window: int
    search_trials: int
    goal: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every task folder has; arm_task.py and gym_task.py have the kinds there are."""

    name: str
    directory: Path
    objective: str
    recipe: Path
    ideas: Path                  # ideas.yaml of the idea library, which need not be there
    policy: PolicyTerms
    observation: tuple[str, ...]
    action: ActionSpace
    campaign: CampaignTerms

    @property
    def file(self) -> Path:
        return self.directory / 'task.yaml'


def task_directory(name_or_path: str) -> Path:
    """The folder of a task given by path or by the name of one that ships with the suite.

    Raises ConfigurationError listing the tasks there are.
    """
    folder = share_directory() / 'tasks'
    for path in (Path(name_or_path), folder / name_or_path):
        if (path / 'task.yaml').is_file():
            return path.resolve()
    known = ', '.join(sorted(f.parent.name for f in folder.glob('*/task.yaml')))
    raise ConfigurationError(
        f"no task '{name_or_path}'; known: {known}. Or give the path of a folder with a task.yaml")


def load_task(name_or_path: str | Path) -> Task:
    """Read and check a task folder: a GymTask where task.yaml has `gym`, else an ArmTask.

    Raises ConfigurationError naming file, key, unit and the value expected.
    """
    from enpire_bringup.arm_task import read_arm_task
    from enpire_bringup.gym_task import read_gym_task

    top = read_yaml(task_directory(str(name_or_path)) / 'task.yaml')
    return read_gym_task(top) if 'gym' in top else read_arm_task(top)


def common_parts(top: Section) -> dict:
    """The fields of Task but for observation and action, which a kind of task reads itself."""
    directory = top.file.parent
    recipe = (directory / top.text('recipe', default='recipe')).resolve()
    parts = {
        'name': directory.name, 'directory': directory, 'objective': top.text('objective'), 'recipe': recipe,
        'ideas': (directory / top.text('ideas', default='ideas') / 'ideas.yaml').resolve(),
        'policy': _policy(top.section('policy')), 'campaign': _campaign(top.section('campaign'))}
    if not recipe.is_dir():
        raise top.error('recipe', f"is '{recipe.name}': no such folder in {recipe.parent}")
    return parts


def _policy(section: Section) -> PolicyTerms:
    policy = PolicyTerms(
        rate=section.number('rate', low=1, high=100, unit='Hz'),
        deadline=section.number('deadline', low=0.001, high=10, unit='s'),
        episode_timeout=section.number('episode_timeout', low=0.1, high=3600, unit='s'),
        success_hold=section.number('success_hold', low=0, high=60, unit='s', default=0.0),
        max_late_steps=section.integer('max_late_steps', low=1, high=100000),
        camera_latency=section.integer('camera_latency', low=0, high=10, default=0))
    section.finish()
    return policy


def _campaign(section: Section) -> CampaignTerms:
    campaign = CampaignTerms(
        success_window=section.integer('success_window', low=1, high=10000),
        search_trials=section.integer('search_trials', low=1, high=1000),
        goal=section.number('goal', low=0, high=1))
    section.finish()
    return campaign
