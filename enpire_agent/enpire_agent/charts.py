"""The charts of a campaign's report: hill-climb curve, outcomes of all trials, use of the robot's time."""

from __future__ import annotations

import math
from collections import Counter
from typing import Sequence

from enpire_agent.campaign_state import CampaignState, Iteration
from enpire_agent.drawing import Drawing, shortened, text_width
from enpire_agent.score import success_interval
from enpire_agent.station_run import StationRun, decision, percent

NARROW = 600            # pixels; below this a drawing is for a phone
OUTCOMES = ('SUCCESS', 'FAILURE', 'TIMEOUT', 'SAFETY_STOP', 'POLICY_ERROR', 'RESET_FAILED', 'ABORTED', 'INVALID')
KINDS = ('baseline', 'search', 'gate', 'manual')
KIND_NAMES = {'baseline': 'starting recipe', 'search': 'search', 'gate': 'gate', 'manual': 'by hand'}
_MARKS = {'kept': ('circle', 'kept'), 'adopted': ('diamond', 'adopted'), 'reverted': ('cross', 'reverted'),
          'running': ('ring', 'running')}


def decision_legend(runs: Sequence[StationRun]) -> list[tuple[str, str, str]]:
    """Legend entries of the decisions that there were."""
    there = {decision(i) for run in runs for i in run.state.iterations}
    words = {'kept': 'kept', 'adopted': 'adopted from a peer', 'reverted': 'rejected', 'running': 'on trial'}
    return [(*_MARKS[name], word) for name, word in words.items() if name in there]


# --- hill climb ---

def hill_climb(runs: Sequence[StationRun], width: float) -> Drawing:
    """Success rate over the iterations, a panel for each station."""
    measured = [run for run in runs if run.baseline is not None]
    columns = 2 if len(measured) > 2 and width > NARROW else 1
    rows = -(-len(measured) // columns)
    panel_height = 290 if len(measured) == 1 else 210
    drawing = Drawing(width, 0, 'Hill-climb curve: success rate by iteration',
                      ' '.join(_climb_text(run) for run in measured))
    top = 6 + drawing.legend(4, 6, [
        ('square', 'ink', 'starting recipe, fresh seeds'), *decision_legend(runs),
        *([('square', 'kept', 'best recipe, fresh seeds')] if any(run.attempts for run in runs) else []),
        ('whisker', 'soft', '95 % interval')])
    for k, run in enumerate(measured):
        left = (k % columns) * (width / columns)
        _climb_panel(drawing, run, left, top + (k // columns) * panel_height, width / columns, panel_height,
                     titled=len(runs) > 1)
    drawing.height = top + rows * panel_height
    return drawing


def _climb_text(run: StationRun) -> str:
    state = run.state
    parts = [f'{run.name}: starting recipe {_share(state.baseline)}']
    moved = [i for i in state.iterations if decision(i) in ('kept', 'adopted')]
    parts += [f'iteration {i.number} {decision(i)} with {_share(i)}' for i in moved[-10:]]
    if run.gate is not None:
        parts.append(f'best recipe on fresh seeds {_share(run.gate)}')
    return ', '.join(parts) + '.'


def _share(measured) -> str:
    return f'{measured.successes} of {measured.trials}'


def _climb_panel(drawing: Drawing, run: StationRun, left: float, top: float, width: float, height: float,
                 titled: bool) -> None:
    state = run.state
    last = len(state.iterations)
    gate = run.gate
    x0, x1 = left + 50, left + width - 40
    y0, y1 = top + (34 if titled else 30), top + height - 46
    step = (x1 - x0 - 24) / max(1, last + (gate is not None))

    def x(number: float) -> float:
        return x0 + 18 + number * step

    def y(rate: float) -> float:
        return y1 - rate * (y1 - y0)

    if titled:
        drawing.text(left + 4, top + 14, run.name, 'ink', 13, bold=True)
    drawing.text(left + 4 + (text_width(run.name, 13) + 18 if titled else 0), top + 14, 'success rate', 'soft', 11)
    drawing.segments([(x0, y(rate), x1, y(rate)) for rate in (0.25, 0.5, 0.75, 1.0)], 'line')
    drawing.segments([(x0, y1, x1, y1)], 'soft')
    for rate in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawing.text(x0 - 8, y(rate) + 4, percent(rate), 'soft', 11, anchor='end')
    _climb_ticks(drawing, state, x, y1, step, last, gate is not None, x1)

    steps = best_so_far(state)
    points = [(x(steps[0][0]), y(steps[0][1]))]
    for number, rate in steps[1:]:
        points += [(x(number), points[-1][1]), (x(number), y(rate))]
    drawing.line(points + [(x(last) + (0.5 * step if gate else 0), points[-1][1])], 'kept', 3, opacity=0.35)

    roomy = step >= 44
    size = 11 if step >= 22 else 8 if step >= 9 else 5
    tried = [i for i in state.iterations if i.trials]
    _climb_points(drawing, [i for i in tried if decision(i) == 'reverted'], run, x, y, size, roomy, step >= 9)
    for name in ('running', 'kept', 'adopted'):
        _climb_points(drawing, [i for i in tried if decision(i) == name], run, x, y, size, roomy, True)
    numbers = {i.commit: i.number for i in state.iterations}
    for attempt in run.attempts:       # a gate that was not passed, and the search went on
        number = numbers.get(attempt.recipe)
        if attempt is not gate and number is not None:
            rate = attempt.successes / attempt.trials
            drawing.segments([_whisker(x(number + 0.4), y, attempt)], 'kept', 1.2)
            drawing.mark(x(number + 0.4), y(rate), 'square', 'kept', min(size, 8),
                         tip=f'iteration {number} on fresh seeds, until the first failure: {_share(attempt)}')
    for number, measured, color, name in ((0, run.baseline, 'ink', 'starting recipe'),
                                          (last + 1, gate, 'kept', 'best recipe')):
        if measured is not None:
            rate = measured.successes / measured.trials
            drawing.segments([_whisker(x(number), y, measured)], color, 1.6)
            drawing.mark(x(number), y(rate), 'square', color, 11,
                         tip=f'{name}: {_share(measured)} on fresh seeds')
            if step >= 44 or number == 0 and last == 0:
                _label(drawing, x(number), y(rate), f'{measured.successes}/{measured.trials}', color)


def _climb_points(drawing: Drawing, iterations: list[Iteration], run: StationRun, x, y, size: float, labelled: bool,
                  single: bool) -> None:
    """Points of one kind; many become one shape without tips, so that a drawing of thousands stays small."""
    if not iterations:
        return
    shape, color = _MARKS[decision(iterations[0])]
    dense = not single
    drawing.segments([_whisker(x(i.number), y, i) for i in iterations], color, 1.4 if not dense else 0.8,
                     opacity=0.15 if dense else 0.5 if shape == 'cross' else 1.0)
    if dense:
        drawing.marks([(x(i.number), y(i.successes / i.trials)) for i in iterations], shape, color, size)
        return
    for i in iterations:
        rate = i.successes / i.trials
        drawing.mark(x(i.number), y(rate), shape, color, size, link=f'#{run.row(i)}',
                     tip=f'#{i.number} {decision(i)}, {_share(i)}: {i.hypothesis[:160]}')
        if labelled:
            _label(drawing, x(i.number), y(rate), f'{i.successes}/{i.trials}', color)


def _label(drawing: Drawing, x: float, y: float, text: str, color: str) -> None:
    drawing.text(x + 9, y - 5, text, color, 11)


def _whisker(x: float, y, measured) -> tuple[float, float, float, float]:
    low, high = success_interval(measured.successes, measured.trials)
    return x, y(low), x, y(high)


def _climb_ticks(drawing: Drawing, state: CampaignState, x, y1: float, step: float, last: int, gate: bool,
                 x1: float) -> None:
    every = nice_step(34 / step)
    numbers = [n for n in range(every, last + 1, every) if x(n) > x(0) + 44 and not (gate and x(n) > x(last + 1) - 44)]
    drawing.text(x(0), y1 + 16, 'start', 'soft', 11, anchor='middle')
    for number in numbers:
        drawing.text(x(number), y1 + 16, str(number), 'soft', 11, anchor='middle')
    if gate:
        drawing.text(x(last + 1), y1 + 16, 'gate', 'soft', 11, anchor='middle')
    if numbers:
        drawing.text((x(0) + x(last)) / 2, y1 + 34, 'iteration', 'soft', 11, anchor='middle')


def nice_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is not below `least`."""
    magnitude = 1
    while True:
        for factor in (1, 2, 5):
            if factor * magnitude >= least:
                return factor * magnitude
        magnitude *= 10


def best_so_far(state: CampaignState) -> list[tuple[float, float]]:
    """(iteration, success rate) at which the best recipe changed, 0 for the start."""
    steps = [(0.0, state.baseline.successes / state.baseline.trials)]
    for iteration in state.iterations:
        if decision(iteration) in ('kept', 'adopted') and iteration.trials:
            steps.append((float(iteration.number), iteration.successes / iteration.trials))
    return steps


# --- outcomes ---

def outcome_counts(runs: Sequence[StationRun]) -> list[tuple[str, str, Counter]]:
    """(station, kind, outcome -> trials) of every ledger line, in the order of a campaign."""
    rows = []
    for run in runs:
        for kind in KINDS:
            counts = Counter(line['outcome'] for line in run.lines.values() if line['kind'] == kind)
            if counts:
                rows.append((run.name, kind, counts))
    return rows


def outcome_bars(runs: Sequence[StationRun], width: float) -> Drawing:
    """What became of all trials: a bar of shares for each station and kind of trial."""
    rows = outcome_counts(runs)
    drawing = Drawing(width, 0, 'Outcomes of all trials', ' '.join(
        f'{station} {KIND_NAMES[kind]}: ' + ', '.join(f'{counts[o]} {o}' for o in OUTCOMES if counts[o]) + '.'
        for station, kind, counts in rows))
    seen = [outcome for outcome in OUTCOMES if any(counts[outcome] for _, _, counts in rows)]
    top = 6 + drawing.legend(4, 6, [('square', o, o) for o in seen])
    bars = [(station, KIND_NAMES[kind], [(o, counts[o], f'{counts[o]} {o}') for o in seen if counts[o]],
             _outcome_note(counts)) for station, kind, counts in rows]
    drawing.height = top + _share_bars(drawing, bars, top, grouped=len(runs) > 1, note_width=140)
    return drawing


def _outcome_note(counts: Counter) -> str:
    trials = sum(counts.values())
    low, high = success_interval(counts['SUCCESS'], trials)
    return f'{percent(counts["SUCCESS"] / trials)} ({100 * low:.0f} to {percent(high)})'


def _share_bars(drawing: Drawing, bars: Sequence[tuple], top: float, grouped: bool, note_width: float) -> float:
    """Bars (group, name, parts of (color, amount, text), note), each as long as the others; returns their height."""
    narrow = drawing.width < NARROW
    label_width = 0 if narrow else 130
    x0, x1 = 4 + label_width, drawing.width - (4 if narrow else note_width + 12)
    y, group_before = top, ''
    for group, name, parts, note in bars:
        if grouped and group != group_before:
            y += 6 if group_before else 0
            drawing.text(4, y + 14, group, 'ink', 13, bold=True)
            y += 24
        group_before = group
        if narrow:
            drawing.text(4, y + 12, shortened(name, drawing.width - note_width - 12, 12), 'ink', 12)
            drawing.text(drawing.width - 4, y + 12, note, 'ink', 12, anchor='end')
            y += 18
        else:
            drawing.text(x0 - 12, y + 16, shortened(name, label_width - 12, 12), 'ink', 12, anchor='end')
            drawing.text(x1 + 12, y + 16, note, 'ink', 12)
        _share_bar(drawing, x0, y, x1 - x0, 24, parts)
        y += 32
    return y - top


_LIGHT_FILLS = ('TIMEOUT', 'ABORTED', 'time-resetting', 'time-thinking', 'time-other')


def _share_bar(drawing: Drawing, x: float, y: float, width: float, height: float, parts: Sequence[tuple]) -> None:
    total = sum(amount for _, amount, _ in parts)
    if not total or not math.isfinite(total):
        drawing.rectangle(x, y, width, height, 'line')
        return
    for color, amount, text in parts:
        length = width * amount / total
        drawing.rectangle(x, y, max(0.8, length - 1.5), height, color, tip=text)
        number = text.split(' ')[0]
        if length >= text_width(number, 12) + 8:
            drawing.text(x + length / 2, y + height / 2 + 4.5, number,
                         'on-light' if color in _LIGHT_FILLS else 'on-dark', 12, anchor='middle', bold=True)
        x += length


# --- use of time ---

TIME_NAMES = {'running': 'running', 'resetting': 'resetting', 'training': 'training', 'thinking': 'thinking',
              'held': 'held', 'trials': 'in trials and resets', 'other': 'not told apart'}


def utilization_bars(runs: Sequence[StationRun], width: float) -> Drawing:
    """Where the wall time of each station went."""
    seen = [name for name in TIME_NAMES if any(run.time_split.get(name) for run in runs)]
    drawing = Drawing(width, 0, 'Mean robot utilization (MRU): where the wall time went', ' '.join(
        f'{run.name}: ' + ', '.join(f'{TIME_NAMES[part]} {_duration(run.time_split[part])}' for part in seen
                                   if part in run.time_split) + '.' for run in runs))
    top = 6 + drawing.legend(4, 6, [('square', f'time-{name}', TIME_NAMES[name]) for name in seen])
    bars = []
    for run in runs:
        total = run.elapsed
        parts = [(f'time-{part}', seconds,
                  f'{100 * seconds / total:.0f}% {TIME_NAMES[part]}, {_duration(seconds)}')
                 for part, seconds in ((part, run.time_split.get(part, 0.0)) for part in seen) if seconds]
        note = f'MRU {percent(run.utilization)} of {_duration(total)}' if total else ''
        bars.append((run.name, run.name, parts, note))
    drawing.height = top + _share_bars(drawing, bars, top, grouped=False, note_width=150)
    return drawing


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f'{seconds:.0f} s'
    if seconds < 5400:
        return f'{seconds / 60:.1f} min'
    return f'{seconds / 3600:.1f} h'
