"""Which ledger lines a score is made of: of a campaign, a station, a kind of trial, a recipe, an environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enpire_agent.abandoned_trials import unentered_trials
from enpire_agent.campaign_state import read_campaign
from enpire_agent.frozen_environment import check_scored
from enpire_agent.ledger import Ledger
from enpire_agent.recipe import files_hash
from enpire_agent.score import Score
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.program_isolation import is_weak

_FILES = 'sha256:'


@dataclass(frozen=True)
class ScoredTrials:
    """lines: those that count, of all stations, in the order in which they were started. total: lines there are.

    unentered: folders of trials that were started and are in no ledger. remarks: on their environment.
    """

    lines: list[dict]
    total: int
    ledgers: list[Path]
    unentered: list[Path]
    remarks: list[str]


def scored_trials(ledgers: list[Ledger], *, kind: str = '', recipe: str = '', env_hash: str = '',
                  any_scorer: bool = False) -> ScoredTrials:
    """Verified lines of these ledgers of one campaign. Empty strings leave nothing out.

    recipe: the beginning of a commit or of the hash of its files, or the folder of a recipe; every name of the same
    files counts, also those that other stations gave them. any_scorer: also with another scorer than the frozen one.
    Raises LedgerError when a chain is broken, ConfigurationError when no station knows such a recipe,
    EnvironmentChanged when a manifest or the scorer was changed.
    """
    by_folder = {ledger.file.parent: ledger.verify() for ledger in ledgers if ledger.file.exists()}
    lines = [line for entries in by_folder.values() for line in entries]
    names = _names_of(recipe, lines, ledgers) if recipe else None
    chosen = {folder: [line for line in entries if (not kind or line['kind'] == kind)
                       and line['env_hash'].startswith(env_hash) and (names is None or line['recipe'] in names)]
              for folder, entries in by_folder.items()}
    weak = sum(is_weak(line.get('isolation', '')) for entries in chosen.values() for line in entries)
    remarks = [f'weak isolation   in {weak} trials nothing kept the policy from results but its limits'] if weak else []
    remarks += [check_scored(folder, known, any_scorer=any_scorer) for folder, entries in chosen.items()
               for known in dict.fromkeys(line['env_hash'] for line in entries)]
    return ScoredTrials(
        sorted((line for entries in chosen.values() for line in entries), key=lambda line: line['started']),
        len(lines), [ledger.file for ledger in ledgers],
        [trial.directory for ledger in ledgers for trial in unentered_trials(ledger.file.parent)],
        [remark for remark in remarks if remark])


def score_text(figures: Score, trials: ScoredTrials) -> str:
    """The score as lines for a terminal."""
    low, high = figures.interval
    outcomes = ', '.join(f'{count} {outcome}' for outcome, count in figures.outcomes.items())
    window = (f'{100 * figures.window_success:.0f} % of the last {figures.window}'
              if figures.window_success is not None else f'not defined before {figures.window} trials')
    took = (f'{figures.time_to_success_s:.0f} s' if figures.time_to_success_s is not None else
            f'not yet: no {figures.window} successes in a row')
    solved = figures.solved
    recipe = f' (recipe {solved.recipe.removeprefix(_FILES)[:10]})' if solved.recipe else ''
    lines = [f'{figures.successes} of {figures.trials} trials succeeded: {100 * figures.rate:.0f} %, 95 % interval '
             f'{100 * low:.0f} to {100 * high:.0f} %',
             f'solved           {"yes" if solved.yes else "no"}: {solved.figures}{recipe}',
             f'outcomes         {outcomes}', f'window           {window}', f'time to success  {took}',
             f'environment      {figures.env_hash}']
    lines += [f'ledger           {file}, chain intact' for file in trials.ledgers]
    if figures.trials < trials.total:
        lines.append(f'left out         {trials.total - figures.trials} of {trials.total} trials, as asked for')
    return '\n'.join([*lines, *notes(trials)])


def notes(trials: ScoredTrials) -> list[str]:
    """What a reader of the figures has to know beside them."""
    if not trials.unentered:
        return trials.remarks
    return [*trials.remarks, f'not entered      {len(trials.unentered)} started trials are in no ledger yet '
            f'({", ".join(folder.name for folder in trials.unentered[:3])}); see `enpire ledger verify`']


def _names_of(recipe: str, lines: list[dict], ledgers: list[Ledger]) -> set[str]:
    """Every name of the recipe in ledgers: a trial before its commit knows only the hash of its files."""
    wanted = recipe
    if (Path(recipe) / 'policy.py').is_file():
        wanted = files_hash(recipe)
    pairs = [(iteration.commit, iteration.recipe) for state in _states(ledgers) for iteration in state.iterations]
    known = {name for pair in pairs for name in pair if name} | {line['recipe'] for line in lines}
    names = {name for name in known
             if name.startswith(wanted) or name.removeprefix(_FILES).startswith(wanted.removeprefix(_FILES))}
    files = {same for commit, same in pairs if same and (commit in names or same in names)}
    if len({*files, *(name for name in names if not any(name in pair for pair in pairs))}) > 1:
        raise ConfigurationError(f"recipe '{recipe}' is the beginning of {len(names)} recipes; give more of it: "
                                 + ', '.join(sorted(name[:24] for name in names)))
    if not names:
        raise ConfigurationError(f"no trial of a recipe '{recipe}'; there are: "
                                 + (', '.join(sorted({line['recipe'][:19] for line in lines})) or 'none'))
    return names | {commit for commit, same in pairs if same in files} | files


def _states(ledgers: list[Ledger]) -> list:
    files = [ledger.file.with_name('campaign.json') for ledger in ledgers]
    return [read_campaign(file) for file in files if file.is_file()]
