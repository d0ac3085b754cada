"""Jobs for executors, and a task whose episodes are over at once."""

import os
import re
import shutil
import signal
import time

from enpire_bringup.paths import share_directory


def short_push_t(folder):
    """The task folder in `folder`: Push-T with very short episodes."""
    shutil.copytree(share_directory() / 'tasks' / 'push_t', folder / 'push_t')
    file = folder / 'push_t' / 'task.yaml'
    text, count = re.subn(r'episode_timeout: [0-9.]+', 'episode_timeout: 0.3', file.read_text())
    assert count == 1
    file.write_text(text)
    return folder / 'push_t'


class PlainJob:
    """Does nothing, and says which process did it."""

    def pack(self):
        return self

    @classmethod
    def unpack(cls, packed, folder):
        return packed

    def fingerprint(self, modules):
        return {}

    def run(self, seed):
        return {'seed': seed, 'outcome': 'SUCCESS', 'process': os.getpid()}


class DeadlyJob(PlainJob):
    """Kills its worker once for each marked seed, the first time."""

    def __init__(self, folder, deadly):
        self.folder, self.deadly = folder, deadly

    def run(self, seed):
        mark = self.folder / str(seed)
        if seed in self.deadly and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(seed)


class PatientJob(PlainJob):
    """Its second trial in a process lasts until a file is there. It says in which folder it was unpacked."""

    def __init__(self, file, folder=None):
        self.file, self.folder, self.runs = file, folder, 0

    @classmethod
    def unpack(cls, packed, folder):
        (folder / 'policy.py').touch()
        return cls(packed.file, folder)

    def run(self, seed):
        self.runs += 1
        while self.runs > 1 and not self.file.exists():
            time.sleep(0.02)
        return {**super().run(seed), 'folder': str(self.folder)}


class ForeignJob(PlainJob):
    """Where it is unpacked, other files lie."""

    def __init__(self, world='a'):
        self.world = world

    @classmethod
    def unpack(cls, packed, folder):
        return cls('b')

    def fingerprint(self, modules):
        return {'world.py': self.world, 'mujoco': '3.17.0'}


class UnknownJob(PlainJob):
    """Cannot be loaded elsewhere."""

    @classmethod
    def unpack(cls, packed, folder):
        import enpire_elsewhere  # noqa: F401
