"""A small recipe and trials that are made up from it, for campaigns without a robot."""

import random
from datetime import datetime, timezone

from enpire_agent.campaign_state import outcome_of_line
from enpire_agent.ledger import Ledger
from enpire_agent.recipe import files_hash, load_recipe
from enpire_agent.recipe_repository import recipe_identity

RECIPE = '''# How the policy pushes.
method: straight_push
parameters:
  gain: 1.0      # share of the error a step
  curve: false
  lead: 0.0      # m
'''

POLICY = '''import numpy as np


class Policy:
    def __init__(self, config):
        self.gain = config['parameters']['gain']

    def reset(self, observation):
        pass

    def act(self, observation):
        return np.asarray(observation['tip'])
'''

IDEAS = '''ideas:
  - {id: harder, family: gains, hypothesis: A higher gain pushes farther, set: {gain: [2.0, 3.0]}}
  - {id: curved, family: path, hypothesis: A curved approach does not touch the block early, set: {curve: true}}
  - {id: lead, family: path, hypothesis: Leading the contact compensates the delay, set: {lead: [0.01, 0.02]},
     requires: [curved]}
'''


def rate_of(parameters):
    """Made-up truth: curve helps, leading by 0.01 helps more, a higher gain harms."""
    rate = 0.3 + 0.35 * parameters['curve'] + 0.3 * (parameters['lead'] == 0.01)
    return rate - 0.2 * (parameters['gain'] > 1)


class FakeStation:
    """Trials without a robot: the outcome follows from recipe and seed; entered in the ledger as real ones are."""

    def __init__(self, directory, work_tree, env_hash='e' * 64):
        self.ledger = Ledger(directory / 'ledger.jsonl')
        self.work_tree = work_tree
        self.env_hash = env_hash
        self.count = 0
        self.environment_changes = []       # what on disk is not as it was
        self.forced = {}          # number of the trial -> outcome
        self.force_kind = {}      # kind -> outcome
        self.rate_of = rate_of    # of the recipe's parameters
        self.before_trial = lambda number: None
        self.kinds = []           # of the trials run
        self.seed = None          # of the trial that runs
        self.waited_before = []   # numbers of the trials before which somebody made sure of the station
        self.missing = []         # what it lacks then
        self._identities = {}

    def await_station(self, cancelled):
        self.waited_before.append(self.count + 1)
        return self.missing.pop(0) if self.missing else ''

    def run_trial(self, kind, seed, cancelled):
        self.count += 1
        self.kinds.append(kind)
        self.seed = seed
        self.before_trial(self.count)
        parameters = load_recipe(self.work_tree).parameters
        # Fresh seeds are drawn by the operating system: there the outcome follows from the number of the trial.
        lines = self.ledger.entries()
        drawn = seed if kind == 'search' else f'{kind} {sum(line["kind"] == kind for line in lines)}'
        success = random.Random(f'{drawn}').random() < self.rate_of(parameters)
        outcome = self.forced.get(self.count) or self.force_kind.get(kind) or ('SUCCESS' if success else 'TIMEOUT')
        now = datetime.now(timezone.utc).isoformat()
        line = self.ledger.append({
            'trial_id': f'trial_{len(lines):04d}', 'campaign': 'c', 'station': 'station_1',
            'task': 'push_t', 'kind': kind, 'recipe': self._identity(), 'seed': seed,
            'outcome': outcome, 'reason': f'made up: {outcome}', 'env_hash': self.env_hash, 'started': now,
            'ended': now, 'wall_duration': 1.0, 'duration': 12.5, 'position_error': 0.005 if success else 0.1})
        return outcome_of_line(line)

    def _identity(self):
        """recipe_identity, asked once for the same files on the same commit: Git takes most of these tests' time."""
        tips = [file.read_text() for file in (self.work_tree / '.git' / 'refs' / 'heads').iterdir()]
        key = files_hash(self.work_tree), *tips
        if key not in self._identities:
            self._identities[key] = recipe_identity(self.work_tree)
        return self._identities[key]


class Recorder:
    """A listener that remembers."""

    def __init__(self):
        self.events, self.recipes = [], []

    def event(self, kind, iteration, text, commit=''):
        self.events.append((kind, iteration, text, commit))

    def kept(self, recipe, decision, parent, env_hash):
        self.recipes.append((decision, recipe.commit, recipe.trials, recipe.successes))
