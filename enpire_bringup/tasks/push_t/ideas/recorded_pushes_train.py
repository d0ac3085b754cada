"""Learn where pushes lead: every push that the campaign recorded, good or bad, is an example to repeat.

A push is a stretch of a trial in which the T moved while the tip stayed at the same place of it. Seen from the T it is
where the tip touched, which way it went, and how the T moved and turned for every metre of it.
"""

import math

import numpy as np

MOVES = 0.0008        # m (and rad times TURN) in SPAN steps from which on the T counts as moving; it is seen to 0.15 mm
SPAN = 3              # steps
TURN = 0.05           # m that a rad of turn is worth
LONGEST_PAUSE = 4     # steps without motion within one push
SHORTEST = 0.006      # m, of a push that is worth repeating
FARTHEST_SLIP = 0.012   # m that the tip may slide along the T; more is a brush, no push
MOST = 400            # pushes; the longest


class Trainer:
    """`train` returns {'pushes': [[place x, y, direction x, y, motion x, y, turn], ...]}, in m and rad a metre."""

    def __init__(self, config):
        task = config['task']
        self.object = task['goal']['object']
        outline = np.array(task['objects'][self.object]['outline'])
        mirrored = outline * [-1.0, 1.0]
        self.symmetric = all(np.min(np.hypot(*(outline - corner).T)) < 1e-6 for corner in mirrored)

    def train(self, trials):
        found = [push for trial in trials for push in pushes_of(trial[self.object], trial['tip'])]
        if not found:
            raise ValueError(f'no push in {len(trials)} trials')
        found.sort(key=lambda push: -push[0])
        pushes = np.array([push[1] for push in found[:MOST]])
        if self.symmetric:
            # What is seen in a mirror happens as well.
            pushes = np.vstack([pushes, pushes * [-1, 1, -1, 1, -1, 1, -1]])
        return {'pushes': np.round(pushes, 4)}


def pushes_of(poses, tips):
    """(length in m, the seven numbers) of each push in a trial; poses (n, 3) and tips (n, 2) of its steps."""
    seen = np.isfinite(poses).all(axis=1)
    poses, tips = poses[seen][1:], tips[seen][:-1]      # a camera shows what was one step ago
    if len(poses) <= 2 * SPAN:
        return []
    change = poses[SPAN:] - poses[:-SPAN]
    change[:, 2] = wrap(change[:, 2])
    moving = np.hypot(np.hypot(change[:, 0], change[:, 1]), TURN * change[:, 2]) > MOVES
    found = []
    for first, last in stretches(np.flatnonzero(moving)):
        push = push_between(poses[first:last + SPAN + 1], tips[first:last + SPAN + 1])
        if push is not None:
            found.append(push)
    return found


def stretches(steps):
    """(first, last) of each run of `steps` without a pause."""
    if not len(steps):
        return []
    breaks = np.flatnonzero(np.diff(steps) > LONGEST_PAUSE)
    return list(zip(steps[np.r_[0, breaks + 1]], steps[np.r_[breaks, len(steps) - 1]]))


def push_between(poses, tips):
    """(length, numbers) of the push that these steps are, or None where they are none."""
    places = np.array([rotate(tip - pose[:2], -pose[2]) for tip, pose in zip(tips, poses)])
    steps = np.diff(tips, axis=0)
    ways = np.array([rotate(step, -pose[2]) for step, pose in zip(steps, poses)])
    turn = wrap(poses[-1, 2] - poses[0, 2])
    shift = rotate(poses[-1, :2] - poses[0, :2], -poses[0, 2])
    # Only while the T moved along: before it the tip is on its way, after it on its way back.
    middle = slice(len(places) // 4, max(len(places) // 4 + 2, 3 * len(places) // 4))
    direction = ways[middle].sum(axis=0)
    length = float(np.hypot(*direction)) * len(ways) / max(1, len(ways[middle]))
    slip = np.hypot(*(places[middle][-1] - places[middle][0]))
    if length < SHORTEST or slip > FARTHEST_SLIP:
        return None
    direction = direction / np.hypot(*direction)
    # The motion that, kept up as seen from the T, leads from the first pose to the last.
    a, b = (1.0, 0.0) if abs(turn) < 1e-6 else (math.sin(turn) / turn, (1.0 - math.cos(turn)) / turn)
    motion = np.array([a * shift[0] + b * shift[1], a * shift[1] - b * shift[0]]) / (a * a + b * b)
    if motion @ direction < 0.3 * length and abs(turn) * TURN < 0.3 * length:
        return None     # the T hardly followed
    place = np.median(places[middle], axis=0)
    return length, [*place, *direction, *(motion / length), turn / length]


def rotate(vector, angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])


def wrap(angle):
    return (angle + math.pi) % (2 * math.pi) - math.pi
