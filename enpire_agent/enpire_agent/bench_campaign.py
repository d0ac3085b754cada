"""How much research gains: the same campaign several times, each measured before and after on seeds of its own.

Every repeat is a campaign of its own name, `<name>-1` and so on, on a station started for it. One that is finished is
not run again, one that was interrupted goes on, so the same command resumes the bench.
"""

from __future__ import annotations

import math
import statistics
import sys
from datetime import datetime
from pathlib import Path
from typing import Callable, Sequence

from enpire_agent.campaign_state import KEPT, CampaignSettings, CampaignState, read_campaign
from enpire_agent.durable_file import write_json_durably
from enpire_agent.ledger import Ledger
from enpire_agent.time_split import robot_utilization

MOST_BEFORE, LEAST_MEDIAN, LEAST_WORST = 0.5, 0.85, 0.75     # success on fresh seeds that the suite promises
STATION = 'station_1'
CAMERA_SIZE = 320, 240


class BenchError(RuntimeError):
    """The bench got no figures; the message says what was missing."""


def run(repeats: int, gate: int, *, name: str, iterations: int, search_trials: int = 0, in_process: bool = False,
        station: str = 'yam_bimanual_sim', task: str = 'push_t', published: Sequence[tuple[str, float, float]] = (),
        report: Callable[[str], None] = lambda line: None) -> dict:
    """Figures of `repeats` campaigns with `gate` fresh seeds before and after, JSON-able; writes `<name>.json` and
    `<name>.png` into the folder of runs. published: see draw. Raises BenchError, and ConfigurationError where campaigns of that name had
    another task or environment."""
    from enpire_bringup.paths import runs_directory

    runs = runs_directory()
    states = []
    for number in range(1, repeats + 1):
        directory = runs / f'{name}-{number}' / STATION
        state = read_campaign(directory / 'campaign.json') if (directory / 'campaign.json').is_file() else None
        if state is None or not state.finished:
            report(f'campaign {directory.parent.name} {"begins" if state is None else "goes on"}')
            settings = dict(iterations=iterations, gate=gate, search_trials=search_trials, station=station, task=task)
            (_run_in_process if in_process else _run_on_station)(directory, report=report, **settings)
            state = read_campaign(directory / 'campaign.json')
        if not state.finished:
            raise BenchError(f'campaign {directory.parent.name} did not come to its end; the log of its supervisor '
                             'says why, and the same command goes on with it')
        report(f'campaign {directory.parent.name}: {state.finished}')
        states.append((directory, state))
        figures = figures_of(states)
        write_json_durably(runs / f'{name}.json', figures)
        draw(figures, runs / f'{name}.png', published)
    return {**figures, 'file': str(runs / f'{name}.json'), 'picture': str(runs / f'{name}.png')}


def _run_on_station(directory: Path, *, iterations: int, gate: int, search_trials: int, station: str, task: str,
                    report: Callable[[str], None]) -> None:
    from enpire_agent.campaign_progress import Progress, run_shown
    from enpire_agent.station_client import StationClient
    from enpire_bringup.domain_locks import DomainReservation
    from enpire_bringup.process_runner import StationProcesses
    from enpire_msgs.action import RunCampaign

    reservation = DomainReservation()
    try:
        width, height = CAMERA_SIZE
        with StationProcesses(station, task, STATION, camera_width=width, camera_height=height,
                              domain_id=reservation.domain_id, report=report), \
                StationClient(STATION, reservation.domain_id) as client:
            run_shown(client, RunCampaign.Goal(
                campaign=directory.parent.name, max_iterations=iterations, search_trials=search_trials,
                gate_trials=gate), Progress(sys.stderr))
    finally:
        reservation.release()


def _run_in_process(directory: Path, *, iterations: int, gate: int, search_trials: int, station: str, task: str,
                    report: Callable[[str], None]) -> None:
    from enpire_agent.in_process_campaign import run_campaign
    from enpire_agent.in_process_episode import make_in_process
    from enpire_bringup.environment import environment_hash
    from enpire_bringup.station import load_station
    from enpire_bringup.task import load_task

    loaded, asked = load_station(station), load_task(task)
    terms = asked.campaign
    run_campaign(directory, CampaignSettings(
        campaign=directory.parent.name, station=STATION, task=asked.name, env_hash=environment_hash(asked, loaded),
        search_trials=search_trials or terms.search_trials, gate_trials=gate, goal=terms.goal,
        max_iterations=iterations), make_in_process(loaded, asked), asked, _Teller(report))


class _Teller:
    """A campaign's listener that tells what happens."""

    def __init__(self, report: Callable[[str], None]):
        self._report = report

    def event(self, kind: str, iteration: int, text: str, commit: str = '') -> None:
        self._report(f'{kind} {iteration or ""}: {text}')

    def kept(self, recipe, decision: str, parent: str, env_hash: str) -> None:
        pass


# --- figures ---

def figures_of(campaigns: Sequence[tuple[Path, CampaignState]]) -> dict:
    """Figures of finished campaigns (folder, state)."""
    repeats = [_figures_of_one(directory, state) for directory, state in campaigns]
    after = [repeat['after'] for repeat in repeats]
    before = [repeat['before'] for repeat in repeats]
    return {'repeats': repeats, 'before_median': statistics.median(before), 'before_most': max(before),
            'after_median': statistics.median(after), 'after_worst': min(after),
            'minutes_most': max(repeat['minutes'] for repeat in repeats)}


def _figures_of_one(directory: Path, state: CampaignState) -> dict:
    # Without a gate nothing better was found: then it is as good as it was before.
    last = state.gate or state.baseline
    split = state.time_split
    return {'campaign': state.settings.campaign, 'before': _rate(state.baseline), 'after': _rate(last),
            'before_trials': state.baseline.trials, 'after_trials': last.trials, 'trials': state.trials,
            'iterations': len(state.iterations), 'kept': sum(i.state == KEPT for i in state.iterations),
            'minutes': round(state.elapsed / 60.0, 2), 'mru': round(robot_utilization(split), 3),
            'method': state.best.method, 'curve': curve_of(directory, state)}


def curve_of(directory: Path, state: CampaignState) -> list[dict]:
    """The best recipe's success rate over trials done and minutes gone: fresh seeds first and last, search seeds in
    between."""
    lines = Ledger(directory / 'ledger.jsonl').entries()
    begun, ended = datetime.fromisoformat(lines[0]['started']), [datetime.fromisoformat(line['ended']) for line in lines]

    def minutes(moment: datetime) -> float:
        return round((moment - begun).total_seconds() / 60.0, 2)

    points = [{'trials': state.baseline.trials, 'minutes': minutes(ended[state.baseline.trials - 1]),
               'rate': _rate(state.baseline), 'seeds': 'fresh', 'method': 'the starting recipe'}]
    for iteration in state.iterations:
        if iteration.state == KEPT and iteration.trials:
            moment = datetime.fromisoformat(iteration.ended)
            points.append({'trials': sum(end <= moment for end in ended), 'minutes': minutes(moment),
                           'rate': round(iteration.successes / iteration.trials, 4), 'seeds': 'search',
                           'method': iteration.method})
    if state.gate is not None:
        points.append({'trials': len(ended), 'minutes': minutes(ended[-1]), 'rate': _rate(state.gate),
                       'seeds': 'fresh', 'method': state.best.method})
    return points


def _rate(measurement) -> float:
    return round(measurement.successes / measurement.trials, 4) if measurement.trials else 0.0


def draw(figures: dict, file: Path, published: Sequence[tuple[str, float, float]] = ()) -> None:
    """The curves of all repeats as a picture (PNG): over trials, and over minutes.

    published: (name, minutes, rate) of somebody else's, shown over minutes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.0), dpi=150, layout='constrained')
    over_trials, over_minutes = figure.subplots(1, 2, sharey=True)
    for axes, unit in ((over_trials, 'trials'), (over_minutes, 'minutes')):
        for repeat in figures['repeats']:
            _draw_curve(axes, repeat, unit)
        axes.set(xlabel=unit, ylim=(-3, 103))
        axes.grid(alpha=0.25)
        axes.spines[['top', 'right']].set_visible(False)
    for (name, minutes, rate), marker in zip(published, 'D^vs<>' * len(published)):
        over_minutes.plot(minutes, 100 * rate, marker, color='0.35', markersize=8, label=name)
    if published:
        over_minutes.set_xscale('log')
        ticks = [minutes for minutes in (1, 2, 5, 10, 20, 60, 120, 240, 480) if minutes <= 2 * max(p[1] for p in published)]
        over_minutes.set_xticks(ticks, [str(minutes) for minutes in ticks], minor=False)
        over_minutes.set_xticks([], minor=True)
    over_trials.set_ylabel('success of the best recipe, %')
    over_trials.set_title('filled: fresh seeds; hollow: search seeds', fontsize=9, color='0.4')
    over_minutes.legend(frameon=False, fontsize=8, loc='lower right')
    figure.savefig(file)


def _draw_curve(axes, repeat: dict, unit: str) -> None:
    curve = repeat['curve']
    line, = axes.plot([point[unit] for point in curve], [100 * point['rate'] for point in curve],
                      drawstyle='steps-post', linewidth=1.6, label=repeat['campaign'])
    for point in curve:
        fresh = point['seeds'] == 'fresh'
        axes.plot(point[unit], 100 * point['rate'], 'o', color=line.get_color(), markersize=7 if fresh else 4,
                  markerfacecolor=line.get_color() if fresh else 'white')


def meets(figures: dict, *, most_before: float = MOST_BEFORE, least_median: float = LEAST_MEDIAN,
          least_worst: float = LEAST_WORST, most_minutes: float = math.inf) -> bool:
    """Whether success on fresh seeds rose so far, in so many minutes each; by default as the suite promises."""
    return (figures['before_most'] <= most_before and figures['after_median'] >= least_median
            and figures['after_worst'] >= least_worst and figures['minutes_most'] <= most_minutes)
