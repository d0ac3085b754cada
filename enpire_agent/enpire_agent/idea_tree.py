"""The idea tree of a campaign: which hypothesis grew from which, in lanes: adopted, kept, rejected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Sequence

from enpire_agent.campaign_state import Iteration
from enpire_agent.charts import NARROW, decision_legend, nice_step
from enpire_agent.drawing import Drawing, shortened, text_width
from enpire_agent.station_run import StationRun, decision, minutes_in, origin_name

LANES = ('adopted', 'kept', 'rejected')
_LANE_HEIGHT = 40
_BAND_GAP = 34         # above the lanes of a station: its name
_ROOMY, _DENSE = 24, 5   # pixels from one idea to the next: numbers fit into the marks; marks become strokes


@dataclass(frozen=True)
class Node:
    """An iteration in the tree. column: its place in time among the iterations of all stations, from 1."""

    run: StationRun
    iteration: Iteration
    lane: str
    column: int
    parent: 'Node | None'     # None: it grew from the starting recipe
    source: 'Node | None'     # the peer's iteration that was adopted


def tree_nodes(runs: Sequence[StationRun]) -> list[Node]:
    """The iterations of all stations in the order in which they ended, with what each grew from."""
    entries = [(i.ended or '~', run.name, i.number, run, i) for run in runs for i in run.state.iterations]
    nodes: list[Node] = []
    by_commit: dict[str, dict[str, Node]] = {run.name: {} for run in runs}
    for column, (*_, run, iteration) in enumerate(sorted(entries, key=lambda entry: entry[:3]), 1):
        source = next((found[iteration.adopts] for name, found in by_commit.items()
                       if name != run.name and iteration.adopts in found), None)
        node = Node(run, iteration, _lane(iteration), column, by_commit[run.name].get(iteration.parent), source)
        nodes.append(node)
        if iteration.commit:
            by_commit[run.name][iteration.commit] = node
    return nodes


def _lane(iteration: Iteration) -> str:
    name = decision(iteration)
    return {'reverted': 'rejected', 'running': 'rejected'}.get(name, name)


def idea_tree(runs: Sequence[StationRun], width: float) -> Drawing:
    """The tree, a band of lanes for each station that tried something."""
    nodes = tree_nodes(runs)
    runs = [run for run in runs if run.state.iterations]
    drawing = Drawing(width, 0, 'Idea tree', ' '.join(_band_text(run) for run in runs))
    top = drawing.legend(4, 6, [('square', 'ink', 'start'), *decision_legend(runs)])
    layout = _Layout(runs, nodes, width, top)
    for run in runs:
        _draw_band(drawing, layout, run, [node for node in nodes if node.run is run])
    for node in nodes:
        _draw_adoption(drawing, layout, node)
    for run in runs:
        _draw_marks(drawing, layout, run, [node for node in nodes if node.run is run])
    bottom = layout.bottom
    _draw_ticks(drawing, layout, nodes, bottom + 16)
    drawing.height = bottom + 44
    return drawing


def _band_text(run: StationRun) -> str:
    counts = Counter(decision(i) for i in run.state.iterations)
    text = ', '.join(f'{counts[name]} {word}' for name, word in (
        ('kept', 'kept'), ('adopted', 'adopted'), ('reverted', 'rejected'), ('running', 'on trial')) if counts[name])
    return f'{run.name}: {text}.'


class _Layout:
    """Where the lanes and columns lie."""

    def __init__(self, runs: Sequence[StationRun], nodes: Sequence[Node], width: float, top: float):
        self.left = 76 if width > NARROW else 66
        self.right = width - 20
        self.step = min(200.0, (self.right - self.left - 20) / max(1, len(nodes)))
        self.end = self.left + 12 + (len(nodes) + 0.4) * self.step
        self._top = {run.name: top + k * (len(LANES) * _LANE_HEIGHT + _BAND_GAP) + _BAND_GAP
                     for k, run in enumerate(runs)}
        self.bottom = max(self._top.values(), default=top) + len(LANES) * _LANE_HEIGHT
        self.titled = len(runs) > 1
        self.narrow = width <= NARROW

    def x(self, column: float) -> float:
        return self.left + 12 + column * self.step

    def y(self, run: StationRun, lane: str) -> float:
        return self._top[run.name] + (LANES.index(lane) + 0.5) * _LANE_HEIGHT

    def of(self, node: Node) -> tuple[float, float]:
        return self.x(node.column), self.y(node.run, node.lane)

    @property
    def branch(self) -> float:
        """Width of a branch's curve."""
        return min(18.0, 0.7 * self.step)


def _draw_band(drawing: Drawing, layout: _Layout, run: StationRun, nodes: list[Node]) -> None:
    y = layout.y(run, 'kept')
    if layout.titled:
        drawing.text(4, layout.y(run, 'adopted') - _LANE_HEIGHT / 2 - 4, run.name, 'ink', 13, bold=True)
    for lane in LANES:
        drawing.text(layout.left - 12, layout.y(run, lane) + 4, lane, 'soft', 11, anchor='end')
    drawing.segments([(layout.left, layout.y(run, 'adopted') + side * _LANE_HEIGHT / 2, layout.right,
                       layout.y(run, 'adopted') + side * _LANE_HEIGHT / 2) for side in (-1, 1, 3, 5)], 'line')
    ends = [layout.x(node.column) - (layout.branch if node.lane != 'kept' else 0) for node in nodes]
    moved = min((end for node, end in zip(nodes, ends) if node.lane != 'rejected'), default=max(ends))
    drawing.segments([(layout.x(0), y, moved, y)], 'ink', 2.2)        # the starting recipe
    drawing.segments([(moved, y, max(ends), y)], 'kept', 2.2)
    tip: Node | None = None
    strokes = []
    for node in nodes:
        x, y_node = layout.of(node)
        color = 'adopted' if node.lane == 'adopted' else 'reverted' if decision(node.iteration) == 'reverted' \
            else 'running'
        if node.lane != 'kept':
            if node.parent is tip or node.parent is None:
                if layout.step > _DENSE:
                    drawing.curve(x - layout.branch, y, x, y_node, color, 1.4, opacity=0.8)
                else:
                    strokes.append((x, y + 3, x, y_node))
            else:
                drawing.curve(*layout.of(node.parent), x, y_node, color, 1.2, opacity=0.7)
        if node.lane == 'adopted' and node is not nodes[-1]:     # what follows builds on it: back to the trunk
            drawing.curve(x, y_node, min(x + layout.branch, layout.end), y, 'adopted', 1.4, opacity=0.8)
        if node.lane != 'rejected':
            tip = node
    drawing.segments(strokes, 'reverted', 0.6, opacity=0.3)


def _draw_adoption(drawing: Drawing, layout: _Layout, node: Node) -> None:
    """From the peer's iteration to the one that took it over."""
    if node.source is None:
        return
    x, y = layout.of(node)
    drawing.curve(*layout.of(node.source), x, y, 'adopted', 1.4, dashed=True,
                  opacity=0.9 if layout.step > _DENSE else 0.5)


def _draw_marks(drawing: Drawing, layout: _Layout, run: StationRun, nodes: list[Node]) -> None:
    drawing.mark(layout.x(0), layout.y(run, 'kept'), 'square', 'ink', 11, tip=f'{run.name}: the starting recipe')
    roomy, dense = layout.step >= _ROOMY, layout.step <= _DENSE
    if dense:
        rejected = [node for node in nodes if decision(node.iteration) == 'reverted']
        drawing.segments([(x, y - 5, x, y + 5) for x, y in map(layout.of, rejected)], 'reverted',
                         min(2.0, max(0.5, 0.6 * layout.step)))
        nodes = [node for node in nodes if decision(node.iteration) != 'reverted']
    labels = _Labels(drawing, layout)
    for node in nodes:
        x, y = layout.of(node)
        name = decision(node.iteration)
        i = node.iteration
        shape, color, size = {'kept': ('circle', 'kept', 19), 'adopted': ('diamond', 'adopted', 19),
                              'reverted': ('cross', 'reverted', 10), 'running': ('ring', 'running', 12)}[name]
        drawing.mark(x, y, shape, color, size if roomy or name == 'reverted' else min(size, 8 if dense else 12),
                     link=f'#{run.row(i)}', tip=f'#{i.number} {name}, {i.successes} of {i.trials}: '
                                                f'{i.hypothesis[:160]}')
        if roomy and name in ('kept', 'adopted'):
            drawing.text(x, y + 4, str(i.number), 'on-dark', 11, anchor='middle', bold=True)
        labels.put(node, x, y)


class _Labels:
    """Short names of ideas beside their marks, where there is room before the next one of the lane."""

    def __init__(self, drawing: Drawing, layout: _Layout):
        self._drawing = drawing
        self._room = layout.step
        self._right = layout.right
        self._free: dict[str, float] = {}

    def put(self, node: Node, x: float, y: float) -> None:
        if self._room < 15:
            return
        i = node.iteration
        centered = node.lane == 'rejected'
        width = max(3.0 * self._room, 84.0) if node.lane != 'rejected' else 1.9 * self._room
        text = shortened(origin_name(i), width, 11)
        taken = text_width(text, 11)
        start = max(0.0, min(x - taken / 2, self._right - taken)) if centered else x + 14
        if not centered and start + taken > self._right + 10:      # the last one: to the left of its mark
            start = x - 14 - taken
        if not text or start < self._free.get(node.lane, 0.0):
            return
        # In the lane of what was kept the label lies above the trunk, in the others beside or below the mark.
        self._drawing.text(start, y + (19 if centered else -6), text, 'soft', 11)
        self._free[node.lane] = start + taken + 10


def _draw_ticks(drawing: Drawing, layout: _Layout, nodes: list[Node], y: float) -> None:
    """Time since the first station began, below the columns."""
    if not nodes:
        return
    start = min(node.run.state.created for node in nodes)
    every = nice_step(64 / layout.step)
    drawing.text(layout.x(0), y, '0', 'soft', 11, anchor='middle')
    columns = list(range(every, len(nodes) + 1, every))
    for column in columns:
        node = nodes[column - 1]
        minutes = minutes_in(node.run, start, node.iteration.ended)
        drawing.text(layout.x(column), y, 'now' if minutes is None else _clock(minutes), 'soft', 11, anchor='middle')
    if columns:
        drawing.text(layout.x(0), y + 18, 'wall time' if layout.narrow else 'wall time since the campaign began, at '
                     'the end of an iteration; not to scale', 'soft', 11)


def _clock(minutes: float) -> str:
    if minutes < 1.5:
        return f'{60 * minutes:.0f} s'
    if minutes < 10:
        return f'{minutes:.1f} min'
    return f'{minutes:.0f} min' if minutes < 180 else f'{minutes / 60:.1f} h'
