import dataclasses
import itertools

import numpy as np
import pytest
from recorded_campaign import record_campaign

from enpire_agent.charts import best_so_far, hill_climb, nice_step, outcome_bars, outcome_counts, utilization_bars
from enpire_agent.drawing import PALETTE, Drawing, shortened, text_width
from enpire_agent.idea_tree import idea_tree, tree_nodes
from enpire_agent.station_run import read_runs

# Linear RGB as people see it who lack one kind of cone (Machado, Oliveira and Fernandes, 2009, severity 1).
SEEN_AS = {
    'ordinary': np.eye(3),
    'protanopia': np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    'deuteranopia': np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    'tritanopia': np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]])}
TOGETHER = (('kept', 'reverted', 'adopted'),
            ('SUCCESS', 'FAILURE', 'TIMEOUT', 'SAFETY_STOP', 'POLICY_ERROR', 'ABORTED'),
            ('time-running', 'time-resetting', 'time-training', 'time-thinking', 'time-held'))
LIGHT_FILLS = ('TIMEOUT', 'ABORTED', 'time-resetting', 'time-thinking', 'time-other')


def linear(color):
    values = np.array([int(color[k:k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB (D65) of linear RGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a, b):
    light, dark = sorted((float(np.dot([0.2126, 0.7152, 0.0722], linear(color))) for color in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize('dark', (False, True))
@pytest.mark.parametrize('eyes', SEEN_AS)
def test_colors_that_stand_together_are_told_apart_by_everybody(eyes, dark):
    for colors in TOGETHER:
        for one, other in itertools.combinations(colors, 2):
            apart = np.linalg.norm(lab(SEEN_AS[eyes] @ linear(PALETTE[one][dark]))
                                   - lab(SEEN_AS[eyes] @ linear(PALETTE[other][dark])))
            assert apart > 12, (one, other, apart)


@pytest.mark.parametrize('dark', (False, True))
def test_texts_are_readable_on_what_lies_behind_them(dark):
    for name in ('ink', 'soft', 'link', 'kept', 'reverted', 'adopted'):
        assert contrast(PALETTE[name][dark], PALETTE['card'][dark]) >= 4.5, name
    for name in [name for group in TOGETHER[1:] for name in group] + ['RESET_FAILED', 'time-other', 'time-trials']:
        label = 'on-light' if name in LIGHT_FILLS else 'on-dark'
        assert contrast(PALETTE[label][dark], PALETTE[name][dark]) >= 4.4, name


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return read_runs(record_campaign(tmp_path_factory.mktemp('runs') / 'c', stations=2, decisions=(
        'revert', 'keep', 'revert', 'adopt', 'revert', 'keep')))


def shapes(drawing, kind):
    return [shape[1:] for shape in drawing.shapes if shape[0] == kind]


def test_the_curve_rises_where_a_recipe_was_kept_or_adopted(runs):
    for run in runs:
        steps = best_so_far(run.state)
        assert [number for number, _ in steps] == [0, 2, 4, 6]
        assert [rate for _, rate in steps[1:]] == [
            run.state.iterations[number - 1].successes / 4 for number in (2, 4, 6)]


def test_each_point_of_the_curve_links_to_its_row_and_says_its_hypothesis(runs):
    marks = [(tip, link) for *_, tip, link in shapes(hill_climb(runs, 1000), 'marks') if link]
    assert {link for _, link in marks} == {f'#{run.name}-{number}' for run in runs for number in range(1, 7)}
    assert all('Pushing slower' in tip for tip, _ in marks)


def test_start_and_gate_stand_once_at_the_ends_of_the_curve(runs):
    squares = [(color, tip) for points, shape, color, _, tip, _ in shapes(hill_climb(runs[:1], 1000), 'marks')
               if shape == 'square' and tip]
    run = runs[0]
    assert squares == [('ink', f'starting recipe: {run.baseline.successes} of 20 on fresh seeds'),
                       ('kept', f'best recipe: {run.gate.successes} of 20 on fresh seeds')]


def test_every_trial_of_the_ledger_is_in_the_bars(runs):
    counted = {(station, kind): sum(counts.values()) for station, kind, counts in outcome_counts(runs)}
    lines = [(run.name, line['kind']) for run in runs for line in run.lines.values()]
    assert counted == {key: lines.count(key) for key in lines}
    widths = {}
    for x, y, width, height, color, tip in shapes(outcome_bars(runs, 1000), 'rectangle'):
        widths[y] = widths.get(y, 0.0) + width
    assert len(widths) == 6 and max(widths.values()) - min(widths.values()) < 15, 'bars of shares are equally long'


def test_the_parts_of_the_time_are_as_long_as_they_were(runs):
    bars = {tip.split(',')[0]: width for *_, width, _, color, tip in
            shapes(utilization_bars(runs[:1], 1000), 'rectangle')}
    assert bars['60% running'] / bars['30% resetting'] == pytest.approx(2, rel=0.02)
    assert set(bars) == {'60% running', '30% resetting', '8% thinking', '2% held'}


def test_the_tree_knows_what_grew_from_what(runs):
    nodes = {(node.run.name, node.iteration.number): node for node in tree_nodes(runs)}
    assert [nodes['station_1', number].lane for number in range(1, 7)] == [
        'rejected', 'kept', 'rejected', 'kept', 'rejected', 'kept']
    assert nodes['station_1', 2].parent is None, 'the first idea grew from the starting recipe'
    assert nodes['station_1', 3].parent is nodes['station_1', 2]
    assert nodes['station_1', 5].parent is nodes['station_1', 4]
    adopted = nodes['station_2', 4]
    assert adopted.lane == 'adopted' and adopted.source.run.name == 'station_1'
    assert adopted.iteration.adopts == adopted.source.iteration.commit
    assert nodes['station_2', 5].parent is adopted


def test_the_tree_draws_an_adoption_between_the_stations(runs):
    def dashed(drawing):
        return [shape for shape in shapes(drawing, 'path') if shape[-1]]

    assert len(dashed(idea_tree(runs, 1000))) == 1 and not dashed(idea_tree(runs[:1], 1000))


@pytest.mark.parametrize('width', (880, 360))
@pytest.mark.parametrize('chart', (hill_climb, idea_tree, outcome_bars, utilization_bars))
def test_nothing_reaches_beyond_the_drawing(runs, chart, width):
    drawing = chart(runs, width)
    for x, y, text, _, size, anchor, _ in shapes(drawing, 'text'):
        left = x - text_width(text, size) * {'start': 0, 'middle': 0.5, 'end': 1}[anchor]
        assert left >= -1 and left + text_width(text, size) <= width + 1 and 0 < y <= drawing.height, text
    for x, y, wide, high, *_ in shapes(drawing, 'rectangle'):
        assert 0 <= x and x + wide <= width and 0 <= y and y + high <= drawing.height
    for points, *_ in shapes(drawing, 'marks'):
        assert all(0 <= x <= width and 0 <= y <= drawing.height for x, y in points)


def test_a_long_name_of_a_station_keeps_to_its_room(runs):
    long = [dataclasses.replace(runs[0], name='laboratory_in_the_basement_station_12')]
    for width in (880, 360):
        drawing = utilization_bars(long, width)
        assert all(x - text_width(text, size) * (anchor == 'end') >= 0
                   for x, _, text, _, size, anchor, _ in shapes(drawing, 'text'))
        assert 'laboratory_in_the_basement_station_12' in drawing.description


def test_three_hundred_iterations_give_a_small_drawing(tmp_path):
    runs = read_runs(record_campaign(tmp_path / 'c', decisions=('revert', 'revert', 'keep') * 100))
    for chart in (hill_climb, idea_tree):
        assert len(chart(runs, 880).svg('wide')) < 150_000


def test_a_drawing_is_valid_in_spite_of_any_text():
    drawing = Drawing(100, 50, '<title> "one"', 'a & b')
    drawing.text(1, 10, '<b>&"')
    drawing.mark(5, 5, 'cross', 'kept', tip='</title><script>', link='#"x"')
    svg = drawing.svg('wide')
    assert '<script>' not in svg and '<b>' not in svg and '"x"' not in svg
    assert drawing.png().startswith(b'\x89PNG')


def test_a_text_is_cut_to_its_room():
    assert shortened('short', 100, 11) == 'short'
    assert shortened('a rather long text', 60, 11).endswith('…') and text_width(
        shortened('a rather long text', 60, 11), 11) <= 60
    assert shortened('a rather long text', 10, 11) == ''


def test_ticks_are_round_numbers():
    assert [nice_step(least) for least in (0.2, 1, 1.5, 3, 7, 12, 33)] == [1, 1, 2, 5, 10, 20, 50]
