"""A recipe's policy in its own process: an action or a hold for every step, never a guess. No ROS."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from enpire_agent.recipe import load_recipe
from enpire_bringup.action_space import ActionSpace
from enpire_bringup.program_process import (ProgramError, ProgramFailure, ProgramProcess, ProgramTimeout)
from enpire_bringup.task import Task

START_TIMEOUT = 20.0     # s of wall time for importing policy.py and making the policy
RESET_TIMEOUT = 10.0     # s of wall time for Policy.reset
LOCKSTEP_PATIENCE = 4.0  # times a step's deadline that wall time may be where the world waits
STARVED_BOUND = 10.0     # s of wall time more for a policy that has CPU time left and no core to use it
INTERRUPT_TIMEOUT = 0.5  # s of wall time that a policy which hangs gets to say where it is

POLICY, HOLD_LATE, HOLD_MALFORMED = 'policy', 'hold_late', 'hold_malformed'

_TASK_KEYS = ('objective', 'goal', 'tolerance', 'objects', 'policy', 'action', 'observation')


class PolicyFailure(RuntimeError):
    """The policy cannot go on: POLICY_ERROR. `traceback`: the policy's own, where it raised."""

    def __init__(self, message: str, traceback: str = ''):
        super().__init__(message)
        self.traceback = traceback


@dataclass(frozen=True)
class Decision:
    """What a step came to: `action` (size,) as the policy gave it or None, `source` one of the constants above."""

    action: np.ndarray | None
    source: str
    reason: str
    compute: float      # s of wall time that the station waited


def policy_config(recipe_directory: Path | str, task: Task) -> dict:
    """What `Policy(config)` gets: recipe.yaml, and under `task` the parts of task.yaml that a policy may know."""
    recipe = load_recipe(recipe_directory)
    content = yaml.safe_load(task.file.read_text(encoding='utf-8'))
    return {'method': recipe.method, 'parameters': recipe.parameters,
            'task': {key: content[key] for key in _TASK_KEYS if key in content}}


class PolicySession:
    """One policy for one trial. Use as a context manager; leaving it ends the process and all it started.

    world_waits: in lockstep the task's deadline for a step is CPU time, so that a busy machine makes no policy
    late; wall time may be LOCKSTEP_PATIENCE times as much, and more while the policy waits for a core. Else the
    deadline is wall time. leniency: times the deadline that a step may take.
    Raises PolicyFailure when the policy cannot be loaded.
    """

    def __init__(self, recipe_directory: Path | str, task: Task, *, world_waits: bool, log_file: Path | None = None,
                 leniency: float = 1.0):
        deadline = leniency * task.policy.deadline
        self._deadline = deadline * (LOCKSTEP_PATIENCE if world_waits else 1.0)
        self._cpu_deadline = deadline if world_waits else math.inf
        self._max_bad_steps = task.policy.max_late_steps
        self._space = task.action
        self._bad_in_a_row = 0
        self.steps = 0
        self.late_steps = 0
        try:
            self._process = ProgramProcess(Path(recipe_directory) / 'policy.py', 'Policy',
                                           policy_config(recipe_directory, task), log_file=log_file,
                                           output_is_limited=True, start_timeout=START_TIMEOUT)
        except (ProgramFailure, ValueError) as error:
            raise _failure(error) from error

    def reset(self, observation: dict) -> None:
        """Call the policy's `reset`. Raises PolicyFailure when it raises, hangs or dies."""
        try:
            self._process.call('reset', observation, timeout=RESET_TIMEOUT)
        except ProgramTimeout as error:
            raise PolicyFailure(str(error), self._process.interrupt(INTERRUPT_TIMEOUT)) from error
        except ProgramFailure as error:
            raise _failure(error) from error

    def act(self, observation: dict) -> Decision:
        """The policy's action for this observation, or a hold when it is late or malformed.

        An answer that comes after its deadline belongs to an old observation and is dropped.
        Raises PolicyFailure when the policy raised or died, or after too many holds in a row.
        """
        started = time.monotonic()
        due = started + self._deadline
        self.steps += 1
        before = self._process.cpu_time
        try:
            if self._process.pending:
                self._process.answer(timeout=self._deadline)
            before = self._process.cpu_time
            self._process.request('act', observation)
            answer = self._await_answer(due, before)
        except ProgramTimeout as error:
            decision = Decision(None, HOLD_LATE, self._too_much(before) or str(error), time.monotonic() - started)
        except ProgramFailure as error:
            raise _failure(error) from error
        else:
            action, reason = read_action(answer, self._space)
            source = POLICY if action is not None else HOLD_MALFORMED
            too_much = self._too_much(before)
            if too_much:
                action, source, reason = None, HOLD_LATE, too_much
            decision = Decision(action, source, reason, time.monotonic() - started)
        self._count(decision)
        return decision

    def _too_much(self, before: float) -> str:
        """In words, when the policy used more CPU time than it may since `before` (s); else empty."""
        used = self._process.cpu_time - before
        return (f'act() took {1000 * used:.0f} ms of CPU time, the deadline is {1000 * self._cpu_deadline:g} ms'
                if used > self._cpu_deadline else '')

    def _await_answer(self, due: float, before: float):
        """The answer by `due` (time.monotonic()); where CPU time counts, also later while the policy has some left and
        only lacks a core. before: CPU time that it had used when it was asked, s."""
        most = due + STARVED_BOUND
        while True:
            try:
                return self._process.answer(timeout=max(0.0, due - time.monotonic()), stated_timeout=self._deadline)
            except ProgramTimeout:
                due = time.monotonic() + self._cpu_deadline
                starved = self._process.cpu_time - before <= self._cpu_deadline and self._process.runnable
                if math.isinf(self._cpu_deadline) or not starved or due > most:
                    raise

    def _count(self, decision: Decision) -> None:
        if decision.action is not None:
            self._bad_in_a_row = 0
            return
        self.late_steps += 1
        self._bad_in_a_row += 1
        if self._bad_in_a_row >= self._max_bad_steps:
            where = self._process.interrupt(INTERRUPT_TIMEOUT) if decision.source == HOLD_LATE else ''
            raise PolicyFailure(f'no valid action for {self._bad_in_a_row} steps in a row; last: {decision.reason}',
                                where)

    @property
    def isolation(self) -> str:
        """What keeps the policy from files that are not its own, by name: program_isolation.py."""
        return self._process.isolation

    def close(self) -> None:
        self._process.close()

    def __enter__(self) -> 'PolicySession':
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read_action(answer, space: ActionSpace) -> tuple[np.ndarray | None, str]:
    """(action (space.size,), '') or (None, what is wrong with it)."""
    try:
        action = np.asarray(answer, dtype=float)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None, (f'act() returned {type(answer).__name__}; expected {space.size} '
                      f'number{"s" if space.size > 1 else ""} ({space.meaning})')
    if action.shape != (space.size,) and not (space.size == 1 and action.shape == ()):
        return None, f'act() returned shape {action.shape}; expected ({space.size},): {space.meaning}'
    if not np.isfinite(action).all():
        return None, f'act() returned {action.tolist()}; expected finite numbers'
    return action.reshape(space.size), ''


def _failure(error: Exception) -> PolicyFailure:
    return PolicyFailure(str(error), getattr(error, 'traceback', '') if isinstance(error, ProgramError) else '')
