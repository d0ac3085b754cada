"""Cheats of a line or two: each is really tried, by a policy and by training code, and refused where it is tried.

All attempts run in one process after the other (attempts.py says what they do): a refusal ends none of them, and an
attempt that went through is told by its name.
"""

from __future__ import annotations

import json
import os
import re
import site
import sysconfig

import numpy as np
import pytest

import enpire_agent.score
import enpire_agent.seeds
from attempts import ATTEMPTS
from enpire_agent.policy_session import PolicySession
from enpire_agent.training import train
from enpire_bringup.program_isolation import is_weak, strongest_level

pytestmark = pytest.mark.skipif(is_weak(strongest_level()), reason='nothing on this machine keeps programs from files')

CHEATS = {name: attempt for attempts in ATTEMPTS.values() for name, attempt in attempts.items()}

CODE = '''
import json, os, sys

def said(at):
    names = {'at': at, 'os': os, 'sys': sys, 'scratch': os.environ['TMPDIR'], '__file__': __file__}
    found = {}
    for name, code in at['attempts'].items():
        try:
            exec(code, dict(names))
            found[name] = 'it went through'
        except BaseException as error:
            found[name] = f'{type(error).__name__}: {error}'
    return found
'''

POLICY = CODE + '''
class Policy:
    def __init__(self, config):
        pass

    def reset(self, observation):
        print('SAID ' + json.dumps(said(observation)), flush=True)
'''

TRAINER = CODE + '''
class Trainer:
    def __init__(self, config):
        self.at = json.loads(config['parameters']['at'])

    def train(self, trials):
        return said(self.at)
'''


@pytest.fixture(scope='module')
def places(campaign, world) -> dict:
    return {'task': str(campaign.task.directory), 'scorer': enpire_agent.score.__file__,
            'seeds': enpire_agent.seeds.__file__, 'ledger': str(campaign.ledger), 'manifest': str(campaign.manifest),
            'station': str(campaign.station), 'peer': str(campaign.station.with_name('station_2')),
            'remote': str(campaign.remote), 'key': str(campaign.key),
            'success': str(campaign.station / 'trials' / '20260101T000001-station_1'),
            'packages': sysconfig.get_path('purelib'), 'user': site.getusersitepackages(), 'world': world[0].pid,
            'memory': str(world[1]), 'station_pid': os.getpid(),
            'attempts': {name: code for name, (code, _) in CHEATS.items()}}


@pytest.fixture(scope='module')
def said(campaign, places, tmp_path_factory):
    """(by a policy, by training code): what became of each attempt."""
    recipe = campaign.runs / 'attempts' / 'station_1' / 'recipe'
    recipe.mkdir(parents=True)
    (recipe / 'policy.py').write_text(POLICY)
    (recipe / 'train.py').write_text(TRAINER)
    (recipe / 'recipe.yaml').write_text(json.dumps({'method': 'cheat', 'parameters': {'at': json.dumps(places)}}))
    log = tmp_path_factory.mktemp('log') / 'policy.log'
    with PolicySession(recipe, campaign.task, world_waits=True, log_file=log) as policy:
        policy.reset(places)
        assert not is_weak(policy.isolation)
    line, = [line for line in log.read_text().splitlines() if line.startswith('SAID ')]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('enpire_agent.training.recorded_trials', lambda *_: [{'outcome': 'SUCCESS', 'time': np.zeros(1)}])
        trained = json.loads(train(recipe, campaign.task, campaign.station / 'trials'))
    yield json.loads(line.removeprefix('SAID ')), trained
    # What no attempt may have changed has not changed, whoever of them would have.
    for file in (recipe / 'policy.py', recipe / 'train.py', recipe / 'recipe.yaml'):
        file.unlink()
    recipe.rmdir(), recipe.parent.rmdir(), recipe.parents[1].rmdir()


@pytest.mark.parametrize('name', CHEATS)
def test_attempt_is_refused_with_its_reason_to_policy_and_training_code(said, name):
    for found in said:
        assert re.search(CHEATS[name][1], found[name]), found[name]


def test_after_all_attempts_score_and_files_are_what_they_were(said, campaign):
    assert campaign.state() == campaign.before
    assert len(ATTEMPTS) >= 15 and len(CHEATS) >= 60
