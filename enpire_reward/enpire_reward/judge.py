"""A task's reward program behind a fence: whatever it does, a judgement comes back in time. No ROS."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import yaml

from enpire_bringup.program_process import ProgramFailure, ProgramProcess, ProgramTimeout

BUDGET = 0.15                   # s of wall time for one judgement
HANGING = 1.0                   # s of wall time without an answer, after which the program is stopped
START_TIMEOUT = 10.0            # s of wall time for loading the program
BACKOFF = (0.2, 10.0)           # s: pause before the first restart, and the longest; doubled in between
OUTCOMES = ('success', 'not_yet', 'abstain')
MAX_CHECKS = 32
MAX_TEXT = 500


@dataclass(frozen=True)
class CheckResult:
    name: str
    passed: bool
    value: float
    limit: float
    unit: str = ''
    detail: str = ''


@dataclass(frozen=True)
class Judgement:
    """outcome: one of OUTCOMES; compute: s of wall time in the reward program.

    failed: the program did not do its job (and abstains for that reason).
    """

    outcome: str
    reason: str
    checks: tuple[CheckResult, ...] = ()
    compute: float = 0.0
    failed: bool = False


def abstention(reason: str, compute: float = 0.0, failed: bool = True) -> Judgement:
    return Judgement('abstain', reason, (), compute, failed)


class RewardJudge:
    """Runs `Reward` of a task's reward.py in a child process and starts it anew when it fails.

    A program that raises, hangs, ends, or returns nonsense gives an abstention that says so, with file and
    line where there is one. It is then restarted after a pause that doubles up to BACKOFF[1]; until it is
    back, every judgement is an abstention with the same reason. A good judgement makes the next pause short
    again. A program that is late, which on a busy machine the best one may be, only loses the frames until
    its answer comes; it counts as hanging after HANGING s.
    on_start: called in a thread of its own before each start of the program.
    """

    def __init__(self, reward_file: Path, task_file: Path, *, log_file: Path | None = None,
                 budget: float = BUDGET, on_start: Callable[[], None] = lambda: None):
        self.file = Path(reward_file)
        self._task_file = Path(task_file)
        self._log_file = log_file
        self._budget = budget
        self._on_start = on_start
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._program: ProgramProcess | None = None
        self._problem = f'{self.file.name} is being started'
        self._has_failed = False        # since it last worked
        self._late = 0.0                # when the unanswered question was asked (monotonic s), or 0
        self._pause = BACKOFF[0]
        self._begin_start(0.0)

    @property
    def ready(self) -> bool:
        return self._program is not None

    @property
    def problem(self) -> str:
        """Why there is no program at the moment; empty when there is one."""
        return '' if self._program else self._problem

    @property
    def image_kinds(self) -> tuple[str, ...]:
        """What images the program wants: "image" when it set USES_IMAGE, "depth" when it set USES_DEPTH."""
        program = self._program
        return tuple(kind for kind, constant in (('image', 'USES_IMAGE'), ('depth', 'USES_DEPTH'))
                     if program and program.constants.get(constant) is True)

    def judge(self, observation: dict[str, Any]) -> Judgement:
        """A judgement within the budget, whatever the program does."""
        program = self._program
        if program is None:
            return abstention(self._problem, failed=self._has_failed)
        started = time.monotonic()
        try:
            if self._late and program.busy:
                if started - self._late > HANGING:
                    return self._failed(f'{self.file.name}: judge() did not answer for {HANGING:g} s', 0.0)
                return abstention(f'{self.file.name} is still busy with an earlier frame')
            self._late = 0.0
            answer = program.call('judge', observation, timeout=self._budget)
            compute = time.monotonic() - started
            judgement = read_judgement(answer, self.file.name, compute)
        except ProgramTimeout as late:
            self._late = started
            return abstention(str(late), time.monotonic() - started)
        except ProgramFailure as failure:
            return self._failed(str(failure), time.monotonic() - started)
        except NonsenseError as error:
            return self._failed(str(error), time.monotonic() - started)
        self._pause, self._has_failed = BACKOFF[0], False
        return judgement

    def _failed(self, problem: str, compute: float) -> Judgement:
        with self._lock:
            program, self._program = self._program, None
            self._problem, self._has_failed = problem, True
        self._late = 0.0
        pause, self._pause = self._pause, min(2 * self._pause, BACKOFF[1])
        self._begin_start(pause, program)
        return abstention(problem, compute)

    def _begin_start(self, pause: float, old: ProgramProcess | None = None) -> None:
        threading.Thread(target=self._start, args=(pause, old), daemon=True, name='reward start').start()

    def _start(self, pause: float, old: ProgramProcess | None) -> None:
        if old is not None:
            old.close()
        while not self._closed.wait(pause):
            self._on_start()
            try:
                # Plain YAML: the reward program gets what the person wrote, not this suite's reading of it.
                config = yaml.safe_load(self._task_file.read_text(encoding='utf-8'))
                program = ProgramProcess(self.file, 'Reward', config, log_file=self._log_file,
                                         start_timeout=START_TIMEOUT)
            except (ProgramFailure, OSError, yaml.YAMLError, TypeError) as error:
                self._problem, self._has_failed = str(error), True
                pause, self._pause = self._pause, min(2 * self._pause, BACKOFF[1])
                continue
            with self._lock:
                if not self._closed.is_set():
                    self._program = program
                    return
            program.close()

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            program, self._program = self._program, None
            self._problem = f'{self.file.name} was stopped'
        if program is not None:
            program.close()


class NonsenseError(ValueError):
    """The reward program answered, but not with a judgement."""


def read_judgement(answer: Any, name: str, compute: float = 0.0) -> Judgement:
    """A `Judgement` from what `judge` returned. Raises NonsenseError saying what was expected."""
    if not isinstance(answer, dict):
        raise NonsenseError(f"{name}: judge() returned {_shown(answer)}; expected a dict with 'outcome'")
    outcome = answer.get('outcome')
    if not isinstance(outcome, str) or outcome not in OUTCOMES:
        raise NonsenseError(f"{name}: judge() returned the outcome {_shown(outcome)}; expected one of "
                            + ', '.join(OUTCOMES))
    reason = answer.get('reason', '')
    if not isinstance(reason, str):
        raise NonsenseError(f'{name}: judge() returned the reason {_shown(reason)}; expected a text')
    entries = answer.get('checks', [])
    if not isinstance(entries, list) or len(entries) > MAX_CHECKS:
        raise NonsenseError(f'{name}: judge() returned the checks {_shown(entries)}; expected a list of at '
                            f'most {MAX_CHECKS}')
    checks = tuple(_read_check(entry, name) for entry in entries)
    if outcome == 'success':
        for check in checks:
            if not check.passed or not math.isfinite(check.value):
                raise NonsenseError(
                    f"{name}: judge() says success, but its check '{check.name}' did not pass "
                    f'(value {check.value:g} {check.unit}, limit {check.limit:g} {check.unit})')
    return Judgement(outcome, reason[:MAX_TEXT], checks, compute)


def _read_check(entry: Any, name: str) -> CheckResult:
    if not isinstance(entry, dict) or not isinstance(entry.get('name'), str):
        raise NonsenseError(f'{name}: judge() returned the check {_shown(entry)}; '
                            "expected a dict with 'name'")
    what = f"{name}: check '{entry['name'][:MAX_TEXT]}'"
    if not isinstance(entry.get('passed'), bool):
        raise NonsenseError(f"{what}: 'passed' is {_shown(entry.get('passed'))}; expected true or false")
    numbers = {}
    for key in ('value', 'limit'):
        number = entry.get(key, math.nan)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise NonsenseError(f"{what}: '{key}' is {_shown(number)}; expected a number")
        numbers[key] = float(number)
    if entry['passed'] and math.isnan(numbers['value']):
        raise NonsenseError(f"{what}: passed with the value NaN")
    texts = {key: entry.get(key, '') for key in ('unit', 'detail')}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise NonsenseError(f"{what}: '{key}' is {_shown(text)}; expected a text")
    return CheckResult(entry['name'][:MAX_TEXT], entry['passed'], **numbers,
                       **{key: text[:MAX_TEXT] for key, text in texts.items()})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
