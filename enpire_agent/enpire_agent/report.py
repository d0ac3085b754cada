"""The report of a campaign: one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import io
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jinja2

from enpire_agent.campaign_state import CampaignState, Iteration, Measurement, read_campaign
from enpire_agent.durable_file import write_durably
from enpire_agent.ledger import Ledger, LedgerError
from enpire_agent.recipe_repository import RecipeRepository, RepositoryError
from enpire_agent.score import success_interval
from enpire_agent.trial_record import RecordError, policy_start, read_frames
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.task import load_task

MAX_DIFF_LINES = 400
LEAD_IN = 0.5          # s of a video before the policy's first step; the reset is not shown
VIDEO_RATE = 20.0      # frames a second: recorded at 10 Hz of ROS time, shown at twice the speed
_GOOD, _BAD, _BLUE, _INK, _SOFT = '#1a8f5a', '#c8503c', '#2f6fdb', '#1d2433', '#8a93a3'


@dataclass(frozen=True)
class StationRun:
    """What one station did in a campaign."""

    name: str
    directory: Path
    state: CampaignState
    lines: dict[str, dict]      # trial id -> ledger line
    ledger_note: str


def write_report(directory: Path | str) -> Path:
    """Write `report.html` into a campaign's folder (runs/<campaign>) and return its path.

    Raises ConfigurationError when there is no campaign in it.
    """
    directory = Path(directory)
    runs = _read_runs(directory)
    page = _render(directory, runs)
    file = directory / 'report.html'
    write_durably(file, page.encode('utf-8'))
    return file.resolve()


def _read_runs(directory: Path) -> list[StationRun]:
    runs = []
    for file in sorted(directory.glob('*/campaign.json')):
        ledger = Ledger(file.parent / 'ledger.jsonl')
        try:
            lines = ledger.verify()
            note = f'{len(lines)} trials, chain intact'
        except LedgerError as error:
            lines, note = [], str(error)
        runs.append(StationRun(file.parent.name, file.parent, read_campaign(file),
                               {line['trial_id']: line for line in lines}, note))
    if not runs:
        raise ConfigurationError(f'{directory}: no campaign in it; expected <station>/campaign.json')
    return sorted(runs, key=lambda run: (run.state.created, run.name))


def _render(directory: Path, runs: list[StationRun]) -> str:
    first = runs[0]
    settings = first.state.settings
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / 'templates'), autoescape=True, trim_blocks=True,
        lstrip_blocks=True)
    outcomes = [line['outcome'] for run in runs for line in run.lines.values()]
    return environment.get_template('report.html.j2').render(
        campaign=settings.campaign,
        title=f'{settings.task}: a policy that improved itself',
        objective=_objective(settings.task),
        created=first.state.created[:16].replace('T', ' ') + ' UTC',
        finished=first.state.finished,
        figures=_figures(runs),
        curve=_curve(first.state),
        videos=_videos(runs),
        stations=[_station(run) for run in runs],
        legend=sorted(set(outcomes), key=lambda outcome: (outcome != 'SUCCESS', outcome)),
        facts=[('Environment', f'SHA-256 {settings.env_hash}: task, scene, reward, reset, limits and station of every '
                               f'trial on this page'),
               *((f'Ledger of {run.name}', run.ledger_note) for run in runs),
               ('Recipes', str(directory.resolve() / 'remote.git')),
               ('Researcher', first.state.researcher)],
        commands=[f'./enpire score {settings.campaign}',
                  f'./enpire ledger verify {settings.campaign}',
                  f'./enpire report {settings.campaign}',
                  f'git -C {_shown(first.directory / "recipe")} log'])


def _objective(task: str) -> str:
    try:
        return load_task(task).objective
    except ConfigurationError:
        return ''


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path.resolve())


# --- figures ---

def _figures(runs: list[StationRun]) -> list[dict]:
    state = runs[0].state
    figures = [_measured('Starting recipe', state.baseline)]
    if state.gate is not None:
        figures.append(_measured('Best recipe', state.gate))
    kept = sum(iteration.state == 'kept' for iteration in state.iterations)
    figures += [
        {'name': 'Hypotheses', 'value': len(state.iterations), 'note': f'{kept} kept'},
        {'name': 'Trials', 'value': sum(len(run.lines) for run in runs),
         'note': ', '.join(f'{run.name}: {len(run.lines)}' for run in runs)},
        {'name': 'Wall time', 'value': _minutes(state.elapsed),
         'note': f'{_share(state.busy, state.elapsed)} of it in trials and resets'}]
    return figures


def _measured(name: str, measured: Measurement | None) -> dict:
    if measured is None or not measured.trials:
        return {'name': name, 'value': 'not yet', 'note': ''}
    low, high = success_interval(measured.successes, measured.trials)
    return {'name': name, 'value': f'{100 * measured.successes / measured.trials:.0f} %',
            'note': f'{measured.successes} of {measured.trials} fresh seeds, {100 * low:.0f} to {100 * high:.0f} %'}


def _minutes(seconds: float) -> str:
    return f'{seconds / 60:.1f} min'


def _share(part: float, whole: float) -> str:
    return f'{100 * min(1.0, part / whole):.0f} %' if whole > 0 else '0 %'


# --- curve ---

def _curve(state: CampaignState) -> str:
    """The hill-climb curve as inline SVG; empty when nothing was measured."""
    measured = [i for i in state.iterations if i.trials]
    if state.baseline is None or not state.baseline.trials:
        return ''
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    with plt.rc_context({'font.family': 'sans-serif', 'font.size': 10, 'svg.fonttype': 'none',
                         'axes.edgecolor': '#c9cfd9', 'text.color': _INK, 'axes.labelcolor': _SOFT,
                         'xtick.color': _SOFT, 'ytick.color': _SOFT}):
        figure, axes = plt.subplots(figsize=(9.6, 3.6))
        last = max((i.number for i in state.iterations), default=0)
        _point(axes, 0, state.baseline.successes, state.baseline.trials, _INK, 's', 'baseline')
        for iteration in measured:
            color, marker = (_GOOD, 'o') if iteration.state == 'kept' else (_BAD, 'x')
            _point(axes, iteration.number, iteration.successes, iteration.trials, color, marker)
        steps = _best_so_far(state)
        axes.step([x for x, _ in steps] + [last + 0.5], [y for _, y in steps] + [steps[-1][1]], where='post',
                  color=_GOOD, alpha=0.35, linewidth=2.5, zorder=1)
        ticks, labels = [0, *range(1, last + 1)], ['baseline', *map(str, range(1, last + 1))]
        if state.gate is not None and state.gate.trials:
            _point(axes, last + 1, state.gate.successes, state.gate.trials, _BLUE, 's')
            ticks, labels = [*ticks, last + 1], [*labels, 'gate']
        axes.set_xticks(ticks, labels)
        axes.set_xlim(-0.5, last + 1.5)
        axes.set_ylim(-0.04, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ['0', '25 %', '50 %', '75 %', '100 %'])
        axes.set_ylabel('success rate')
        axes.set_xlabel('iteration')
        axes.grid(axis='y', color='#eceff3')
        axes.set_axisbelow(True)
        for side in ('top', 'right', 'left'):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
        handles = [plt.Line2D([], [], color=color, marker=marker, linestyle='', label=label, markersize=6)
                   for color, marker, label in ((_INK, 's', 'starting recipe, fresh seeds'), (_GOOD, 'o', 'kept'),
                                                (_BAD, 'x', 'reverted'), (_BLUE, 's', 'best recipe, fresh seeds'))]
        axes.legend(handles=handles, loc='upper center', bbox_to_anchor=(0.5, 1.16), ncols=4, frameon=False,
                    handletextpad=0.2, columnspacing=1.6)
        figure.tight_layout()
        text = io.StringIO()
        figure.savefig(text, format='svg', transparent=True)
        plt.close(figure)
    svg = text.getvalue()
    return svg[svg.index('<svg'):]


def _point(axes, x: float, successes: int, trials: int, color: str, marker: str, label: str = '') -> None:
    rate = successes / trials
    low, high = success_interval(successes, trials)
    axes.errorbar([x], [rate], yerr=[[rate - low], [high - rate]], color=color, marker=marker, markersize=7,
                  capsize=0, elinewidth=1.4, alpha=0.95, linestyle='', zorder=3)
    axes.annotate(f'{successes}/{trials}', (x, rate), textcoords='offset points', xytext=(8, 5), fontsize=9,
                  color=color)


def _best_so_far(state: CampaignState) -> list[tuple[float, float]]:
    """(iteration, success rate) at which the best recipe changed."""
    steps = [(0.0, state.baseline.successes / state.baseline.trials)]
    for iteration in state.iterations:
        if iteration.state == 'kept' and iteration.trials:
            steps.append((float(iteration.number), iteration.successes / iteration.trials))
    return steps


# --- stations ---

def _station(run: StationRun) -> dict:
    state = run.state
    strips = []
    for name, measured in (('Starting recipe on fresh seeds', state.baseline),
                           ('Best recipe on fresh seeds', state.gate)):
        if measured is not None and measured.trial_ids:
            low, high = success_interval(measured.successes, measured.trials)
            strips.append({
                'name': name, 'trials': [_trial(run.lines.get(trial_id)) for trial_id in measured.trial_ids],
                'text': f'{measured.successes} of {measured.trials}, 95 % interval {100 * low:.0f} to '
                        f'{100 * high:.0f} %'})
    return {'name': run.name, 'source': state.baseline.source if state.baseline else '', 'strips': strips,
            'iterations': _iterations(run), 'summary': state.finished}


def _trial(line: dict | None) -> dict:
    if line is None:
        return {'outcome': 'INVALID', 'title': 'not in the ledger'}
    return {'outcome': line['outcome'],
            'title': f'{line["outcome"]}: {line["reason"]} (seed {line["seed"]}, {line["duration"]:.1f} s)'}


def _iterations(run: StationRun) -> list[dict]:
    try:
        repository = RecipeRepository(run.directory / 'recipe')
    except RepositoryError:
        repository = None
    try:
        return [_iteration(iteration, repository) for iteration in run.state.iterations]
    finally:
        if repository is not None:
            repository.close()


def _iteration(iteration: Iteration, repository: RecipeRepository | None) -> dict:
    diff = repository.diff(iteration.commit).splitlines() if repository and iteration.commit else []
    added = sum(line.startswith('+') and not line.startswith('+++') for line in diff)
    removed = sum(line.startswith('-') and not line.startswith('---') for line in diff)
    trials = iteration.trials
    bar = [(outcome, round(100 * count / trials, 2)) for outcome, count in
           sorted(iteration.outcomes.items(), key=lambda entry: entry[0] != 'SUCCESS')] if trials else []
    return {
        'number': iteration.number, 'hypothesis': iteration.hypothesis, 'method': iteration.method,
        'commit': iteration.commit, 'successes': iteration.successes, 'trials': trials,
        'before': iteration.before,
        'state': 'adopted' if iteration.adopts and iteration.state == 'kept' else iteration.state,
        'reason': iteration.reason, 'bar': bar,
        'outcomes_text': ', '.join(f'{count} {outcome}' for outcome, count in iteration.outcomes.items()),
        'diff_title': f'diff: +{added} -{removed} lines',
        'diff': [_diff_line(line) for line in diff[:MAX_DIFF_LINES]]
                + ([{'kind': 'hunk', 'text': f'... {len(diff) - MAX_DIFF_LINES} more lines'}]
                   if len(diff) > MAX_DIFF_LINES else [])}


def _diff_line(line: str) -> dict:
    if line.startswith(('+++', '---', 'diff', 'index', 'new file', 'deleted')):
        kind = 'soft'
    else:
        kind = {'+': 'add', '-': 'del', '@': 'hunk'}.get(line[:1], '')
    return {'kind': kind, 'text': line or ' '}


# --- videos ---

def _videos(runs: list[StationRun]) -> list[dict]:
    """The first trial that was filmed, and one of the best recipe."""
    first_run = runs[0]
    videos = []
    baseline = first_run.state.baseline
    for trial_id in baseline.trial_ids if baseline else []:
        video = _video(first_run, trial_id, 'First trial, starting recipe')
        if video is not None:
            videos.append(video)
            break
    ids = list(first_run.state.gate.trial_ids) if first_run.state.gate else []
    if first_run.state.best is not None and first_run.state.best.iteration:
        ids += first_run.state.best.trial_ids
    # A success of ordinary length shows what was learned; without one, what there is.
    successes = sorted((trial_id for trial_id in ids if first_run.lines.get(trial_id, {}).get('outcome') == 'SUCCESS'),
                       key=lambda trial_id: first_run.lines[trial_id]['duration'])
    middle = len(successes) // 2
    ids = successes[middle:] + successes[:middle] + ids
    for trial_id in ids:
        video = _video(first_run, trial_id, 'Best recipe')
        if video is not None:
            videos.append(video)
            break
    return videos


def _video(run: StationRun, trial_id: str, title: str) -> dict | None:
    line = run.lines.get(trial_id)
    if line is None:
        return None
    directory = run.directory / 'trials' / trial_id
    try:
        start = policy_start(directory) - LEAD_IN
        data = encode_video([frame.jpeg for frame in read_frames(directory) if frame.time >= start])
    except RecordError:
        return None
    if not data:
        return None
    return {'title': title, 'outcome': line['outcome'], 'data': base64.b64encode(data).decode(),
            'caption': f'{line["kind"]} trial, seed {line["seed"]}, {line["duration"]:.1f} s, shown at twice the '
                       f'speed. {line["reason"]}'}


def encode_video(frames: list[bytes], rate: float = VIDEO_RATE) -> bytes:
    """JPEG frames as a WebM video (VP8), which every browser plays; empty without frames.

    Raises RecordError when OpenCV cannot encode it.
    """
    import cv2
    import numpy as np

    images = [cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR) for frame in frames]
    images = [image for image in images if image is not None]
    if not images:
        return b''
    height, width = (size - size % 2 for size in images[0].shape[:2])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'video.webm'
        with _quiet():
            writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*'VP80'), rate, (width, height))
        if not writer.isOpened():
            raise RecordError('this OpenCV cannot write WebM (VP8) video')
        for image in images:
            writer.write(image[:height, :width])
        writer.release()
        return file.read_bytes()


@contextmanager
def _quiet():
    """Keep the terminal free of OpenCV's remark that WebM has no tag for VP8, which it then writes all the same."""
    terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
