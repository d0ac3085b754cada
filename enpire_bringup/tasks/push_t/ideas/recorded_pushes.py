"""Push-T by what was recorded: repeat the push that once moved the T as it has to be moved now.

`weights.json` holds pushes that train.py found in recorded trials, and how the T moved by each. No model of friction:
where the tip touched, which way it went, what came of it. The best one to repeat, and how much of it, follows from the
pose that the camera sees, again and again while it is under way.
"""

import json
import math
from pathlib import Path

import numpy as np

LENGTHS = np.concatenate([[0.0], np.geomspace(0.002, 0.12, 14)])   # m, of the pushes that are considered
SLOWEST_STEP = 0.0008    # m a policy step
GATHER_SPEED = 0.0015    # m a policy step by which a step may be longer or shorter than the one before
HIDDEN = 0.4             # rad to either side of where the tip hides the T
ROOM_BEHIND = 0.09       # m that the tip needs behind the T
NEAR = 0.006             # m before the place of a push at which it begins
LEAST = 0.010            # m of push before another one may be better
ENOUGH = 0.5             # share of the tolerance within which the T is left alone


class Policy:
    """`act` returns the next target (x, y) in m of the closed gripper's tip; parameters come from recipe.yaml."""

    def __init__(self, config):
        task, parameters = config['task'], config['parameters']
        self.object = task['goal']['object']
        self.goal = np.array([*task['goal']['xy'], task['goal']['yaw']])
        self.tolerance = task['tolerance']
        self.low, self.high = np.array(task['action']['low']), np.array(task['action']['high'])
        self.max_step = task['action']['max_step']
        self.push_step = parameters['push_step']            # m a policy step while pushing, at most ...
        self.approach = parameters['approach']              # ... and this share of the push that is left
        self.travel_cost = parameters['travel_cost']        # m of error worth a metre of way
        self.blind_cost = parameters['blind_cost']          # m of error worth seeing what a push does
        self.hidden_side = parameters['hidden_side']        # rad, on which side of the T the tip hides it
        self.reach = parameters['reach']                    # m from the arm's base, beyond which it moves badly
        weights = json.loads((Path(__file__).parent / 'weights.json').read_text(encoding='utf-8'))
        pushes = np.array(weights['pushes'])
        self.places, self.directions, self.motions = pushes[:, :2], pushes[:, 2:4], pushes[:, 4:]
        outline = np.array(task['objects'][self.object]['outline'])
        self.size = np.max(np.hypot(*outline.T))
        self.detour_radius = self.size + parameters['clearance']

    def reset(self, observation):
        self.target, self.step = np.array(observation['tip']), np.zeros(2)
        self.chosen, self.turned, self.stuck, self.pose = None, 1.0, 0, None

    def act(self, observation):
        seen = observation[self.object]
        if seen['visible']:
            self.pose = np.array(seen['pose'])
        if self.pose is None:
            return self.target      # not seen yet
        pose = self.pose            # while the T is hidden, where it should be by now
        if self.chosen is None:
            if not seen['visible']:
                return self.go(self.way_to_look(pose))
            if self.far_from_goal(pose[None])[0] <= ENOUGH:
                return self.target
            (self.chosen, self.length), self.pushing, self.stuck = self.choose(pose), False, 0
        if not self.pushing:
            wanted = self.travel(pose)
            if wanted is not None:
                return self.go(wanted)
            self.pushing, self.pushed = True, 0.0
        return self.push(pose, seen['visible'])

    # --- moving ---

    def go(self, wanted):
        """The next target on the way to `wanted` (2,), its speed changing gently: an arm that is jerked dips."""
        way = wanted - self.target
        length = np.hypot(*way)
        fastest = min(self.max_step, math.sqrt(2 * GATHER_SPEED * length), length)
        change = way * (fastest / max(length, 1e-9)) - self.step
        self.step = self.step + change * min(1.0, GATHER_SPEED / max(np.hypot(*change), 1e-9))
        before, self.target = self.target, np.clip(self.target + self.step, self.low, self.high)
        self.stuck = self.stuck + 1 if np.hypot(*(self.target - before)) < 0.001 else 0
        return self.target

    def way_to_look(self, pose):
        """Where to go, round the T, so that the arm no longer hides it."""
        out = self.target - pose[:2]
        angle = math.atan2(out[1], out[0])
        angle += math.copysign(0.3, wrap(angle - self.hidden_side))
        return pose[:2] + (self.detour_radius + 0.004) * np.array([math.cos(angle), math.sin(angle)])

    def travel(self, pose):
        """Where to go next, round the T, on the way to where the push begins; None when the tip is there."""
        place = pose[:2] + rotate(self.places[self.chosen], pose[2])
        direction = rotate(self.directions[self.chosen], pose[2])
        begin = place - NEAR * direction
        offset = self.target - begin
        ahead = offset @ direction
        aside = np.hypot(*(offset - ahead * direction))
        out = self.target - pose[:2]
        radius = np.hypot(*out)
        if aside < 0.005 and -0.003 < ahead < 0.006:
            return None
        if aside < 0.006 and ahead < 0.0:
            return begin
        if radius < self.detour_radius - 0.006:
            return self.target + 0.03 * out / max(radius, 1e-6)
        if self.stuck > 10:     # the way round leads out of the space the tip may use: then the other way
            self.turned, self.stuck = -self.turned, -60
        # The gate is where the line through the place, against the direction, leaves the circle round the T.
        along = (pose[:2] - begin) @ direction
        room = self.detour_radius ** 2 - (pose[:2] - begin) @ (pose[:2] - begin) + along ** 2
        gate = begin + (along - math.sqrt(max(0.0, room))) * direction
        angle = math.atan2(out[1], out[0])
        turn = wrap(math.atan2(*(gate - pose[:2])[::-1]) - angle)
        if abs(turn) < 0.15:
            return gate if np.hypot(*(gate - self.target)) > 0.006 else begin
        if self.stuck >= 0:
            self.turned = math.copysign(1.0, turn)
        angle += self.turned * min(0.35, abs(turn))
        return pose[:2] + (self.detour_radius + 0.004) * np.array([math.cos(angle), math.sin(angle)])

    def push(self, pose, visible):
        """The next target of the push that is under way, or the first one after it."""
        motion = self.motions[self.chosen]
        if self.pushed < LEAST:
            left = LEAST
        elif visible:
            left = LENGTHS[np.argmin(self.error_after(moved(pose, motion * LENGTHS[:, None])))]
        else:
            left = max(0.0, self.length + LEAST - self.pushed)
        direction = rotate(self.directions[self.chosen], pose[2])
        if left <= 0.0 or self.far_from_goal(pose[None])[0] <= 0.8 * ENOUGH:
            self.chosen = None
            return self.go(self.target - 0.02 * direction)
        offset = self.target - (pose[:2] + rotate(self.places[self.chosen], pose[2]))
        speed = min(self.push_step, SLOWEST_STEP + self.approach * left)
        self.pushed += speed
        if not visible and self.pushed > LEAST:
            self.pose = moved(pose, motion * speed)
        self.step = speed * direction - 0.2 * (offset - (offset @ direction) * direction)
        self.target = np.clip(self.target + self.step, self.low, self.high)
        return self.target

    # --- choosing ---

    def choose(self, pose):
        """(index, m) of the recorded push, as far as it helps, after which the least error is left."""
        after = moved(pose, self.motions[:, None] * LENGTHS[1:, None])
        errors = self.error_after(after)
        cost = np.min(errors, axis=1)
        begin = pose[:2] + rotate(self.places - 0.02 * self.directions, pose[2])
        out = begin - pose[:2]
        way = np.arctan2(out[:, 1], out[:, 0]) - math.atan2(*(self.target - pose[:2])[::-1])
        cost = cost + self.travel_cost * (self.detour_radius * np.abs(wrap(way)))
        outside = np.any((begin < self.low) | (begin > self.high), axis=1) | (np.hypot(*begin.T) > self.reach)
        # Where the arm would hide the T from the camera the push goes unseen.
        hidden = np.abs(wrap(np.arctan2(out[:, 1], out[:, 0]) - self.hidden_side)) < HIDDEN
        best = int(np.argmin(cost + 1.0 * outside + self.blind_cost * hidden))
        return best, LENGTHS[1 + np.argmin(errors[best])]

    def error_after(self, poses):
        """Error in m of poses (..., 3), a turn counted as the way of a point of the T, and more where out of tolerance."""
        error = self.goal - poses
        size = np.hypot(np.hypot(error[..., 0], error[..., 1]), 0.045 * wrap(error[..., 2]))
        # From farther out the tip could not get behind the T to bring it back.
        lost = np.maximum(0.0, np.hypot(poses[..., 0], poses[..., 1]) - (self.reach - ROOM_BEHIND))
        return size + 5.0 * lost + 0.02 * np.clip(self.far_from_goal(poses), 0.3, 1.2)

    def far_from_goal(self, poses):
        """Error of poses (..., 3) as a share of the tolerance, position or yaw, whichever is more."""
        error = self.goal - poses
        return np.maximum(np.hypot(error[..., 0], error[..., 1]) / self.tolerance['position'],
                          np.abs(wrap(error[..., 2])) / self.tolerance['yaw'])


def moved(pose, twists):
    """Poses (..., 3) after motions (..., 3) that stay the same as seen from the moving body."""
    turn = twists[..., 2]
    small = np.abs(turn) < 1e-6
    safe = np.where(small, 1.0, turn)
    s, c = np.where(small, 1.0, np.sin(turn) / safe), np.where(small, 0.0, (1.0 - np.cos(turn)) / safe)
    x, y = s * twists[..., 0] - c * twists[..., 1], c * twists[..., 0] + s * twists[..., 1]
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    return np.stack([pose[0] + cos * x - sin * y, pose[1] + sin * x + cos * y, pose[2] + turn], axis=-1)


def rotate(vectors, angle):
    """Vectors (..., 2) turned by an angle in rad."""
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray(vectors) @ np.array([[c, s], [-s, c]])


def wrap(angle):
    return (angle + math.pi) % (2 * math.pi) - math.pi
