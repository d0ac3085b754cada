"""What a campaign knows and keeps in `campaign.json`: settings, measurements, iterations, the best recipe."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from enpire_agent.durable_file import write_json_durably
from enpire_agent.score import SUCCESS, success_interval
from enpire_agent.time_split import robot_utilization
from enpire_bringup.configuration import ConfigurationError

BASELINE, SEARCH, GATE = 'baseline', 'search', 'gate'
RUNNING, KEPT, REVERTED = 'running', 'kept', 'reverted'
TRIALS_WHILE_THINKING = 100


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
    """What was asked for. Budgets of 0 do not limit; durations in s of wall time.

    search_trials: that a hypothesis gets first (see racing.py); gate_trials: consecutive successes on fresh seeds that
    solve the task, and the size of the baseline; goal: success rate in the search from which the gate is tried;
    trials_while_thinking: on search seeds, that a best recipe gets at most while a researcher thinks.
    """

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
    max_tokens: int = 0
    trials_while_thinking: int = TRIALS_WHILE_THINKING


@dataclass
class Measurement:
    """`planned` trials of one recipe on gate seeds. `source`: the station that did them, empty for our own.

    seeds: of the trials so far; drawn: of the one that runs, None before it begins. position_errors: m, of each trial;
    None where it was not measured.
    """

    recipe: str
    planned: int = 0
    seeds: list[int] = field(default_factory=list)
    drawn: int | None = None
    trial_ids: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    trials: int = 0
    successes: int = 0
    source: str = ''
    position_errors: list[float | None] = field(default_factory=list)

    def add(self, trial: TrialOutcome) -> None:
        self.trial_ids.append(trial.trial_id)
        self.seeds.append(trial.seed)
        self.drawn = None
        self.position_errors.append(trial.position_error)
        self.outcomes[trial.outcome] = self.outcomes.get(trial.outcome, 0) + 1
        self.trials += 1
        self.successes += trial.success

    @property
    def done(self) -> bool:
        return self.trials >= self.planned

    @property
    def passed(self) -> bool:
        """Whether every trial was done and succeeded."""
        return self.done and self.successes == self.trials > 0

    def __str__(self) -> str:
        return f'{self.successes}/{self.trials}'


@dataclass
class Iteration:
    """One hypothesis and what became of it. `files`: the edit (None deletes a file).

    seeds, trial_ids, outcomes, trials, successes: of its race; those of the regression gate are in the ledger alone.
    probability: that it is better than the best recipe was, as of the decision; before: what that one had done then.
    won: why it won its race, '' when it did not or has not yet.
    """

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
    before: str = ''             # e.g. "2 of 6"
    probability: float | None = None
    won: str = ''
    started: str = ''
    ended: str = ''


@dataclass
class Best:
    """The recipe that lies in the work tree.

    results: search seed -> [success, final position error in m]. trials, successes: what is said of it to others: of
    the baseline, of the search, and once the gate decided, of the gate.
    """

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

    def add(self, trial: TrialOutcome) -> None:
        """A trial on a search seed; one that is known already changes nothing."""
        if str(trial.seed) in self.results:
            return
        self.results[str(trial.seed)] = [trial.success, trial.position_error]
        self.trial_ids.append(trial.trial_id)
        if self.iteration:       # else its figures are those of the baseline
            self.trials += 1
            self.successes += trial.success


@dataclass(frozen=True)
class Turn:
    """One turn of a coding agent for an iteration, as it ended (agent_turn.py).

    cached_tokens are part of input_tokens, reasoning_tokens of output_tokens. cost: USD, None where the program does
    not reckon it. seconds: of wall time.
    """

    iteration: int
    researcher: str
    outcome: str
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None
    tools: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass
class CampaignState:
    """Everything a restart needs; `campaign.json`.

    gate: the last attempt at the gate, which counts; gates: those before. search_ended: why nothing more is tried, so
    that the gate is measured to its end. time_split: s of wall time of each activity (time_split.py). Tokens: of all
    turns, also of the one that goes on; those cached are part of the input, those of reasoning of the output.
    """

    settings: CampaignSettings
    researcher: str
    created: str
    phase: str = BASELINE
    baseline: Measurement | None = None
    gate: Measurement | None = None
    gates: list[Measurement] = field(default_factory=list)
    best: Best | None = None
    iterations: list[Iteration] = field(default_factory=list)
    trials: int = 0
    successes: int = 0
    time_split: dict[str, float] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    turns: list[Turn] = field(default_factory=list)
    search_ended: str = ''
    finished: str = ''         # why it ended, empty while it has not

    @property
    def elapsed(self) -> float:
        """s of wall time that the campaign ran."""
        return sum(self.time_split.values())

    @property
    def busy(self) -> float:
        """s of wall time in trials and their resets."""
        return robot_utilization(self.time_split) * self.elapsed

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def cost(self) -> float | None:
        """USD, as far as programs reckon it; None where none does."""
        known = [turn.cost for turn in self.turns if turn.cost is not None]
        return sum(known) if known else None

    @property
    def tokens_to_success(self) -> int | None:
        """Tokens until the task was solved, None while it is not: nothing is asked after the gate was passed."""
        return self.tokens if self.gate is not None and self.gate.passed else None

    @property
    def attempts(self) -> list[Measurement]:
        """Every attempt at the gate, in their order."""
        return [*self.gates, *([self.gate] if self.gate else [])]

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
            'gates': [Measurement(**entry) for entry in values['gates']],
            'best': Best(**values['best']) if values['best'] else None,
            'iterations': [Iteration(**entry) for entry in values['iterations']],
            'turns': [Turn(**entry) for entry in values.get('turns', [])]})
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
