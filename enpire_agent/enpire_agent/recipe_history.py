"""What a campaign tried, as its Git branches tell: kept, reverted and adopted recipes with hypothesis and figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enpire_agent.git_command import RepositoryError, run_git
from enpire_agent.researcher import Tried

_FIELD, _RECORD = '\x1f', '\x1e'
_FORMAT = _FIELD.join(('%H', '%ct', '%B', '%(trailers:only,unfold)')) + _RECORD


@dataclass(frozen=True)
class RecipeCommit:
    """One iteration, adoption or start. `interval`: 95 % of the success rate, as text; time: s since 1970."""

    commit: str
    time: int
    station: str
    hypothesis: str
    decision: str
    method: str
    trials: int
    successes: int
    interval: str
    reason: str
    parent_recipe: str
    origin: str = ''      # Edit.origin of what a researcher proposed
    task: str = ''
    env_hash: str = ''

    def mentions(self, text: str) -> bool:
        return text.lower() in f'{self.commit}\n{self.hypothesis}\n{self.method}\n{self.reason}'.lower()


def campaign_history(directory: Path) -> list[RecipeCommit]:
    """Every recipe of a campaign (runs/<campaign>), oldest first: of the stations that ran here, and of those whose
    branches these have fetched. Raises RepositoryError."""
    recipes: dict[str, RecipeCommit] = {}
    for work_tree in work_trees(directory):
        for branch in ('HEAD', *_fetched_branches(work_tree)):
            for recipe in _branch_history(work_tree, branch):
                recipes.setdefault(recipe.commit, recipe)
    return sorted(recipes.values(), key=lambda recipe: (recipe.time, recipe.decision != 'start'))


def tried_by_peers(work_tree: Path, task: str, env_hash: str) -> list[Tried]:
    """What stations whose branches were fetched tried for this task in this environment, each with trials.

    Raises RepositoryError.
    """
    own = 'refs/remotes/fleet/' + run_git(work_tree, 'symbolic-ref', '--short', 'HEAD').strip()
    return [Tried(recipe.origin, recipe.method, recipe.decision == 'keep', recipe.trials, recipe.successes)
            for branch in _fetched_branches(work_tree) if branch != own and not branch.startswith(f'{own}-')
            for recipe in _branch_history(work_tree, branch)
            if recipe.decision in ('keep', 'revert') and recipe.origin and 0 <= recipe.successes <= recipe.trials > 0
            and (recipe.task, recipe.env_hash) == (task, env_hash)]


def origins_behind(work_tree: Path) -> frozenset[str]:
    """Origins of what was kept on the way to the work tree's last commit, also by peers whose recipe was adopted.

    Raises RepositoryError.
    """
    text = run_git(work_tree, 'log', f'--format=%(trailers:key=Decision,valueonly){_FIELD}'
                                     f'%(trailers:key=Origin,valueonly){_RECORD}', 'HEAD', '--')
    pairs = [record.split(_FIELD) for record in text.split(_RECORD) if record.count(_FIELD) == 1]
    return frozenset(origin.strip() for decision, origin in pairs if decision.strip() == 'keep' and origin.strip())


def show(directory: Path, commit: str) -> str:
    """Message and diff of a recipe of the campaign, `commit` full or abbreviated. Raises RepositoryError."""
    reasons = []
    for work_tree in work_trees(directory):
        try:
            sha = run_git(work_tree, 'rev-parse', '--verify', '--quiet', '--end-of-options', f'{commit}^{{commit}}')
            return run_git(work_tree, 'show', '--first-parent', '--no-color', '--stat', '--patch', sha)
        except RepositoryError as error:
            reasons.append(str(error))
    raise RepositoryError(f"no recipe '{commit}' in {directory}; 'enpire recipes {directory.name}' lists them")


def work_trees(directory: Path) -> list[Path]:
    """The stations' recipe repositories of a campaign."""
    return sorted(file.parent for file in directory.glob('*/recipe/.git'))


def _fetched_branches(work_tree: Path) -> list[str]:
    return run_git(work_tree, 'for-each-ref', '--format=%(refname)', 'refs/remotes/fleet').split()


def _branch_history(work_tree: Path, branch: str) -> list[RecipeCommit]:
    """The recipes on a branch; a commit that only takes another one back is none."""
    text = run_git(work_tree, 'log', '--reverse', '--first-parent', f'--format={_FORMAT}', branch, '--')
    recipes = []
    for record in text.split(_RECORD):
        fields = record.strip('\n').split(_FIELD)
        if len(fields) != _FORMAT.count(_FIELD) + 1:
            continue        # the end of the list, or a message of a peer that has the separators itself
        commit, time, message, trailers = fields
        values = dict(line.split(': ', 1) for line in trailers.splitlines() if ': ' in line)
        if 'Decision' in values:
            recipes.append(RecipeCommit(
                commit, int(time), values.get('Station', ''), _hypothesis(message), values['Decision'],
                values.get('Method', ''), _count(values.get('Trials')), _count(values.get('Successes')),
                values.get('Interval', ''), values.get('Reason', ''), values.get('Parent-Recipe', ''),
                values.get('Origin', ''), values.get('Task', ''), values.get('Env-Hash', '')))
        elif not message.startswith('Revert '):
            recipes.append(RecipeCommit(commit, int(time), '', _hypothesis(message), 'start', '', 0, 0, '', '', ''))
    return recipes


def _hypothesis(message: str) -> str:
    """The first line, or where that was shortened the paragraph that has all of it."""
    paragraphs = message.strip().split('\n\n')
    whole = paragraphs[0].endswith(' ...') and len(paragraphs) > 2
    return ' '.join(paragraphs[1 if whole else 0].split())


def _count(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
