"""Push-T by a model of how the T moves: choose the push that leads nearest to the goal pose.

A straight push at a point of the outline moves the T along the inward normal there and turns it by the push's lever
arm divided by a squared radius (quasi-static pushing with an ellipsoidal limit surface: Goyal, Ruina and
Papadopoulos 1991). Of all pushes the one is chosen after which the least error in position and yaw remains; it
ends when it helps little any more, as seen by the camera, not after a fixed length.
"""

import math

import numpy as np

SLOWEST_STEP = 0.0008   # m a policy step
WORTH = 0.3             # share of the error that a push must still take away, or another one is chosen


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
        self.turn_radius = parameters['turn_radius']        # m, of the limit surface; weighs yaw against position
        self.travel_cost = parameters['travel_cost']        # m of error worth a metre of way
        self.clearance = parameters['clearance']            # m, kept from the T while travelling
        self.tip_radius = parameters['tip_radius']          # m
        outline = np.array(task['objects'][self.object]['outline'])
        self.contacts, self.normals = contacts_of(outline, parameters['contacts_per_face'], self.tip_radius)
        lever = self.contacts[:, 0] * self.normals[:, 1] - self.contacts[:, 1] * self.normals[:, 0]
        # Error, in m: x, y, and yaw times the radius. Each push moves along its row of `motions` in the body frame.
        self.motions = np.column_stack([self.normals, lever / self.turn_radius])
        self.motions /= np.linalg.norm(self.motions, axis=1)[:, None]
        self.detour_radius = np.max(np.hypot(*outline.T)) + self.tip_radius + self.clearance

    def reset(self, observation):
        self.stage, self.last_tip, self.last_turn = 'choose', np.array(observation['tip']), 1.0

    def act(self, observation):
        seen = observation[self.object]
        pose, tip = np.array(seen['pose']), np.array(observation['tip'])
        error = self.goal - pose
        error[2] = wrap(error[2])
        if self.stage == 'choose':
            if self.reached(error, 0.6):
                return tip
            self.index = self.choose(pose, tip, error)
            self.stage, self.way_round, self.stuck = 'travel', 0.0, 0
        contact = pose[:2] + rotate(self.contacts[self.index], pose[2])
        normal = rotate(self.normals[self.index], pose[2])
        if self.stage == 'travel':
            # Where the way round leads out of the space the tip may use, it stands still: then the other way.
            self.stuck = self.stuck + 1 if np.hypot(*(tip - self.last_tip)) < 0.001 else 0
            if self.stuck > 15:
                self.way_round, self.stuck = -self.last_turn, 0
            self.last_tip = tip
            target = self.travel(pose, tip, contact, normal)
            if target is not None:
                return target
            self.stage, self.unseen, self.target = 'push', 0, tip
        if self.stage == 'push':
            left = self.gain(error, pose)[self.index]
            self.unseen = 0 if seen['visible'] else self.unseen + 1
            size = np.hypot(np.hypot(*error[:2]), error[2] * self.turn_radius)
            if left > WORTH * size and not self.reached(error, 0.5) and self.unseen < 15:
                aside = (self.target - contact) - ((self.target - contact) @ normal) * normal
                step = min(self.push_step, SLOWEST_STEP + self.approach * left)
                self.target = self.target + step * normal - 0.2 * aside
                return self.target
            self.stage, self.back, self.patience = 'leave', tip - 0.03 * normal, 15
        self.patience -= 1
        if self.patience == 0 or np.hypot(*(self.back - tip)) < 0.006:
            self.stage = 'choose'
        return self.back

    def reached(self, error, share):
        return (np.hypot(*error[:2]) < share * self.tolerance['position']
                and abs(error[2]) < share * self.tolerance['yaw'])

    def gain(self, error, pose):
        """Error (m) that the best length of each push takes away; negative where a push would add to it."""
        body = np.array([*rotate(error[:2], -pose[2]), error[2] * self.turn_radius])
        return self.motions @ body

    def choose(self, pose, tip, error):
        """Index of the push that leaves the least error, a long way round counted as error."""
        size = np.hypot(np.hypot(*error[:2]), error[2] * self.turn_radius)
        gain = self.gain(error, pose)
        remaining = np.sqrt(np.maximum(0.0, size ** 2 - gain ** 2))
        room = self.tip_radius + self.clearance
        behind = pose[:2] + rotate(self.contacts - room * self.normals, pose[2])
        cost = remaining + self.travel_cost * np.hypot(*(behind - tip).T)
        cost[gain <= 0] += 1.0
        cost[np.any((behind < self.low) | (behind > self.high), axis=1)] += 2.0
        return int(np.argmin(cost))

    def travel(self, pose, tip, contact, normal):
        """Next target on the way round the T to just before the contact; None when the tip is there."""
        touch = contact - (self.tip_radius + 0.004) * normal
        aside = (tip - touch) - ((tip - touch) @ normal) * normal
        ahead = (touch - tip) @ normal
        if np.hypot(*aside) < 0.006 and ahead > -0.003:
            return None if ahead < 0.004 else step_toward(tip, touch, 1.5 * self.max_step)
        center = pose[:2]
        out = tip - center
        radius = np.hypot(*out)
        if radius < self.detour_radius - 0.008:
            return tip + 1.5 * self.max_step * out / max(radius, 1e-6)
        # The gate is where the line through the contact along its normal leaves the circle round the T.
        along = (center - touch) @ normal
        reach = self.detour_radius ** 2 - (center - touch) @ (center - touch) + along ** 2
        gate = touch + (along - math.sqrt(max(0.0, reach))) * normal
        angle = math.atan2(out[1], out[0])
        turn = wrap(math.atan2(*(gate - center)[::-1]) - angle)
        limit = 1.8 * self.max_step / self.detour_radius
        if abs(turn) < limit:
            return step_toward(tip, gate, 1.5 * self.max_step)
        self.last_turn = self.way_round or math.copysign(1.0, turn)
        angle += self.last_turn * limit
        return center + self.detour_radius * np.array([math.cos(angle), math.sin(angle)])


def contacts_of(outline, per_face, tip_radius):
    """Contact points (n, 2) and inward normals (n, 2), in the body frame, that a tip of this radius can reach."""
    contacts, normals = [], []
    for start, edge in zip(outline, np.roll(outline, -1, axis=0) - outline):
        normal = np.array([-edge[1], edge[0]]) / np.hypot(*edge)
        for share in (np.arange(per_face) + 0.5) / per_face:
            point = start + share * edge
            if distance_to(outline, point - (tip_radius + 0.002) * normal) > tip_radius:
                contacts.append(point)
                normals.append(normal)
    return np.array(contacts), np.array(normals)


def distance_to(outline, point):
    """Distance (m) from a point to the outline."""
    edges = np.roll(outline, -1, axis=0) - outline
    share = np.clip(np.sum((point - outline) * edges, axis=1) / np.sum(edges ** 2, axis=1), 0.0, 1.0)
    return np.min(np.hypot(*(outline + share[:, None] * edges - point).T))


def step_toward(start, end, step):
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
