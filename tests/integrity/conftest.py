"""A small real campaign to be cheated at, and the check that its score and all its files are what they were."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

import pytest

from enpire_agent.frozen_environment import freeze, keep_manifest, manifest_file
from enpire_agent.ledger import Ledger
from enpire_agent.recipe_repository import RecipeRepository
from enpire_agent.score import score
from enpire_agent.scored_trials import scored_trials
from enpire_agent.seeds import gate_seed, search_seeds
from enpire_agent.signing_key import key_file
from enpire_bringup.paths import share_directory
from enpire_bringup.station import load_station
from enpire_bringup.task import Task, load_task


@dataclass
class CheatedCampaign:
    """runs/c with two stations, their ledgers, trials, Git repositories and remote; a frozen task; a signing key."""

    runs: Path
    task: Task
    manifest: Path
    key: Path
    commit: str             # of the peer's branch in the remote
    before: tuple = ()

    @property
    def station(self) -> Path:
        return self.runs / 'c' / 'station_1'

    @property
    def ledger(self) -> Path:
        return self.station / 'ledger.jsonl'

    @property
    def remote(self) -> Path:
        return self.runs / 'c' / 'remote.git'

    def state(self) -> tuple:
        """The score of the campaign, and SHA-256, mode and time of change of every file in it."""
        trials = scored_trials([Ledger(self.ledger), Ledger(self.ledger.parents[1] / 'station_2' / 'ledger.jsonl')])
        files = [self.key, *(file for top in (self.runs / 'c', self.manifest.parent, self.task.directory)
                             for file in top.rglob('*') if file.is_file())]
        return score(trials.lines), [(file, hashlib.sha256(file.read_bytes()).hexdigest(), os.lstat(file).st_mode,
                                      os.lstat(file).st_mtime_ns) for file in sorted(files)]


@pytest.fixture(scope='session')
def campaign(tmp_path_factory) -> CheatedCampaign:
    top = tmp_path_factory.mktemp('campaign')
    shutil.copytree(share_directory() / 'tasks' / 'push_t', top / 'push_t')
    file = top / 'push_t' / 'task.yaml'
    text = file.read_text()
    file.write_text(text.replace('max_late_steps: 90', 'max_late_steps: 6'))
    assert file.read_text() != text
    task, station, runs = load_task(top / 'push_t'), load_station('yam_bimanual_sim'), top / 'runs'
    manifest = freeze(runs, task, station)
    for name in ('station_1', 'station_2'):
        _run_station(runs / 'c' / name, task, manifest.env_hash)
        keep_manifest(runs / 'c' / name, manifest)
        repository = RecipeRepository.open_or_create(runs / 'c' / name / 'recipe', name, task.recipe)
        (runs / 'c' / name / 'recipe' / 'notes').mkdir(exist_ok=True)
        (runs / 'c' / name / 'recipe' / 'notes' / 'tried.md').write_text('Pushing slower helped.\n')
        commit = repository.commit('Push slower', {'Decision': 'keep', 'Trials': 6, 'Successes': 3})
        repository.push(str(runs / 'c' / 'remote.git'), 'c')
        repository.close()
    made = CheatedCampaign(runs, task, manifest_file(runs, task, station), key_file(), commit)
    made.before = made.state()
    assert made.before[0].successes == 6
    return made


def _run_station(directory: Path, task: Task, env_hash: str) -> None:
    """Six trials, every second one a success."""
    seeds = search_seeds('c', 5) + [gate_seed()]
    for number, seed in enumerate(seeds):
        trial = directory / 'trials' / f'20260101T00000{number}-{directory.name}'
        line = {'trial_id': trial.name, 'campaign': 'c', 'station': directory.name, 'task': task.name,
                'kind': 'gate' if seed % 2 else 'search', 'recipe': 'sha256:1', 'seed': seed,
                'outcome': 'SUCCESS' if number % 2 else 'TIMEOUT', 'reason': 'made up', 'env_hash': env_hash,
                'isolation': 'landlock 6+seccomp', 'directory': str(trial), 'verdict': None,
                'started': f'2026-01-01T00:00:{10 * number:02}+00:00', 'ended': f'2026-01-01T00:00:{10 * number + 9:02}+00:00'}
        trial.mkdir(parents=True)
        started = {key: line[key] for key in list(line)[:7]} | {
            'env_hash': env_hash, 'directory': str(trial), 'started': line['started'],
            'process': {'pid': 1, 'create_time': 0.0}}
        (trial / 'started.json').write_text(json.dumps(started))
        (trial / 'trial.json').write_text(json.dumps(line))
        Ledger(directory / 'ledger.jsonl').append(line)


@pytest.fixture
def untouched(campaign):
    """The campaign, and that nothing of it has changed after the test."""
    yield campaign
    assert campaign.state() == campaign.before


@pytest.fixture(scope='module', autouse=True)
def _results_lie_in_runs(campaign):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ENPIRE_RUNS', str(campaign.runs))
        yield


@pytest.fixture(scope='module')
def world():
    """A process that knows what no policy may know, as that of the simulation does, and its shared memory."""
    memory = Path(f'/dev/shm/enpire_truth_{os.getpid()}')
    memory.write_bytes(b'pose of the T')
    process = subprocess.Popen(['sleep', '300'], env={'TRUTH': 'pose of the T'})
    yield process, memory
    process.kill()
    process.wait()
    memory.unlink()


@pytest.fixture
def make_recipe(campaign):
    """make_recipe(policy.py, further files by name) -> its folder; it lies among the results, as that of a campaign does."""
    folder = campaign.runs / 'attempts' / 'station_1' / 'recipe'

    def make(policy: str, files: Mapping[str, str] = {}) -> Path:
        folder.mkdir(parents=True)
        (folder / 'recipe.yaml').write_text('method: cheat\nparameters: {}\n')
        (folder / 'policy.py').write_text(policy)
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        return folder

    yield make
    shutil.rmtree(campaign.runs / 'attempts', ignore_errors=True)
