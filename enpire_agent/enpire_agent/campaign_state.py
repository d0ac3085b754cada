"""What a campaign knows and keeps in `campaign.json`: settings, measurements, iterations, the best recipe."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from enpire_agent.durable_file import write_json_durably
from enpire_agent.score import SUCCESS, success_interval
from enpire_bringup.configuration import ConfigurationError

BASELINE, SEARCH, GATE = 'baseline', 'search', 'gate'
RUNNING, KEPT, REVERTED = 'running', 'kept', 'reverted'


@dataclass(frozen=True)
class TrialOutcome:
    """What a campaign needs to know of one trial. position_error: m, None where it was not measured."""

    trial_id: str
    kind: str
    recipe: str
    seed: int
    outcome: str
    reason: str
    env_hash: str
    wall_duration: float
    position_error: float | None = None

    @property
    def success(self) -> bool:
        return self.outcome == SUCCESS


@dataclass(frozen=True)
class CampaignSettings:
    """What was asked for. Budgets of 0 do not limit; durations in s of wall time."""

    campaign: str
    station: str
    task: str
    env_hash: str
    search_trials: int
    gate_trials: int
    goal: float
    max_iterations: int = 0
    max_trials: int = 0
    max_duration: float = 0.0


@dataclass
class Measurement:
    """Trials of one recipe on gate seeds. `source`: the station that did them, empty for our own."""

    recipe: str
    seeds: list[int]
    trial_ids: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    trials: int = 0
    successes: int = 0
    source: str = ''

    def add(self, trial: TrialOutcome) -> None:
        self.trial_ids.append(trial.trial_id)
        self.outcomes[trial.outcome] = self.outcomes.get(trial.outcome, 0) + 1
        self.trials += 1
        self.successes += trial.success

    @property
    def done(self) -> bool:
        return self.trials >= len(self.seeds)


@dataclass
class Iteration:
    """One hypothesis and what became of it. `files`: the edit (None deletes a file)."""

    number: int
    hypothesis: str
    method: str
    origin: str
    files: dict[str, str | None]
    parent: str
    adopts: str = ''
    state: str = RUNNING
    recipe: str = ''
    commit: str = ''
    reason: str = ''
    seeds: list[int] = field(default_factory=list)
    trial_ids: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    trials: int = 0
    successes: int = 0
    position_error: float | None = None
    before: str = ''             # what the best recipe did, e.g. "2 of 6"
    to_reach: int = 0            # successes that beat it
    started: str = ''
    ended: str = ''


@dataclass
class Best:
    """The recipe that lies in the work tree, with its results on the search seeds ([success, error in m])."""

    commit: str
    method: str
    hypothesis: str
    trials: int = 0
    successes: int = 0
    iteration: int = 0
    adopted_from: str = ''
    results: dict[str, list] = field(default_factory=dict)
    trial_ids: list[str] = field(default_factory=list)

    @property
    def interval(self) -> tuple[float, float]:
        return success_interval(self.successes, self.trials)


@dataclass
class CampaignState:
    """Everything a restart needs; `campaign.json`."""

    settings: CampaignSettings
    researcher: str
    created: str
    phase: str = BASELINE
    baseline: Measurement | None = None
    gate: Measurement | None = None
    best: Best | None = None
    iterations: list[Iteration] = field(default_factory=list)
    trials: int = 0
    successes: int = 0
    busy: float = 0.0          # s of wall time in trials
    elapsed: float = 0.0       # s of wall time that the campaign ran
    finished: str = ''         # why it ended, empty while it has not

    def write(self, file: Path) -> None:
        write_json_durably(file, asdict(self))


def read_campaign(file: Path | str) -> CampaignState:
    """Read a campaign.json. Raises ConfigurationError when it is missing or not one."""
    file = Path(file)
    try:
        values = json.loads(file.read_text(encoding='utf-8'))
        return CampaignState(**{
            **values,
            'settings': CampaignSettings(**values['settings']),
            'baseline': Measurement(**values['baseline']) if values['baseline'] else None,
            'gate': Measurement(**values['gate']) if values['gate'] else None,
            'best': Best(**values['best']) if values['best'] else None,
            'iterations': [Iteration(**entry) for entry in values['iterations']]})
    except OSError as error:
        raise ConfigurationError(f'{file}: cannot be read ({error.strerror}); is that a campaign of this '
                                 f'station?') from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f'{file}: is not the state of a campaign ({error})') from error


def outcome_of_line(line: dict) -> TrialOutcome:
    """The campaign's view of a ledger line."""
    return TrialOutcome(
        trial_id=line['trial_id'], kind=line['kind'], recipe=line['recipe'], seed=line['seed'],
        outcome=line['outcome'], reason=line['reason'], env_hash=line['env_hash'],
        wall_duration=line['wall_duration'] or 0.0, position_error=line.get('position_error'))
