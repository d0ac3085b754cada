"""The report of a campaign: one HTML page that needs nothing beside it, and its charts as PNG.

With 8 stations and 300 iterations each the page stays below MAX_PAGE_BYTES: videos and diffs have a budget, texts a
length, and points of a chart that lie close together become one shape.
"""

from __future__ import annotations

import base64
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Sequence

import jinja2
from markupsafe import Markup, escape

from enpire_agent.campaign_state import Iteration, Measurement
from enpire_agent.campaign_tokens import count_text, tokens_row
from enpire_agent.charts import OUTCOMES, hill_climb, outcome_bars, utilization_bars
from enpire_agent.drawing import css_classes, css_colors
from enpire_agent.durable_file import write_durably
from enpire_agent.idea_tree import idea_tree
from enpire_agent.recipe_diffs import Diff, read_diffs
from enpire_agent.score import success_interval
from enpire_agent.search_and_gate import Share, compared, remark, solved_by
from enpire_agent.shown_trials import ShownTrial, best_and_worst
from enpire_agent.station_run import (StationRun, best_run, decision, first_baseline, is_finished, is_running,
                                      minutes_in, origin_name, percent, rate_text, read_runs,
                                      utilization)
from enpire_agent.time_split import token_utilization
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.task import load_task

MAX_PAGE_BYTES = 24_000_000
_DIFFS_BUDGET = 4_000_000      # characters of diffs on the page
_LINE_MARKUP = 28              # characters around a line of a diff
_MAX_TEXT = 400                # characters of a hypothesis or reason
_MAX_STRIP = 400               # trials shown one by one
_LONG_TABLE = 40               # iterations; a longer table shows at first only what was kept
_MAX_EXCHANGES = 40            # events of the fleet log
_EXCHANGES = {'adopted': 'adopted', 'conflict': 'conflict, not adopted', 'refused': 'refused',
              'push_failed': 'push failed'}
_WIDE, _NARROW = 880, 360     # pixels of the charts on a screen and on a phone


def write_report(directory: Path | str) -> Path:
    """Write report.html and report/*.png into a campaign's folder (runs/<campaign>); returns the page's path.

    Raises ConfigurationError when there is no campaign in it.
    """
    directory = Path(directory)
    runs = read_runs(directory)
    charts, trials = _charts(runs), best_and_worst(runs)
    pictures = directory / 'report'
    pictures.mkdir(exist_ok=True)
    for name, chart in charts.items():
        write_durably(pictures / f'{name}.png', chart(runs, _WIDE).png())
    for trial in trials:
        write_durably(pictures / f'{_file_name(trial)}.png', trial.strip)
    file = directory / 'report.html'
    write_durably(file, _render(directory, runs, charts, trials).encode('utf-8'))
    return file.resolve()


def _charts(runs: Sequence[StationRun]) -> dict:
    """Name -> function that draws it, of those that have something to show."""
    charts = {}
    if first_baseline(runs) is not None:
        charts['hill_climb'] = hill_climb
    if any(run.state.iterations for run in runs):
        charts['idea_tree'] = idea_tree
    if any(run.lines for run in runs):
        charts['outcomes'] = outcome_bars
    if any(run.elapsed for run in runs):
        charts['robot_time'] = utilization_bars
    return charts


def _render(directory: Path, runs: Sequence[StationRun], charts: dict, trials: Sequence[ShownTrial]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / 'templates'), autoescape=True, trim_blocks=True,
        lstrip_blocks=True)
    settings = runs[0].state.settings
    return environment.get_template('report.html.j2').render(
        campaign=settings.campaign, headline=_headline(runs), objective=_objective(settings.task),
        about=_about(runs), solved=_solved(runs), verdict=_verdict(runs), figures=_figures(runs),
        compared=_compared(runs),
        charts={name: [Markup(chart(runs, width).svg(kind)) for kind, width in (('wide', _WIDE), ('narrow', _NARROW))]
                for name, chart in charts.items()},
        trials=[_shown_trial(trial) for trial in trials], strips=_strips(runs), stations=_stations(runs),
        exchanges=_exchanges(runs), tokens=_tokens(runs), facts=_facts(directory, runs), commands=_commands(runs),
        colors_light=Markup(css_colors(dark=False)), colors_dark=Markup(css_colors(dark=True)),
        color_classes=Markup(css_classes()))


def _objective(task: str) -> str:
    try:
        return load_task(task).objective
    except ConfigurationError:
        return ''


# --- what it comes to ---

def _headline(runs: Sequence[StationRun]) -> str:
    task = runs[0].state.settings.task
    baseline, best = first_baseline(runs), best_run(runs)
    if not is_finished(runs):
        return f'{task}: research goes on'
    if best is None or baseline is None:
        return f'{task}: no hypothesis was better than the starting recipe'
    return (f'{task}: from {percent(baseline.successes / baseline.trials)} to '
            f'{percent(best.gate.successes / best.gate.trials)} success')


def _solved(runs: Sequence[StationRun]) -> dict:
    result = solved_by(runs)
    return {'yes': result.yes, 'figures': result.figures,
            'word': 'Solved' if result.yes else 'Not solved' if is_finished(runs) else 'Not solved yet'}


def _compared(runs: Sequence[StationRun]) -> dict:
    """Recipes on search seeds and on fresh seeds, and what the two say together."""
    rows = {run.name: compared(run) for run in runs}
    best = best_run(runs)
    return {'remark': remark(rows[best.name]) if best is not None else '', 'rows': [
        {'name': f'{name}: {row.name}' if len(runs) > 1 else row.name, 'best': row.is_best,
         'cells': [_cell(row.search), _cell(row.fresh)]} for name, found in rows.items() for row in found]}


def _cell(share: Share | None) -> dict | None:
    if share is None or not share.trials:
        return None
    low, high = share.interval
    return {'rate': 100 * share.successes / share.trials, 'successes': share.successes, 'trials': share.trials,
            'low': 100 * low, 'high': 100 * high, 'note': share.note}


def _verdict(runs: Sequence[StationRun]) -> str:
    """What the two measurements on fresh seeds say together."""
    baseline, best = first_baseline(runs), best_run(runs)
    if best is None or baseline is None:
        return ''
    gate = best.gate
    whose = f' ({best.name})' if len(runs) > 1 else ''
    before = success_interval(baseline.successes, baseline.trials)
    after = success_interval(gate.successes, gate.trials)
    text = (f'On fresh seeds the starting recipe succeeded in {baseline.successes} of {baseline.trials} trials, '
            f'{rate_text(baseline.successes, baseline.trials)}, the best recipe{whose} in {gate.successes} of '
            f'{gate.trials}, {rate_text(gate.successes, gate.trials)}. ')
    if after[0] > before[1]:
        return text + 'The intervals do not overlap: the improvement is more than luck.'
    if before[0] > after[1]:
        return text + 'The intervals do not overlap: the recipe became worse.'
    return text + 'The intervals overlap: more trials are needed to be sure of a difference.'


def _about(runs: Sequence[StationRun]) -> str:
    state = runs[0].state
    text = f'Campaign {state.settings.campaign}, begun {_day(state.created)}'
    text += f', {len(runs)} stations' if len(runs) > 1 else f', {runs[0].name}'
    if not is_finished(runs):
        waiting = [f'{run.name} {_phase_text(run)}' for run in runs if not run.state.finished]
        now = datetime.now(timezone.utc).isoformat()
        text += f'. As of {_day(now)}: {"; ".join(waiting)}'
    return text + '.'


def _phase_text(run: StationRun) -> str:
    state = run.state
    if state.phase == 'search':
        return f'searches, iteration {len(state.iterations)}'
    return {'baseline': 'measures the starting recipe', 'gate': 'measures the best recipe'}.get(state.phase, '')


def _day(moment: str) -> str:
    return moment[:16].replace('T', ' ') + ' UTC'


def _figures(runs: Sequence[StationRun]) -> list[dict]:
    iterations = Counter(decision(i) for run in runs for i in run.state.iterations)
    busy = Counter()
    for run in runs:
        busy.update(run.time_split)
    figures = [_measured('Starting recipe', first_baseline(runs)), _best_figure(runs)]
    figures.append({'name': 'Hypotheses', 'value': sum(iterations.values()), 'note': ', '.join(
        f'{iterations[name]} {word}' for name, word in (('kept', 'kept'), ('adopted', 'adopted'), (
            'reverted', 'rejected'), ('running', 'on trial')) if iterations[name]) or 'none yet'})
    figures.append({'name': 'Trials', 'value': sum(len(run.lines) for run in runs),
                    'note': f'on {len(runs)} stations' if len(runs) > 1 else 'every started trial counts'})
    figures.append({'name': 'Wall time', 'value': _duration(_wall_time(runs)),
                    'note': 'from the first trial to the last' if len(runs) > 1 else 'while the campaign ran'})
    if busy:
        figures.append({'name': 'Robot utilization', 'value': percent(utilization(busy)),
                        'note': 'of the time in trials and resets (MRU)'})
    tokens = sum(run.tokens for run in runs)
    if tokens:
        figures.append({'name': 'Tokens', 'value': count_text(tokens),
                        'note': f'{token_utilization(tokens, busy):.0f} a minute (MTU)'})
    return figures


def _best_figure(runs: Sequence[StationRun]) -> dict:
    measured = best_run(runs)
    if measured is not None:
        return _measured('Best recipe', measured.gate)
    known = [run.state.best for run in runs if run.state.best is not None]
    best = max((best for best in known if best.iteration and best.trials),
               key=lambda best: best.successes / best.trials, default=None)
    if best is None:
        return {'name': 'Best recipe', 'value': 'the start', 'note': 'no hypothesis was kept'
                if is_finished(runs) else 'no hypothesis was kept yet'}
    return {'name': 'Best recipe so far', 'value': percent(best.successes / best.trials),
            'note': f'{best.successes} of {best.trials} trials so far'}


def _measured(name: str, measured: Measurement | None) -> dict:
    if measured is None:
        return {'name': name, 'value': 'not yet', 'note': 'not measured'}
    low, high = success_interval(measured.successes, measured.trials)
    return {'name': name, 'value': percent(measured.successes / measured.trials),
            'note': f'{measured.successes} of {measured.trials} fresh seeds; 95\u00a0% interval {100 * low:.0f} to '
                    f'{percent(high)}'}


def _wall_time(runs: Sequence[StationRun]) -> float:
    """s: of one station the time that it ran, of several from the first trial's start to the last one's end."""
    lines = [line for run in runs for line in run.lines.values()]
    if len(runs) == 1 or not lines:
        return runs[0].elapsed
    start, end = min(line['started'] for line in lines), max(line['ended'] for line in lines)
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 6000 else f'{seconds / 3600:.1f} h'


# --- trials ---

def _file_name(trial: ShownTrial) -> str:
    return trial.title.lower().replace(' ', '_')


def _shown_trial(trial: ShownTrial) -> dict:
    line = trial.line
    error = line.get('position_error')
    distance = f', {1e3 * error:.0f} mm from the goal at the end' if error is not None else ''
    what = f'{_recipe_name(trial.run, line)}, {line["outcome"]} after {line["duration"]:.1f} s{distance}'
    return {'title': trial.title, 'why': trial.why, 'outcome': line['outcome'],
            'what': f'{trial.run.name}, {what}, seed {line["seed"]}.', 'reason': _cut(line['reason']),
            'alt': f'{trial.title}: {what}', 'file': '' if trial.video else _shown(trial.file),
            'video': base64.b64encode(trial.video).decode(), 'strip': base64.b64encode(trial.strip).decode()}


def _recipe_name(run: StationRun, line: dict) -> str:
    if line['kind'] == 'baseline':
        return 'starting recipe'
    number = next((i.number for i in run.state.iterations
                   if line['trial_id'] in i.trial_ids or line['recipe'] in (i.commit, i.recipe)), None)
    name = f'recipe of iteration {number}' if number else f'{line["kind"]} trial'
    return f'{name} at the gate' if line['kind'] == 'gate' else name


def _strips(runs: Sequence[StationRun]) -> list[dict]:
    """Trials on fresh seeds one by one, in the order in which they ran."""
    strips = []
    for run in runs:
        for name, measured in (('starting recipe', run.baseline), ('best recipe', run.gate)):
            if measured is not None and measured.trial_ids:
                trials = [_strip_trial(run.lines.get(trial_id)) for trial_id in measured.trial_ids[:_MAX_STRIP]]
                strips.append({'name': f'{run.name}, {name}' if len(runs) > 1 else name, 'trials': trials,
                               'left_out': len(measured.trial_ids) - len(trials),
                               'text': f'{measured.successes} of {measured.trials} succeeded'})
    return strips


def _strip_trial(line: dict | None) -> dict:
    if line is None:
        return {'outcome': 'INVALID', 'title': 'not in the ledger'}
    return {'outcome': line['outcome'],
            'title': f'{line["outcome"]}, {line["duration"]:.1f} s, seed {line["seed"]}: {line["reason"][:120]}'}


# --- iterations ---

def _stations(runs: Sequence[StationRun]) -> list[dict]:
    diffs = _diffs(runs)
    stations = []
    for run in runs:
        state = run.state
        rows = [_row(run, i, diffs.get((run.name, i.commit))) for i in state.iterations]
        source = state.baseline.source if state.baseline else ''
        stations.append({'name': run.name, 'rows': rows, 'long': len(rows) > _LONG_TABLE,
                         'source': source, 'finished': state.finished})
    return stations


def _diffs(runs: Sequence[StationRun]) -> dict[tuple[str, str], Diff]:
    """(station, commit) -> diff. When they are too many the lines of rejected ones are left out, oldest first."""
    diffs: dict[tuple[str, str], Diff] = {}
    for run in runs:
        commits = [i.commit for i in run.state.iterations if i.commit]
        found = read_diffs(run.directory / 'recipe', commits)
        diffs.update({(run.name, commit): diff for commit, diff in found.items()})
    ranked = sorted(((decision(i) in ('kept', 'adopted'), i.ended, run.name, i.commit) for run in runs
                     for i in run.state.iterations), reverse=True)
    left = _DIFFS_BUDGET
    for *_, name, commit in ranked:
        diff = diffs.get((name, commit))
        if diff is not None:
            cost = sum(len(escape(line)) + _LINE_MARKUP for line in diff.lines)
            if cost > left:
                diff.lines.clear()
            left -= min(left, cost if diff.lines else 0)
    return diffs


def _row(run: StationRun, iteration: Iteration, diff: Diff | None) -> dict:
    i = iteration
    low, high = success_interval(i.successes, i.trials)
    took = minutes_in(run, i.started, i.ended)
    return {
        'id': run.row(i), 'number': i.number, 'decision': decision(i),
        'word': {'reverted': 'rejected', 'running': 'on trial'}.get(decision(i), decision(i)),
        'hypothesis': _cut(i.hypothesis), 'idea': origin_name(i), 'method': i.method, 'commit': i.commit,
        'took': '' if took is None else _duration(60 * took), 'reason': _cut(i.reason), 'before': i.before,
        'successes': i.successes, 'trials': i.trials, 'low': 100 * low, 'high': 100 * high,
        'rate': 100 * i.successes / i.trials if i.trials else None,
        'outcomes': ', '.join(f'{i.outcomes[name]} {name}' for name in OUTCOMES if i.outcomes.get(name)),
        'files': sorted(i.files)[:12] if is_running(i) else [],
        'diff': None if diff is None else {
            'title': f'diff: +{diff.added} −{diff.removed} lines', 'lines': [_diff_line(line) for line in diff.lines],
            'total': diff.total, 'left_out': diff.total - len(diff.lines)},
        'show': f'git -C {_shown(run.directory / "recipe")} show {i.commit[:10]}'}


def _diff_line(line: str) -> tuple[str, str]:
    """(kind, text)."""
    if line.startswith(('+++', '---', 'diff ', 'index ', 'new file', 'deleted')):
        return 'meta', line
    return {'+': 'add', '-': 'del', '@': 'hunk'}.get(line[:1], ''), line or ' '


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT - 1] + '…'


# --- between the stations ---

def _exchanges(runs: Sequence[StationRun]) -> dict:
    """What the fleet log says of recipes that travelled: counts, and what was adopted or went wrong, newest first."""
    counts = Counter(entry['event'] for run in runs for entry in run.exchanges)
    told = sorted(((entry.get('time', 0.0), run.name, entry) for run in runs for entry in run.exchanges
                   if entry['event'] in _EXCHANGES), key=lambda item: item[:2], reverse=True)
    return {'announced': counts['announced'], 'left_out': max(0, len(told) - _MAX_EXCHANGES), 'rows': [
        {'time': _day(datetime.fromtimestamp(time, timezone.utc).isoformat()), 'station': name,
         'event': entry['event'], 'word': _EXCHANGES[entry['event']], 'commit': str(entry.get('commit', ''))[:10],
         'source': str(entry.get('station', '')), 'how': str(entry.get('how', '')).replace('_', ' '),
         'reason': _cut(str(entry.get('reason', '')))} for time, name, entry in told[:_MAX_EXCHANGES]]}


def _tokens(runs: Sequence[StationRun]) -> list[dict]:
    return [tokens_row(run.name, run.state, run.time_split) for run in runs if run.tokens]


# --- where it comes from ---

def _facts(directory: Path, runs: Sequence[StationRun]) -> list[tuple[str, str]]:
    settings = runs[0].state.settings
    return [('Environment', f'SHA-256 {settings.env_hash}: task, scene, reward, reset, limits and station of every '
                            f'trial on this page'),
            *((f'Ledger of {run.name}', run.ledger_note) for run in runs),
            ('Recipes', _recipes(directory, runs)),
            ('Researcher', runs[0].state.researcher),
            ('Charts as PNG', str(directory.resolve() / 'report'))]


def _recipes(directory: Path, runs: Sequence[StationRun]) -> str:
    remote = directory.resolve() / 'remote.git'
    return f'Git branch {", ".join(run.name for run in runs)} in ' + (
        str(remote) if remote.exists() else f'{directory.resolve()}/<station>/recipe')


def _commands(runs: Sequence[StationRun]) -> list[str]:
    name = runs[0].state.settings.campaign
    return [f'./enpire score {name}', f'./enpire ledger verify {name}', f'./enpire recipes {name}',
            f'./enpire report {name}', f'git -C {_shown(runs[0].directory / "recipe")} log']


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path.resolve())
