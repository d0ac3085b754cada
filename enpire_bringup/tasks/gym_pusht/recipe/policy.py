"""Starting policy for gym-pusht: one straight push at a time, each the one that leaves the least error.

A push at a point of a face moves the T along the face's normal and turns it by the lever arm, which makes the error
after a push of the best length a matter of least squares. The agent travels round the T on a circle to where the push
begins, pushes until it no longer helps, backs off and decides again. The only way it knows the T is its pose in the
observation.

Lengths are in the package's units (the table is 512 wide, y points down), angles in rad. A pose is (x, y, angle) of
the T's centre of gravity, 45 units below the middle of its upper edge, which is the package's block position.
"""

import math

import numpy as np

SIZE = 512.0                    # of the table, and of the action
AGENT_RADIUS = 15.0
GYRATION = 55.0                 # radius of the T's moment of inertia
CENTER = np.array([0.0, 45.0])  # centre of gravity, from the package's block position
OUTLINE = np.array([[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]]) - CENTER
GOAL = np.array([256.0 - CENTER[1] * math.sin(math.pi / 4), 256.0 + CENTER[1] * math.cos(math.pi / 4), math.pi / 4])


class Policy:
    """`act` returns the agent's next target (2,); the parameters come from recipe.yaml."""

    def __init__(self, config):
        parameters = config['parameters']
        self.turn_radius = parameters['turn_radius']    # by which a turn counts as a distance
        self.push_step = parameters['push_step']        # a step while pushing
        self.stop_early = parameters['stop_early']      # of push that is still to go when it ends: the agent goes on
        self.travel_step = parameters['travel_step']    # a step on the way to a push
        self.clearance = parameters['clearance']        # kept from the T while travelling round it
        self.contacts, self.normals = contacts_on(OUTLINE, parameters['contacts_per_face'])
        levers = self.contacts[:, 0] * self.normals[:, 1] - self.contacts[:, 1] * self.normals[:, 0]
        self.turns = levers / GYRATION ** 2             # rad that a unit of push turns the T
        self.circle = np.max(np.hypot(*OUTLINE.T)) + AGENT_RADIUS + self.clearance

    def reset(self, observation):
        self.stage = 'choose'

    def act(self, observation):
        pose, tip = pose_of(observation), agent_position(observation)
        if self.stage == 'choose':
            self.contact, self.stage = self.choose(pose), 'travel'
        contact = pose[:2] + rotate(self.contacts[self.contact], pose[2])
        normal = rotate(self.normals[self.contact], pose[2])
        if self.stage == 'travel':
            target = self.travel(pose, tip, contact, normal)
            if target is not None:
                return np.clip(target, 0.0, SIZE)
            self.stage, self.target = 'push', tip
        if self.stage == 'push':
            if self.lengths(pose)[0][self.contact] > self.stop_early:
                self.target = self.target + self.push_step * normal
                return np.clip(self.target, 0.0, SIZE)
            self.stage, self.back, self.patience = 'leave', tip - 30.0 * normal, 8
        self.patience -= 1
        if self.patience == 0 or np.hypot(*(self.back - tip)) < 6.0:
            self.stage = 'choose'
        return np.clip(self.back, 0.0, SIZE)

    def choose(self, pose):
        """Index of the contact whose push leaves the least error."""
        return int(np.argmin(self.lengths(pose)[1]))

    def lengths(self, pose):
        """For each contact how long a push helps (n,), and the error (n,) that it leaves."""
        error = np.array([*(GOAL[:2] - pose[:2]), self.turn_radius * wrap(GOAL[2] - pose[2])])
        motions = np.column_stack([rotate(self.normals, pose[2]), self.turn_radius * self.turns])
        lengths = np.maximum(0.0, motions @ error / np.sum(motions ** 2, axis=1))
        return lengths, np.linalg.norm(error - lengths[:, None] * motions, axis=1)

    def travel(self, pose, tip, contact, normal):
        """Next target on the way round the T to just before the contact; None when the agent is there."""
        begin = contact - (AGENT_RADIUS + 4.0) * normal
        ahead = (begin - tip) @ normal
        aside = np.hypot(*(begin - tip - ahead * normal))
        if aside < 6.0 and ahead > -3.0:
            return None if ahead < 5.0 else toward(tip, begin, self.travel_step)
        out = tip - pose[:2]
        radius = np.hypot(*out)
        if radius < self.circle - 6.0:
            return tip + self.travel_step * out / max(radius, 1e-6)
        # The gate is where the line through the contact along its normal leaves the circle round the T.
        inner = begin - pose[:2]
        room = (inner @ normal) ** 2 + self.circle ** 2 - inner @ inner
        gate = begin - (inner @ normal + math.sqrt(max(0.0, room))) * normal
        angle = math.atan2(out[1], out[0])
        turn = wrap(math.atan2(*(gate - pose[:2])[::-1]) - angle)
        limit = self.travel_step / self.circle
        if abs(turn) < limit:
            return toward(tip, gate, self.travel_step)
        angle += math.copysign(limit, turn)
        return pose[:2] + self.circle * np.array([math.cos(angle), math.sin(angle)])


def contacts_on(outline, count):
    """Points (n, 2) on a polygon, `count` on each edge, and the inward normals (n, 2) there."""
    edges = np.roll(outline, -1, axis=0) - outline
    shares = np.tile((np.arange(count) + 0.5) / count, len(edges))
    normals = np.column_stack([-edges[:, 1], edges[:, 0]]) / np.hypot(*edges.T)[:, None]
    start, edges, normals = (np.repeat(values, count, axis=0) for values in (outline, edges, normals))
    return start + shares[:, None] * edges, normals


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
