"""gym-pusht by imitation: a small network, taught by a planner's decisions, says at one glance which push comes next.

From the pose of the T and the place of the agent it gives, for each of 20 contacts on the T's outline, a preference and
the push there: its length, how far beside the contact it begins, and how far it is turned from the normal. The agent
travels round the T on a circle, pushes so far, and looks again. Nothing is predicted or tried out.

Lengths are in the package's units (the table is 512 wide, y points down), angles in rad. A pose is (x, y, angle) of
the T's centre of gravity, 45 units below the middle of its upper edge, which is the package's block position.
"""

import json
import math
from pathlib import Path

import numpy as np

SIZE = 512.0                    # of the table, and of the action
AGENT_RADIUS = 15.0
START_GAP = 2.0                 # between agent and T where a push begins
CENTER = np.array([0.0, 45.0])  # centre of gravity, from the package's block position
FARTHEST = 77.0                 # point of the T from there
GOAL = np.array([256.0 - CENTER[1] * math.sin(math.pi / 4), 256.0 + CENTER[1] * math.cos(math.pi / 4), math.pi / 4])
OUTWARD = np.argsort(np.abs(np.linspace(-1.5, 1.5, 31)))   # the most direct of the ways out first
SCALES = np.array([100.0, 10.0, 0.3])   # of the network's length, offset and turn


class Policy:
    """`act` returns the agent's next target (2,); parameters come from recipe.yaml, the network from weights.json."""

    def __init__(self, config):
        parameters = config['parameters']
        weights = json.loads((Path(__file__).parent / 'weights.json').read_text(encoding='utf-8'))
        self.push_step = parameters['push_step']            # a step while pushing
        self.travel_step = parameters['travel_step']        # a step on the way to a push
        self.settle = parameters['settle']                  # distance from the end of a push at which it is over
        self.curiosity = parameters['curiosity']            # by which preferences of contacts just used go down
        self.layers = [(np.array(layer['weights']), np.array(layer['bias'])) for layer in weights['layers']]
        self.starts, self.directions, self.tangents = (
            np.array(weights[name]) for name in ('starts', 'directions', 'tangents'))
        self.circle = FARTHEST + AGENT_RADIUS + parameters['clearance']     # on which the agent travels round the T

    def reset(self, observation):
        self.stage, self.used, self.waited = 'choose', np.zeros(len(self.starts)), 0

    def act(self, observation):
        pose, tip = pose_of(observation), agent_position(observation)
        if self.stage == 'choose':
            self.push, self.stage, self.waited = self.choose(pose, tip), 'travel', 0
        begin, direction, length = self.placed(pose)
        if self.stage == 'travel':
            self.waited += 1
            if self.waited > 40:        # no way there
                self.stage = 'choose'
            target = self.travel(pose, tip, begin, direction)
            if target is not None:
                return np.clip(target, 0.0, SIZE)
            self.stage, self.target, self.left = 'push', begin, length + START_GAP
            self.way = direction
            self.end = begin + self.left * direction
        if self.stage == 'push':
            if self.left > 0.0:
                step = min(self.push_step, self.left)
                self.left -= step
                self.target = self.target + step * self.way
                return np.clip(self.target, 0.0, SIZE)
            if np.hypot(*(tip - np.clip(self.end, 0.0, SIZE))) > self.settle:
                return np.clip(self.end, 0.0, SIZE)
            self.stage, self.back, self.patience = 'leave', tip - 30.0 * self.way, 8
        self.patience -= 1
        if self.patience == 0 or np.hypot(*(self.back - tip)) < 10.0:
            self.stage = 'choose'
        return np.clip(self.back, 0.0, SIZE)

    def choose(self, pose, tip):
        """Index of the contact, and the push's length, offset and turn (3,)."""
        answer = self.network(features(pose, tip)).reshape(-1, 4)
        starts = pose[:2] + rotate(self.starts, pose[2])
        outside = (starts.min(axis=1) < 2.0) | (starts.max(axis=1) > SIZE - 2.0)
        best = int(np.argmax(answer[:, 0] - self.used - 100.0 * outside))
        self.used = 0.5 * self.used
        self.used[best] += self.curiosity
        return best, answer[best, 1:] * SCALES

    def network(self, values):
        for weights, bias in self.layers[:-1]:
            values = np.tanh(values @ weights + bias)
        weights, bias = self.layers[-1]
        return values @ weights + bias

    def placed(self, pose):
        """Where the push begins (2,), its direction (2,) and its length, the T at a pose (3,)."""
        index, (length, offset, turn) = self.push
        begin = pose[:2] + rotate(self.starts[index] + offset * self.tangents[index], pose[2])
        return begin, rotate(self.directions[index], pose[2] + turn), max(1.0, length)

    def travel(self, pose, tip, begin, direction):
        """Next target on the way round the T to where the push begins; None when the agent is there."""
        normal = rotate(self.directions[self.push[0]], pose[2])
        ahead = (begin - tip) @ normal
        aside = np.hypot(*(begin - tip - ahead * normal))
        if aside < 5.0 and ahead > -2.0:
            return None if max(ahead, aside) < 0.7 else toward(tip, begin, self.travel_step)
        out = tip - pose[:2]
        radius = np.hypot(*out)
        if radius < self.circle - 6.0:
            angles = math.atan2(out[1], out[0]) + np.linspace(-1.5, 1.5, 31)[OUTWARD]
            ways_out = self.on_circle(pose, angles)
            on_table = (ways_out.min(axis=1) > 0.0) & (ways_out.max(axis=1) < SIZE)
            return toward(tip, ways_out[np.argmax(on_table)], self.travel_step)
        # The gate is where the line through the start along the face's normal leaves the circle round the T.
        inner = begin - pose[:2]
        room = (inner @ normal) ** 2 + self.circle ** 2 - inner @ inner
        gate = begin - (inner @ normal + math.sqrt(max(0.0, room))) * normal
        angle = math.atan2(out[1], out[0])
        turn = wrap(math.atan2(*(gate - pose[:2])[::-1]) - angle)
        limit = self.travel_step / self.circle
        if abs(turn) < limit:
            return toward(tip, gate, self.travel_step)
        other = turn - math.copysign(2.0 * math.pi, turn)
        if self.leaves_table(pose, angle, turn) and not self.leaves_table(pose, angle, other):
            turn = other
        return self.on_circle(pose, angle + math.copysign(limit, turn))

    def leaves_table(self, pose, angle, turn):
        """Whether the way along the circle, from an angle on by a turn, leads off the table."""
        points = self.on_circle(pose, angle + turn * np.linspace(0.1, 1.0, 12))
        return points.min() < 0.0 or points.max() > SIZE

    def on_circle(self, pose, angles):
        """Points (..., 2) of the circle round the T."""
        return pose[:2] + self.circle * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def features(pose, tip):
    """What the network sees (9,): the pose from the goal, the agent from the T, and once more the pose when near."""
    place, turn = rotate(pose[:2] - GOAL[:2], -GOAL[2]), wrap(pose[2] - GOAL[2])
    return np.array([*(place / 100.0), math.cos(turn), math.sin(turn), *(rotate(tip - pose[:2], -pose[2]) / 100.0),
                     *np.tanh(place / 20.0), math.tanh(turn / 0.3)])


def agent_position(observation):
    """Position (2,) of the agent, at whichever level the observation is."""
    return np.array(observation['state'][:2] if 'state' in observation else observation['agent_pos'], float)


def pose_of(observation):
    """Pose (3,) of the T, at whichever level the observation is."""
    if 'state' in observation:
        x, y, angle = np.asarray(observation['state'], float)[2:]
        return np.array([*([x, y] + rotate(CENTER, angle)), angle])
    if 'environment_state' in observation:
        corners = np.asarray(observation['environment_state'], float).reshape(-1, 2)
        along = corners[1] - corners[0]                     # the upper edge
        angle = math.atan2(along[1], along[0])
        return np.array([*((corners[0] + corners[1]) / 2 + rotate(CENTER, angle)), angle])
    return pose_in(np.asarray(observation['pixels'], float))


def pose_in(image):
    """Pose (3,) from the moments of the grey pixels in an image (96, 96, 3)."""
    red, green, blue = np.moveaxis(image, -1, 0)
    rows, columns = np.nonzero((red > 110) & (red < 150) & (blue > green + 10) & (blue < 190))
    points = (np.column_stack([columns, rows]) + 0.5) * SIZE / 96
    middle = points.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((points - middle).T))
    stem = axes[:, 1] * np.sign(np.sum(((points - middle) @ axes[:, 1]) ** 3))  # the T is long where it is thin
    return np.array([*(middle + 4.3 * stem), math.atan2(-stem[0], stem[1])])


def toward(start, end, step):
    """A point at most `step` from start on the way to end."""
    way = end - start
    length = np.hypot(*way)
    return end if length <= step else start + way * step / length


def rotate(vectors, angle):
    """Vectors (..., 2) turned by an angle in rad."""
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray(vectors) @ np.array([[c, s], [-s, c]])


def wrap(angle):
    return (angle + math.pi) % (2 * math.pi) - math.pi
