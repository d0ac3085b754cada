"""What an agent asks of its station, as short text and as data: records, frames, peers, diff, note, train, and on the
running station trial and adopt. The command (cli_agent.py) and the MCP server (mcp_server.py) both hand this on.

A model pays for every character that it reads: texts are cut to MOST_LINES of MOST_WIDTH and say what was left out.
"""

from __future__ import annotations

import difflib
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence

from enpire_agent.agent_place import Place
from enpire_agent.durable_file import write_durably
from enpire_agent.git_command import RepositoryError, run_git
from enpire_agent.ledger import Ledger
from enpire_agent.recipe_history import RecipeCommit, campaign_history, work_trees
from enpire_agent.recipe_repository import RecipeRepository
from enpire_agent.score import SUCCESS, success_interval
from enpire_agent.seeds import search_seeds
from enpire_agent.trial_record import POLICY_LOG, read_result
from enpire_bringup.configuration import ConfigurationError

MOST_LINES, MOST_WIDTH = 40, 160
BEST, HERE = 'best', 'here'
JOURNAL = Path('notes') / 'journal.md'
LONGEST_NOTE = 2000        # characters
_LOG_TAIL = 8              # lines of what the policy printed
_FILES = 'sha256:'


class VerbError(RuntimeError):
    """A verb was asked for what cannot be; the message says why and what there is."""


@dataclass(frozen=True)
class Answer:
    """text: for a model to read; data: the same and more, as JSON can hold it; files: that were written."""

    text: str
    data: Any
    files: Sequence[Path] = field(default=())


# --- what happened ---

def records(place: Place, count: int = 10, *, kind: str = '', outcome: str = '', recipe: str = '',
            everything: bool = False) -> Answer:
    """The newest `count` trials of the station's ledger, oldest first, of one kind, outcome or recipe where given."""
    lines = Ledger(place.directory / 'ledger.jsonl').entries()
    chosen = [line for line in lines if kind in ('', line['kind']) and outcome.upper() in ('', line['outcome'])
              and line['recipe'].removeprefix(_FILES).startswith(recipe.removeprefix(_FILES))]
    shown = chosen if everything else chosen[max(0, len(chosen) - count):]
    names = _short_names([line['trial_id'] for line in lines])
    text = [f'{place}: {_figures(chosen)}', 'trial  kind  recipe  outcome  error  time  why']
    told = shown if everything else shown[-MOST_LINES + 3:]
    text += [_record(line, names[line['trial_id']]) for line in told]
    if len(told) < len(chosen):
        text.append(f'({len(chosen) - len(told)} older ones' + ('; --all)' if len(told) < len(shown) else ')'))
    return Answer(bounded(text, everything), shown)


def trial_record(place: Place, trial: str, *, everything: bool = False) -> Answer:
    """What is known of one trial: how it was judged, what its reset took, what its policy said."""
    folder = find_trial(place, trial)
    record = read_result(folder)
    verdict = record.get('verdict') or {}
    reset = 'succeeded' if record['reset_success'] else 'failed'
    text = [f"{folder.name}: {record['outcome']}: {record['reason']}",
            f"{record['kind']} of recipe {_recipe_name(record['recipe'])}, seed {record['seed']}; reset {reset}, "
            f"attempt {record['reset_attempts']}; {record['duration']:.1f} s, {record['steps']} steps, "
            f"{record['late_steps']} late"]
    text += [f"{'ok  ' if check['passed'] else 'not '} {check['name']} {check['value']:.4g}, limit "
             f"{check['limit']:.4g} {check['unit']}" for check in verdict.get('checks', ())]
    text += (record.get('traceback') or '').splitlines()[-_LOG_TAIL:]
    log = folder / POLICY_LOG
    said = log.read_text(encoding='utf-8', errors='replace').splitlines() if log.is_file() else []
    text += [f'policy: {line}' for line in (said if everything else said[-_LOG_TAIL:])]
    return Answer(bounded(text, everything), record)


def frames(place: Place, trial: str, *, strip: int = 0, stills: int = 3, width: int = 320,
           folder: Path | str = '') -> Answer:
    """Pictures of a trial as PNG: `stills` of them, or one strip of `strip`; `width` pixels each.

    folder: where; empty: a temporary one, for what lies in the recipe's folder is part of the edit.
    """
    from enpire_agent.trial_pictures import write_stills, write_strip

    recorded = find_trial(place, trial)
    folder = Path(folder) if folder else Path(tempfile.gettempdir()) / 'enpire-frames'
    files = ([write_strip(recorded, folder, strip, width)] if strip else write_stills(recorded, folder, stills, width))
    return Answer('\n'.join(map(str, files)), [str(file) for file in files], files)


def find_trial(place: Place, name: str) -> Path:
    """Folder of the trial whose name is `name`, or begins or ends with it; of the newest one where it is empty."""
    known = sorted((file for file in place.trials.glob('*') if file.is_dir()), key=lambda file: file.name)
    found = ([file for file in known if file.name == name]
             or [file for file in known if file.name.startswith(name) or file.name.endswith(name)])
    if not name:
        found = known[-1:]
    if len(found) != 1:
        raise VerbError(f"{place}: {len(found) or 'no'} trials are called '{name}'; `enpire records` lists them, and "
                        'the end of a name is enough')
    return found[0]


def _record(line: dict, name: str) -> str:
    error = line.get('position_error')
    return '  '.join([name, line['kind'], _recipe_name(line['recipe']), line['outcome'],
                      f'{1000 * error:.0f} mm' if error is not None else '-', f"{line.get('duration') or 0:.1f} s",
                      *([line['reason']] if line['outcome'] != SUCCESS else [])])


def _figures(lines: Sequence[dict]) -> str:
    if not lines:
        return 'no such trial'
    outcomes = Counter(line['outcome'] for line in lines)
    return (f'{len(lines)} trials, {_rate(outcomes[SUCCESS], len(lines))}: '
            + ', '.join(f'{number} {outcome}' for outcome, number in outcomes.most_common()))


def _rate(successes: int, trials: int) -> str:
    if not trials:
        return 'no trials'
    low, high = success_interval(successes, trials)
    return f'{100 * successes / trials:.0f} % succeeded (95 %: {100 * low:.0f} to {100 * high:.0f})'


def _short_names(trials: Sequence[str]) -> dict[str, str]:
    """The ends of trial names, where they tell them apart."""
    ends = {trial: trial.rpartition('-')[2] for trial in trials}
    times = Counter(ends.values())
    return {trial: end if times[end] == 1 else trial for trial, end in ends.items()}


def _recipe_name(recipe: str) -> str:
    return recipe.removeprefix(_FILES)[:8]


# --- recipes ---

def peers(place: Place, *, everything: bool = False) -> Answer:
    """What the other stations of the campaign kept, as far as this machine knows, and their best."""
    by_station: dict[str, list[RecipeCommit]] = {}
    for recipe in campaign_history(place.directory.parent):
        if recipe.station and recipe.station != place.station:
            by_station.setdefault(recipe.station, []).append(recipe)
    text, data = [], {}
    for station, history in sorted(by_station.items()):
        kept = [recipe for recipe in history if recipe.decision in ('keep', 'adopt')]
        data[station] = {'tried': len(history), 'kept': [_peer_data(recipe) for recipe in kept]}
        text.append(f'{station}: {len(kept)} of {len(history)} kept')
        text += [f'  {recipe.commit[:10]}  {recipe.successes}/{recipe.trials}  {recipe.hypothesis}'
                 for recipe in (kept if everything else kept[-3:])]
    if not text:
        text = [f'{place}: no peer has told of a recipe yet']
    else:
        text.append('`enpire diff best COMMIT`: what one has that ours has not; `enpire recipes`: what was reverted')
    return Answer(bounded(text, everything), data)


def diff(place: Place, before: str = BEST, after: str = HERE, *, everything: bool = False) -> Answer:
    """What leads from one recipe to another: a commit, the name of a station (its last kept one), "best" or "here"."""
    old, new = _files(place, before), _files(place, after)
    text, data = [], {}
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) == new.get(path):
            continue
        lines = list(difflib.unified_diff(old.get(path, '').splitlines(), new.get(path, '').splitlines(),
                                          n=1, lineterm=''))[2:]
        added, removed = (sum(line.startswith(sign) for line in lines) for sign in '+-')
        state = 'new ' if path not in old else 'gone ' if path not in new else ''
        data[path] = {'added': added, 'removed': removed}
        text += [f'{state}{path} +{added} -{removed}', *lines]
    return Answer(bounded(text or [f'{before} and {after} have the same files'], everything), data)


def _files(place: Place, name: str) -> dict[str, str]:
    """Path -> text of a recipe's files."""
    if name == HERE:
        return {str(file.relative_to(place.recipe)): file.read_text(encoding='utf-8', errors='replace')
                for file in sorted(place.recipe.rglob('*'))
                if file.is_file() and not {'.git', '__pycache__'} & set(file.relative_to(place.recipe).parts)}
    work_tree, commit = _find_commit(place, name)
    repository = RecipeRepository(work_tree)
    try:
        return repository.files(commit)
    finally:
        repository.close()


def _find_commit(place: Place, name: str) -> tuple[Path, str]:
    """(a work tree that has it, the commit)."""
    trees = sorted(work_trees(place.directory.parent), key=lambda tree: tree.parent != place.directory)
    wanted = name
    if name == BEST:
        trees, wanted = trees[:1], 'HEAD'      # what was not kept is reverted there
    elif not all(letter in '0123456789abcdef' for letter in name):
        kept = [recipe.commit for recipe in campaign_history(place.directory.parent)
                if recipe.station == name and recipe.decision in ('keep', 'adopt')]
        if not kept:
            raise VerbError(f"'{name}' is neither a commit nor a station that kept a recipe; `enpire peers` and "
                            '`enpire recipes` list them')
        wanted = kept[-1]
    for tree in trees:
        try:
            return tree, run_git(tree, 'rev-parse', '--verify', '--quiet', '--end-of-options', f'{wanted}^{{commit}}')
        except RepositoryError:
            continue
    raise VerbError(f"{place}: no recipe '{name}'; `enpire recipes` lists them")


def _peer_data(recipe: RecipeCommit) -> dict:
    return {'commit': recipe.commit, 'hypothesis': recipe.hypothesis, 'method': recipe.method,
            'trials': recipe.trials, 'successes': recipe.successes}


# --- in the recipe's folder ---

def note(place: Place, text: str) -> Answer:
    """Add a line to the recipe's notes, which peers and the next task read."""
    text = ' '.join(text.split())
    if not 0 < len(text) <= LONGEST_NOTE:
        raise VerbError(f'a note of {len(text)} characters; expected 1 to {LONGEST_NOTE}')
    file = place.recipe / JOURNAL
    before = file.read_text(encoding='utf-8') if file.is_file() else '# Notes\n\n'
    file.parent.mkdir(exist_ok=True)
    write_durably(file, f'{before}- {time.strftime("%Y-%m-%d %H:%M")} {text}\n'.encode())
    return Answer(f'noted in {JOURNAL}', {'file': str(file)}, (file,))


def notes(place: Place, *, everything: bool = False) -> Answer:
    """The ends of the recipe's notes."""
    files = sorted(file for file in (place.recipe / 'notes').rglob('*') if file.is_file())
    content = {str(file.relative_to(place.recipe)): file.read_text(encoding='utf-8', errors='replace')
               for file in files}
    share = MOST_LINES if everything else max(3, MOST_LINES // max(1, len(content)) - 1)
    text = []
    for name, said in content.items():
        lines = [line for line in said.splitlines() if line.strip()]
        text += [f'{name} ({len(lines)} lines)', *(lines if everything else lines[-share:])]
    return Answer(bounded(text or ['no notes yet'], everything), content)


def train(place: Place) -> Answer:
    """Run the recipe's train.py on the campaign's recorded trials and put its weights.json beside it."""
    from enpire_agent.training import TRAINER, WEIGHTS, TrainingError
    from enpire_agent.training import train as trained
    from enpire_bringup.task import load_task

    if not (place.recipe / TRAINER).is_file():
        raise VerbError(f'{place.recipe}: no {TRAINER} there')
    began = time.monotonic()
    try:
        weights = trained(place.recipe, load_task(place.task()), place.trials)
    except TrainingError as error:
        raise VerbError(str(error)) from error
    write_durably(place.recipe / WEIGHTS, weights.encode())
    content = json.loads(weights)
    what = ', '.join(sorted(content)) if isinstance(content, dict) else type(content).__name__
    seconds = time.monotonic() - began
    return Answer(f'{WEIGHTS}: {len(weights)} bytes after {seconds:.1f} s: {what}',
                  {'file': str(place.recipe / WEIGHTS), 'bytes': len(weights), 'seconds': round(seconds, 1)},
                  (place.recipe / WEIGHTS,))


# --- on the running station ---

def next_seed(place: Place) -> int:
    """A seed for the agent's own trial: even, and of a stream that no race of the campaign uses."""
    done = sum(line['kind'] == 'manual' for line in Ledger(place.directory / 'ledger.jsonl').entries())
    return search_seeds(f'{place.campaign}/agent', 1, first=done)[0]


def check_seed(seed: int) -> None:
    """Raises VerbError for a seed of the sort that decides."""
    if seed % 2:
        raise VerbError(f'seed {seed} is odd: odd seeds decide, and nobody tries on them before; take an even one, or '
                        'none')


def trial(place: Place, seed: int | None = None, recipe: Path | str = '') -> Answer:
    """One recorded trial of the recipe here on the running station; in the campaign's ledger as "manual".

    Raises VerbError with the station's reason, e.g. that it is held or that a campaign runs.
    """
    seed = next_seed(place) if seed is None else seed
    check_seed(seed)
    result = _asked(place, lambda station: station.trial(str(Path(recipe or place.recipe).resolve()), seed,
                                                         campaign=place.campaign))
    name = Path(result.directory).name
    return Answer(f'{result.outcome}: {result.reason} ({result.duration:.1f} s, {result.late_steps} late steps)\n'
                  f'trial {name}, seed {seed}',
                  {'trial_id': name, 'outcome': result.outcome, 'reason': result.reason, 'seed': seed,
                   'duration': result.duration, 'steps': result.steps, 'late_steps': result.late_steps,
                   'directory': result.directory})


def adopt(place: Place, commit: str = '', how: str = '') -> Answer:
    """Take over a recipe that a peer announced. Raises VerbError with the station's reason."""
    said = _asked(place, lambda station: station.adopt(commit, how=how))
    return Answer(said, {'message': said})


def score(place: Place) -> Answer:
    """The station's score, from its verified ledger."""
    from enpire_agent.score import score as scored
    from enpire_agent.scored_trials import score_text, scored_trials

    trials = scored_trials([Ledger(place.directory / 'ledger.jsonl')])
    figures = scored(trials.lines)
    if not figures.trials:
        return Answer(f'{place}: no trials yet', {'trials': 0})
    return Answer(score_text(figures, trials), {'trials': figures.trials, 'successes': figures.successes,
                                                'interval': list(figures.interval), 'outcomes': figures.outcomes,
                                                'solved': figures.solved.yes})


def _asked(place: Place, ask):
    from enpire_agent.remote_station import Station
    from enpire_agent.station_results import StationCallError

    try:
        with Station(place.station) as station:
            return ask(station)
    except (StationCallError, ConfigurationError) as error:
        raise VerbError(str(error)) from error


def bounded(lines: Sequence[str], everything: bool = False, *, newest: bool = False) -> str:
    """The lines as a text of at most MOST_LINES of MOST_WIDTH: the first, or the last where those are the newest."""
    if everything:
        return '\n'.join(lines)
    cut = [line if len(line) <= MOST_WIDTH else line[:MOST_WIDTH - 1] + '…' for line in lines]
    left_out = len(cut) - MOST_LINES + 1
    if left_out > 1 and newest:
        cut = [f'({left_out} older ones; --all)', *cut[left_out:]]
    elif left_out > 1:
        cut = [*cut[:MOST_LINES - 1], f'({left_out} more lines; --all)']
    return '\n'.join(cut)
