"""What one station did in a campaign, read from its folder for the report."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from enpire_agent.campaign_state import (KEPT, RUNNING, Best, CampaignSettings, CampaignState, Iteration,
                                         Measurement, Turn)
from enpire_agent.fleet_log import FleetLog
from enpire_agent.ledger import Ledger, LedgerError
from enpire_agent.score import success_interval
from enpire_agent.time_split import robot_utilization
from enpire_bringup.configuration import ConfigurationError

ADOPTED = 'adopted'


@dataclass(frozen=True)
class StationRun:
    """What one station did in a campaign.

    lines: trial id -> ledger line, empty when the chain is broken. time_split: s of wall time by activity (see
    time_split.py), or "trials" (resets included) and "other" where a campaign recorded no more than that.
    attempts: measurements of a best recipe on fresh seeds, the one that counts last. exchanges: events of the fleet log
    (fleet_log.py).
    """

    name: str
    directory: Path
    state: CampaignState
    lines: dict[str, dict]
    ledger_note: str
    time_split: dict[str, float]
    attempts: list[Measurement]
    tokens: int
    exchanges: list[dict]

    @property
    def elapsed(self) -> float:
        """s of wall time that the campaign ran here."""
        return sum(self.time_split.values())

    @property
    def utilization(self) -> float:
        """MRU, 0..1."""
        return utilization(self.time_split)

    @property
    def gate(self) -> Measurement | None:
        """The best recipe on fresh seeds, once measured to the end: an attempt stops at its first failure."""
        gate = self.state.gate
        return gate if gate is not None and gate.trials and gate.done else None

    @property
    def baseline(self) -> Measurement | None:
        """The starting recipe on fresh seeds, as far as it was measured."""
        baseline = self.state.baseline
        return baseline if baseline is not None and baseline.trials else None

    def row(self, iteration: Iteration) -> str:
        """The name of an iteration's row on the page."""
        return f'{self.name}-{iteration.number}'


def read_runs(directory: Path | str) -> list[StationRun]:
    """The stations of a campaign's folder (runs/<campaign>), the one that began first in front.

    Raises ConfigurationError when there is no campaign in it.
    """
    directory = Path(directory)
    runs = [_read_run(file) for file in sorted(directory.glob('*/campaign.json'))]
    if not runs:
        raise ConfigurationError(f'{directory}: no campaign in it; expected <station>/campaign.json')
    return sorted(runs, key=lambda run: (run.state.created, run.name))


def _read_run(file: Path) -> StationRun:
    """A campaign.json of any age: what a newer one has more is left out, what an older one lacks has its default."""
    try:
        values = json.loads(file.read_text(encoding='utf-8'))
        state = _known(CampaignState, {
            **values, 'settings': _known(CampaignSettings, values['settings']),
            **{key: _measurement(values[key]) for key in ('baseline', 'gate')},
            'gates': [_measurement(entry) for entry in values.get('gates', [])],
            'best': _known(Best, values['best']),
            'iterations': [_known(Iteration, entry) for entry in values['iterations']],
            'turns': [_known(Turn, entry) for entry in values.get('turns', [])]})
        split = values.get('time_split') or _undivided(values)
        tokens = values.get('input_tokens', 0) + values.get('output_tokens', 0)
    except OSError as error:
        raise ConfigurationError(f'{file}: cannot be read ({error.strerror})') from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(f'{file}: is not the state of a campaign ({error!r})') from error
    ledger = Ledger(file.parent / 'ledger.jsonl')
    try:
        lines = ledger.verify()
        note = f'{len(lines)} trials, chain intact'
    except LedgerError as error:
        lines, note = [], str(error)
    return StationRun(file.parent.name, file.parent, state, {line['trial_id']: line for line in lines}, note, split,
                      [gate for gate in (*state.gates, state.gate) if gate is not None and gate.trials], tokens,
                      FleetLog(file.parent).entries())


def _known(kind: type, values: dict | None):
    if values is None:
        return None
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})


def _measurement(values: dict | None) -> Measurement | None:
    """An older one lists the seeds of all its trials from the beginning."""
    return _known(Measurement, values and {'planned': len(values['seeds']), **values})


def _undivided(values: dict) -> dict[str, float]:
    busy, elapsed = values.get('busy', 0.0), values.get('elapsed', 0.0)
    split = {'trials': min(busy, elapsed), 'other': max(0.0, elapsed - busy)}
    return {name: seconds for name, seconds in split.items() if seconds > 0}


def decision(iteration: Iteration) -> str:
    """ "kept", "reverted", "adopted" (a peer's recipe that was kept) or "running"."""
    return ADOPTED if iteration.adopts and iteration.state == KEPT else iteration.state


def is_finished(runs: list[StationRun]) -> bool:
    return all(run.state.finished for run in runs)


def best_run(runs: list[StationRun]) -> StationRun | None:
    """The station whose best recipe did best on fresh seeds; None before one was measured to the end."""
    measured = [run for run in runs if run.gate is not None]
    return max(measured, key=lambda run: run.gate.successes / run.gate.trials, default=None)


def first_baseline(runs: list[StationRun]) -> Measurement | None:
    """The starting recipe's trials on fresh seeds; None before the first of them."""
    return next((run.baseline for run in runs if run.baseline is not None), None)


def utilization(split: dict[str, float]) -> float:
    """MRU of a division of time as a StationRun has it; 0 before any time has passed."""
    known = {**split, 'running': split.get('running', 0.0) + split.get('trials', 0.0)}
    return robot_utilization({name: seconds for name, seconds in known.items() if name != 'trials'})


def rate_text(successes: int, trials: int) -> str:
    """Successes as a share with its 95 % interval, such as "25 % (95 % interval 9 to 49 %)"."""
    low, high = success_interval(successes, trials)
    return f'{percent(successes / trials)} (95\u00a0% interval {100 * low:.0f} to {percent(high)})'


def percent(share: float) -> str:
    """A share in percent, kept on one line."""
    return f'{100 * share:.0f}\u00a0%'


def minutes_in(run: StationRun, start: str, moment: str) -> float | None:
    """Minutes from `start` to `moment` (ISO 8601), None where the moment is not known."""
    if not moment or not start:
        return None
    return (datetime.fromisoformat(moment) - datetime.fromisoformat(start)).total_seconds() / 60


def origin_name(iteration: Iteration) -> str:
    """A short name of the idea: "slow pushes" for idea:slow_pushes#0, "from station_1" for an adoption."""
    kind, _, name = iteration.origin.partition(':')
    if kind == 'adopt':
        return f'from {name.split("/")[0]}'
    return (name or iteration.method).split('#')[0].replace('_', ' ')


def is_running(iteration: Iteration) -> bool:
    return iteration.state == RUNNING
