"""Made-up campaigns as they lie on disk, of any size, for tests of what reads them."""

import json
import random
import subprocess
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import cv2
import numpy as np
from mcap.writer import Writer

from enpire_agent.ledger import FIRST, canonical, line_hash

BEGAN = datetime(2026, 1, 5, 9, 0, tzinfo=timezone.utc)
TRIAL_SECONDS = 10


@dataclass(frozen=True)
class Plan:
    """What a made-up campaign is like. decisions: one of "keep", "revert", "adopt", "run" for each iteration."""

    decisions: tuple = ('revert', 'keep', 'revert')
    trials: int = 4              # of a hypothesis
    gate: int = 20               # trials on fresh seeds, before and after
    diff_lines: int = 3          # of each iteration's commit
    line_width: int = 30         # characters
    hypothesis: str = 'Pushing slower leaves the T where it was pushed'
    running: bool = False        # the campaign has not come to its end
    divided: bool = True         # whether the campaign tells resetting from running


def record_campaign(directory, stations=1, plan=Plan(), **changes):
    """Write runs/<campaign> into `directory`; returns it.

    A station adopts what one written before it kept last; where there is none yet it keeps an idea of its own.
    """
    plan = replace(plan, **changes)
    kept = []
    for k in range(stations):
        _Station(directory, f'station_{k + 1}', plan, k, kept).write()
    return directory


def film(trial, frames=20):
    """An episode.mcap in a trial's folder: a square that moves, 10 Hz."""
    trial.mkdir(parents=True, exist_ok=True)
    with open(trial / 'episode.mcap', 'wb') as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema('sensor_msgs/msg/CompressedImage', 'ros2msg', b'')
        channel = writer.register_channel('top_camera/color/image_raw/compressed', 'cdr', schema)
        for k in range(frames):
            image = np.full((240, 320, 3), 235, np.uint8)
            cv2.rectangle(image, (20 + 8 * k % 200, 90), (80 + 8 * k % 200, 150), (200, 60, 40), -1)
            stamp = 10**9 + k * 100_000_000
            writer.add_message(channel, stamp, bytes(16) + cv2.imencode('.jpg', image)[1].tobytes(), stamp)
        writer.finish()


class _Station:
    def __init__(self, campaign, name, plan, number, kept):
        self.directory = campaign / name
        self.campaign, self.name, self.plan, self.number = campaign, name, plan, number
        self.kept = kept                  # [station, time, commit] of what was kept so far, of all stations
        self.random = random.Random(f'{name}')
        self.now = BEGAN + timedelta(seconds=7 * number)
        self.lines, self.commits = [], []
        self.rate = 0.25

    def write(self):
        self.directory.mkdir(parents=True)
        created = self._time()
        root = self._commit('Start from the task\'s recipe', self._text(0))
        baseline = self._measure('baseline', root, self.plan.gate)
        iterations = [self._iteration(number, decision) for number, decision in enumerate(self.plan.decisions, 1)]
        moved = [i for i in iterations if i['state'] == 'kept']
        gate = None
        if moved and not self.plan.running:
            gate = self._measure('gate', moved[-1]['commit'], self.plan.gate)
        elapsed = (self.now - BEGAN).total_seconds()
        time = ({'time_split': {'resetting': 0.3 * elapsed, 'running': 0.6 * elapsed, 'training': 0.0,
                                'thinking': 0.08 * elapsed, 'held': 0.02 * elapsed}} if self.plan.divided else
                {'busy': 0.9 * elapsed, 'elapsed': elapsed})
        best = moved[-1] if moved else None
        self._write_json('campaign.json', {
            'settings': {'campaign': self.campaign.name, 'station': self.name, 'task': 'push_t', 'env_hash': 'e' * 64,
                         'search_trials': self.plan.trials, 'gate_trials': self.plan.gate, 'goal': 0.95},
            'researcher': 'builtin', 'created': created,
            'phase': 'search' if self.plan.running else 'gate', 'baseline': baseline, 'gate': gate,
            'best': {'commit': best['commit'], 'method': 'm', 'hypothesis': best['hypothesis'],
                     'trials': best['trials'], 'successes': best['successes'], 'iteration': best['number']}
            if best else None,
            'iterations': iterations, 'trials': len(self.lines), 'successes': 0,
            'finished': '' if self.plan.running else 'it came to its end', **time})
        self._write_ledger()
        self._write_repository()

    def _iteration(self, number, decision):
        began = self._time()
        heard = [commit for name, time, commit in self.kept if name != self.name and time < began]
        source = heard[-1] if decision == 'adopt' and heard else None
        kept = decision in ('keep', 'adopt')
        self.rate = min(0.97, self.rate + 0.12) if kept else self.rate
        count = self.plan.trials if kept else max(1, self.plan.trials - 1)
        parent = next((commit for commit, is_kept in reversed(self.commits) if is_kept), self._sha(0))
        recipe = f'sha256:{number:064x}'
        done = self._run('search', recipe, count, self.rate if kept else 0.6 * self.rate)
        origin = f'adopt:{self._keeper(source)}/{source}' if source else f'idea:idea_{number}#0'
        commit = ''
        if decision != 'run':
            commit = self._commit(self._message(number, origin, kept, count, done[1].get('SUCCESS', 0)),
                                  self._text(number), kept=kept)
            if not kept:
                self._commit('Revert', self._text(0), hidden=True)
            else:
                self.kept.append([self.name, self._time(), commit])
        return {'number': number, 'hypothesis': self.plan.hypothesis, 'method': f'method_{number % 3}',
                'origin': origin,
                'files': {'policy.py': 'text'}, 'parent': parent, 'adopts': source or '',
                'state': {'run': 'running', 'revert': 'reverted'}.get(decision, 'kept'), 'recipe': recipe,
                'commit': commit, 'reason': f'{sum(done[1].values())} trials told so', 'seeds': [],
                'trial_ids': done[0], 'outcomes': done[1], 'trials': count, 'successes': done[1].get('SUCCESS', 0),
                'before': '5 of 20', 'started': began, 'ended': '' if decision == 'run' else self._time()}

    def _message(self, number, origin, kept, trials, successes):
        return (f'{self.plan.hypothesis}\n\nTask: push_t\nStation: {self.name}\nIteration: {number}\n'
                f'Method: method_{number % 3}\nOrigin: {origin}\nEnv-Hash: {"e" * 64}\nTrials: {trials}\n'
                f'Successes: {successes}\nDecision: {"keep" if kept else "revert"}\nReason: {trials} trials told so\n')

    def _keeper(self, commit):
        return next(name for name, _, kept in self.kept if kept == commit)

    def _measure(self, kind, recipe, trials):
        ids, outcomes = self._run(kind, recipe, trials, self.rate)
        return {'recipe': recipe, 'planned': trials, 'seeds': list(range(trials)), 'trial_ids': ids, 'outcomes': outcomes,
                'trials': trials, 'successes': outcomes.get('SUCCESS', 0)}

    def _run(self, kind, recipe, count, rate):
        ids, outcomes = [], {}
        for _ in range(count):
            success = self.random.random() < rate
            outcome = 'SUCCESS' if success else self.random.choice(
                ['TIMEOUT', 'TIMEOUT', 'TIMEOUT', 'FAILURE', 'SAFETY_STOP', 'POLICY_ERROR', 'RESET_FAILED', 'ABORTED'])
            started = self._time()
            self.now += timedelta(seconds=TRIAL_SECONDS)
            line = {
                'trial_id': f'{self.name}-{len(self.lines):05d}', 'campaign': self.campaign.name,
                'station': self.name, 'task': 'push_t', 'kind': kind, 'recipe': recipe, 'seed': 1000 * self.number + len(self.lines),
                'outcome': outcome, 'reason': f'made up: {outcome}', 'env_hash': 'e' * 64, 'started': started,
                'ended': self._time(), 'wall_duration': float(TRIAL_SECONDS),
                'duration': 4.0 + 8 * self.random.random(),
                'position_error': 0.004 if success else 0.02 + 0.1 * self.random.random(),
                'previous': self.lines[-1]['hash'] if self.lines else FIRST}
            line['hash'] = line_hash(line)
            self.lines.append(line)
            ids.append(line['trial_id'])
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        return ids, outcomes

    def _time(self):
        return self.now.isoformat(timespec='milliseconds')

    def _text(self, number):
        line = 'x' * self.plan.line_width
        return ''.join(f'{line} {number if k < self.plan.diff_lines else 0} {k}\n'
                       for k in range(self.plan.diff_lines + 6))

    # Commits are written at the end in one go; until then they have made-up names.

    def _commit(self, subject, text, kept=False, hidden=False):
        number = len(self.commits)
        self.commits.append((self._sha(number), kept))
        self._texts = getattr(self, '_texts', []) + [(subject, text)]
        return self._sha(number)

    def _sha(self, number):
        return f'{self.number + 1:04x}{number:036x}'

    def _write_repository(self):
        """One branch, written by git fast-import; the made-up names in campaign.json become the real ones."""
        tree = self.directory / 'recipe'
        tree.mkdir()
        stream = []
        for number, (subject, text) in enumerate(self._texts, 1):
            stream += [f'commit refs/heads/{self.name}', f'mark :{number}',
                       f'committer {self.name} <s@x.invalid> {1_700_000_000 + number} +0000',
                       f'data {len(subject.encode())}', subject, 'M 100644 inline policy.py',
                       f'data {len(text)}', text]
        git = ['git', '-c', 'safe.directory=*']
        subprocess.run([*git, 'init', '-q', '-b', self.name, str(tree)], check=True)
        subprocess.run([*git, 'fast-import', '--quiet', f'--export-marks={tree}/.git/marks'], cwd=tree, check=True,
                       input='\n'.join(stream).encode())
        marks = dict(line.split() for line in (tree / '.git' / 'marks').read_text().splitlines())
        real = {self._sha(int(mark[1:]) - 1): sha for mark, sha in marks.items()}
        for file in self.campaign.glob('*/campaign.json'):
            text = file.read_text()
            for made_up, sha in real.items():
                text = text.replace(made_up, sha)
            file.write_text(text)
        self.kept[:] = [[name, time, real.get(commit, commit)] for name, time, commit in self.kept]

    def _write_ledger(self):
        (self.directory / 'ledger.jsonl').write_bytes(b''.join(canonical(line) + b'\n' for line in self.lines))

    def _write_json(self, name, content):
        (self.directory / name).write_text(json.dumps(content))
