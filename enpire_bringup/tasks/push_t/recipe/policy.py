"""Starting policy for Push-T: first push the T to its place, then turn it, one straight push at a time.

The tip travels round the T at a safe distance to the middle of one of its faces, pushes straight for a fixed
length, backs off and decides again. The only way it knows the T is the pose in the observation.
"""

import math

import numpy as np


class Policy:
    """`act` returns the next target (x, y) in m of the closed gripper's tip; parameters come from recipe.yaml."""

    def __init__(self, config):
        task, parameters = config['task'], config['parameters']
        self.object = task['goal']['object']
        self.goal = np.array([*task['goal']['xy'], task['goal']['yaw']])
        self.tolerance = task['tolerance']
        self.low, self.high = np.array(task['action']['low']), np.array(task['action']['high'])
        self.max_step = task['action']['max_step']
        self.push_length = parameters['push_length']        # m, of one push
        self.push_step = parameters['push_step']            # m a policy step while pushing
        self.position_first = parameters['position_first']  # m, error above which position comes before yaw
        self.clearance = parameters['clearance']            # m, kept from the T while travelling
        self.tip_radius = parameters['tip_radius']          # m
        outline = np.array(task['objects'][self.object]['outline'])
        self.contacts, self.normals = face_contacts(outline, self.tip_radius)
        self.turns = (self.contacts[:, 0] * self.normals[:, 1] - self.contacts[:, 1] * self.normals[:, 0])
        self.detour_radius = np.max(np.hypot(*outline.T)) + self.tip_radius + self.clearance

    def reset(self, observation):
        self.stage = 'choose'

    def act(self, observation):
        pose, tip = np.array(observation[self.object]['pose']), np.array(observation['tip'])
        error = self.goal - pose
        error[2] = wrap(error[2])
        if self.stage == 'choose':
            if (np.hypot(*error[:2]) < 0.7 * self.tolerance['position']
                    and abs(error[2]) < 0.7 * self.tolerance['yaw']):
                return tip
            self.index = self.choose(pose, error)
            self.stage = 'travel'
        contact = pose[:2] + rotate(self.contacts[self.index], pose[2])
        normal = rotate(self.normals[self.index], pose[2])
        if self.stage == 'travel':
            target = self.travel(pose, tip, contact, normal)
            if target is not None:
                return target
            self.stage, self.start, self.target = 'push', tip, tip
        if self.stage == 'push':
            if (tip - self.start) @ normal < self.push_length:
                self.target = self.target + self.push_step * normal
                return self.target
            self.stage, self.back = 'leave', tip - 0.03 * normal
            self.patience = 15
        self.patience -= 1
        if self.patience == 0 or np.hypot(*(self.back - tip)) < 0.006:
            self.stage = 'choose'
        return self.back

    def choose(self, pose, error):
        """Index of the face to push: the one that faces the goal, or turns the right way."""
        if np.hypot(*error[:2]) > self.position_first:
            score = [rotate(normal, pose[2]) @ error[:2] / (1 + 20 * abs(turn))
                     for normal, turn in zip(self.normals, self.turns)]
        else:
            score = [turn * np.sign(error[2]) / 0.05 + 0.5 * rotate(normal, pose[2]) @ error[:2] / np.hypot(*error[:2])
                     for normal, turn in zip(self.normals, self.turns)]
        return int(np.argmax(score))

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
        angle += math.copysign(limit, turn)
        return center + self.detour_radius * np.array([math.cos(angle), math.sin(angle)])


def face_contacts(outline, tip_radius):
    """Middle (n, 2) and inward normal (n, 2), in the body frame, of each face that the tip can reach."""
    edges = np.roll(outline, -1, axis=0) - outline
    normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / np.hypot(*edges.T)[:, None]
    return outline + edges / 2, normals


def step_toward(start, end, step):
    """A point at most `step` from start on the way to end."""
    way = end - start
    length = np.hypot(*way)
    return end if length <= step else start + way * step / length


def rotate(vector, angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])


def wrap(angle):
    return (angle + math.pi) % (2 * math.pi) - math.pi
