"""A Gymnasium environment in this process, for many episodes of a policy in little time. No ROS, no pictures."""

from __future__ import annotations

from typing import Callable

from enpire_agent.in_process_episode import Episode, EpisodePolicy
from enpire_agent.trial import FAILURE, SUCCESS, TIMEOUT, Check
from enpire_bringup.gym_task import GymTask
from enpire_bringup.gym_world import GymStep, GymWorld

SECOND = 1_000_000_000


class InProcessGym:
    """Ends an episode as a trial on a station does: by success, by the environment, or when its time is over.

    Raises ConfigurationError as GymWorld does.
    """

    def __init__(self, task: GymTask):
        self._task = task
        self._world = GymWorld(task)

    def run(self, policy: EpisodePolicy, seed: int,
            record_step: Callable[[dict, int], None] = lambda content, stamp: None) -> Episode:
        """See in_process_episode.py."""
        terms, space = self._task.policy, self._task.action
        step = self._world.reset(seed)
        target = space.hold_in(step.observation)
        while True:
            now = step.number / terms.rate
            if step.number and (step.success or step.over) or now >= terms.episode_timeout - 1e-6:
                return self._episode(seed, step, now)
            observation = {'time': now, **step.observation}
            if not step.number:
                policy.reset(observation)
            action = policy.act(observation)
            target = space.target(action, target, space.hold_in(step.observation))
            record_step({'step': step.number, 'time': round(now, 6), 'observation': step.observation, 'action': action,
                         'target': target}, round(now * SECOND))
            step = self._world.step(target)

    def _episode(self, seed: int, step: GymStep, now: float) -> Episode:
        checks = tuple(Check(*check, unit='') for check in self._task.gym.checks(step.measures))
        if step.success:
            outcome, reason = SUCCESS, "done by the environment's own measure"
        elif step.terminated:
            outcome, reason = FAILURE, 'the environment ended the episode: terminated'
        else:
            outcome, reason = TIMEOUT, f'not done within {now:g} s'
        return Episode(seed, outcome, reason, round(now, 3), checks)
