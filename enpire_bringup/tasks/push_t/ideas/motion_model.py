"""Push-T by a model of how the T moves: plan two pushes ahead, the shortest way to the goal pose in time.

A push at a point of the outline, along the inward normal there, moves the T along that normal and turns it by the
push's lever arm divided by a squared radius (quasi-static pushing with an ellipsoidal limit surface: Goyal, Ruina and
Papadopoulos 1991). Seen from the T that motion stays the same, so where a push of any length leads is known in closed
form. While it pushes, the policy goes on planning from what the camera sees, and ends the push when another is better.
Between pushes the tip takes the shortest way round the T.
"""

import math

import numpy as np

LENGTHS = np.concatenate([[0.0], np.geomspace(0.002, 0.12, 14)])   # m, of the pushes that are considered
BRANCHES = 25            # first pushes for which a second one is considered
SLOWEST_STEP = 0.0008    # m a policy step
GATHER_SPEED = 0.0015    # m a policy step by which a step may be longer or shorter than the one before
LONGER = 1.5             # times the planned length that a push may get
LAG = 0.015              # m that the tip trails behind its target, at most
LEAST = 0.008            # m of push before another one may be better
NEAR = 0.004             # m before the contact at which pushing begins
HIDDEN = 0.4             # rad to either side of that
LOOK_FROM = 0.13         # m from the T's middle
ROOM_BEHIND = 0.09       # m that the tip needs behind the T
NO_WAY = 5.0             # m of way that stands for none
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
        self.turn_radius = parameters['turn_radius']        # m, of the limit surface
        self.push_cost = parameters['push_cost']            # s that another push takes besides its way
        self.error_cost = parameters['error_cost']          # s that a metre of error costs
        self.hidden_side = parameters['hidden_side']        # rad, on which side of the T the tip hides it
        self.blind_cost = parameters['blind_cost']          # s that a push costs which is not seen
        self.drift = parameters['drift']                    # m that a metre of push ends beside where it should
        self.reach = parameters['reach']                    # m from the arm's base, beyond which it moves badly
        rate = task['policy']['rate']
        self.travel_speed = 0.8 * self.max_step * rate      # m/s
        self.push_speed = 0.7 * self.push_step * rate       # m/s
        self.costs = LENGTHS * (1.0 / self.push_speed + self.drift * self.error_cost)     # s, of pushes so long
        tip_radius = parameters['tip_radius']               # m
        outline = np.array(task['objects'][self.object]['outline'])
        self.ways = WaysRound(outline, tip_radius + parameters['clearance'])
        self.contacts, self.normals = contacts_of(outline, parameters['contacts_per_face'], tip_radius)
        self.touches = self.contacts - (tip_radius + NEAR) * self.normals      # where the tip is before it pushes
        self.gates = self.contacts - (tip_radius + parameters['clearance'] + 0.001) * self.normals
        lever = self.contacts[:, 0] * self.normals[:, 1] - self.contacts[:, 1] * self.normals[:, 0]
        self.twists = np.column_stack([self.normals, lever / self.turn_radius ** 2])   # a metre of push, (n, 3)
        everywhere = np.ones(len(self.ways.corners), bool)
        self.between = np.array([[self.ways.shortest(a, b, everywhere)[0] for b in self.gates] for a in self.gates])

    def reset(self, observation):
        self.target, self.step = np.array(observation['tip']), np.zeros(2)
        self.contact, self.pushing, self.pose = None, False, None

    def act(self, observation):
        seen = observation[self.object]
        if seen['visible']:
            self.pose = np.array(seen['pose'])
        if self.pose is None:
            return self.target      # not seen yet
        pose = self.pose            # while the T is hidden, where it should be by now
        if self.contact is None:
            if not seen['visible']:
                return self.go(self.way_to_look(pose))
            if self.far_from_goal(pose[None])[0] <= ENOUGH:
                return self.go(self.clear_of(pose))
            (self.contact, self.length), self.pushing = self.choose(pose), False
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
        # As fast as it can still stop there.
        fastest = min(self.max_step, math.sqrt(2 * GATHER_SPEED * length), length)
        step = way * (fastest / max(length, 1e-9))
        change = step - self.step
        self.step = self.step + change * min(1.0, GATHER_SPEED / max(np.hypot(*change), 1e-9))
        self.target = np.clip(self.target + self.step, self.low, self.high)
        return self.target

    def clear_of(self, pose):
        """Where the tip goes while nothing is to be pushed."""
        local = rotate(self.target - pose[:2], -pose[2])
        return pose[:2] + rotate(self.ways.outside(local), pose[2])

    def way_to_look(self, pose):
        """Where to go so that the arm no longer hides the T."""
        sides = pose[:2] + LOOK_FROM * np.array([[math.cos(a), math.sin(a)] for a in (
            self.hidden_side - math.pi / 3, self.hidden_side + math.pi / 3)])
        local = rotate(self.target - pose[:2], -pose[2])
        allowed = self.allowed_corners(pose)
        ways = [self.ways.shortest(local, rotate(side - pose[:2], -pose[2]), allowed) for side in sides]
        length, first = min(ways, key=lambda way: way[0])
        return pose[:2] + rotate(first, pose[2]) if length < NO_WAY else self.clear_of(pose)

    def travel(self, pose):
        """Where to go next on the way to the contact; None when the tip is there."""
        local = rotate(self.target - pose[:2], -pose[2])
        gate, touch, normal = self.gates[self.contact], self.touches[self.contact], self.normals[self.contact]
        offset = local - touch
        if abs(offset @ normal) < 0.003 and np.hypot(*(offset - (offset @ normal) * normal)) < 0.004:
            return None
        behind = local - gate
        ahead = behind @ normal
        if np.hypot(*(behind - ahead * normal)) < 0.005 and -0.01 < ahead < 0.02:
            return pose[:2] + rotate(touch, pose[2])
        length, corner = self.ways.shortest(local, gate, self.allowed_corners(pose))
        if length >= NO_WAY:
            self.contact = None
            return self.clear_of(pose)
        return pose[:2] + rotate(corner, pose[2])

    def push(self, pose, visible):
        """The next target of the push that is under way, or the first one after it."""
        if self.pushed < LEAST:
            left = self.length
        elif not visible:
            left = max(0.0, self.length + LAG / 2 - self.pushed)
        elif self.pushed < LONGER * self.length + LAG:
            left = self.length_left(pose, self.contact)
        else:
            left = 0.0      # a plan whose best part is always still to come is none
        if left <= 0.0 or self.far_from_goal(pose[None])[0] <= ENOUGH * 0.8:
            self.contact = None
            return self.go(self.clear_of(pose))
        contact = pose[:2] + rotate(self.contacts[self.contact], pose[2])
        normal = rotate(self.normals[self.contact], pose[2])
        aside = (self.target - contact) - ((self.target - contact) @ normal) * normal
        speed = min(self.push_step, SLOWEST_STEP + self.approach * left)
        self.pushed += speed
        if not visible and self.pushed > LAG / 2:
            self.pose = moved(pose, self.twists[self.contact] * speed)
        self.step = speed * normal - 0.2 * aside
        self.target = np.clip(self.target + self.step, self.low, self.high)
        return self.target

    # --- planning ---

    def choose(self, pose):
        """(index of the contact, m of push) with which the quickest way to the goal begins."""
        local = rotate(self.target - pose[:2], -pose[2])
        allowed = self.allowed_corners(pose)
        start = np.array([self.ways.shortest(local, gate, allowed)[0] for gate in self.gates]) / self.travel_speed
        start[~self.inside(pose[:2] + rotate(self.gates, pose[2]))] += NO_WAY / self.travel_speed
        start += self.blind_cost * self.hides(rotate(self.gates, pose[2]))
        poses = moved(pose, self.twists[:, None] * LENGTHS[1:, None])             # (n, lengths, 3)
        spent = start[:, None] + self.push_cost + self.costs[1:]
        n, lengths = spent.shape
        first = np.repeat(np.arange(n), lengths)
        total = self.cost_after(poses.reshape(-1, 3), first, spent.ravel())
        best = int(np.argmin(total))
        return int(first[best]), LENGTHS[1 + best % lengths]

    def length_left(self, pose, contact):
        """m that this push should go on; 0 when another push is better now."""
        poses = moved(pose, self.twists[contact] * LENGTHS[:, None])
        total = self.cost_after(poses, np.full(len(LENGTHS), contact), self.costs)
        return LENGTHS[np.argmin(total)]

    def cost_after(self, poses, contacts, spent):
        """s to the goal from each of `poses` (m, 3), reached by a push at `contacts` (m,) after `spent` (m,) s."""
        total = spent + self.time_to_go(poses)
        likely = np.argsort(total)[:BRANCHES]
        ends = moved(poses[likely, None, None], self.twists[:, None] * LENGTHS[1:, None])   # (k, n, lengths, 3)
        sides = rotate_each(self.gates, poses[likely, 2])
        way = self.between[contacts[likely]] / self.travel_speed + self.blind_cost * self.hides(sides)
        way += NO_WAY / self.travel_speed * ~self.inside(poses[likely, None, :2] + sides)
        second = (way[..., None] + self.push_cost + self.costs[1:] + self.time_to_go(ends))
        total[likely] = np.minimum(total[likely], spent[likely] + second.min(axis=(1, 2)))
        return total

    def hides(self, sides):
        """Whether a tip at `sides` (..., 2) from the T's middle has the arm between the T and its camera."""
        angles = np.arctan2(sides[..., 1], sides[..., 0])
        return np.abs(wrap(angles - self.hidden_side)) < HIDDEN

    def time_to_go(self, poses):
        """Estimated s from poses (..., 3) to the goal: the error at the speed of pushing, and more where it is not
        within tolerance."""
        error = self.goal - poses
        turn = self.turn_radius * np.abs(wrap(error[..., 2]))
        size = np.hypot(np.hypot(error[..., 0], error[..., 1]), turn)
        far = self.far_from_goal(poses)
        # From farther out the tip could not get behind the T to bring it back.
        lost = np.maximum(0.0, np.hypot(poses[..., 0], poses[..., 1]) - (self.reach - ROOM_BEHIND))
        return self.error_cost * (size + 5.0 * lost) + 2.0 * (np.clip(far, 0.3, 1.2) - 0.3) / 0.7

    def far_from_goal(self, poses):
        """Error of poses (..., 3) as a share of the tolerance, position or yaw, whichever is more."""
        error = self.goal - poses
        return np.maximum(np.hypot(error[..., 0], error[..., 1]) / self.tolerance['position'],
                          np.abs(wrap(error[..., 2])) / self.tolerance['yaw'])

    def allowed_corners(self, pose):
        return self.inside(pose[:2] + rotate(self.ways.corners, pose[2]))

    def inside(self, places):
        """Whether the tip can be at each of the places (..., 2)."""
        return (np.all((places >= self.low) & (places <= self.high), axis=-1)
                & (np.hypot(places[..., 0], places[..., 1]) < self.reach))


class WaysRound:
    """Shortest ways round the T for the middle of the tip, in the T's frame (m)."""

    def __init__(self, outline, distance):
        self.corners = widened(outline, distance)
        self.walls = widened(outline, distance - 0.0015)      # a way may run along the widened outline
        n = len(self.corners)
        links = np.full((n, n), np.inf)
        for i in range(n):
            free = ~self.crosses(self.corners[i], self.corners)
            links[i, free] = np.hypot(*(self.corners[free] - self.corners[i]).T)
        self.links = links

    def outside(self, place):
        """The place itself, or the nearest one from where the tip may go round."""
        return nearest_on(self.corners, place)[0] if within(self.walls, place) else place

    def shortest(self, start, end, allowed):
        """(m of the shortest way over `allowed` corners, where it leads first); NO_WAY m where there is none."""
        free = self.outside(start)
        extra = np.hypot(*(free - start))
        if extra > 0.002:
            return extra + self.shortest(free, end, allowed)[0], free
        if not self.crosses(free, end[None])[0]:
            return extra + np.hypot(*(end - free)), end
        to_end = np.where(self.crosses(end, self.corners) | ~allowed, np.inf, np.hypot(*(self.corners - end).T))
        for _ in range(len(self.corners)):
            to_end = np.minimum(to_end, np.where(allowed, np.min(self.links + to_end, axis=1), np.inf))
        total = np.where(self.crosses(free, self.corners), np.inf, np.hypot(*(self.corners - free).T)) + to_end
        best = int(np.argmin(total))
        if not np.isfinite(total[best]):
            return NO_WAY, end
        return extra + total[best], self.corners[best]

    def crosses(self, start, ends):
        """Whether the straight ways from start (2,) to ends (n, 2) cross the walls."""
        a, b = self.walls, np.roll(self.walls, -1, axis=0)
        way, wall = ends - start, b - a
        den = way[:, None, 0] * wall[:, 1] - way[:, None, 1] * wall[:, 0]
        den = np.where(np.abs(den) < 1e-12, 1e-12, den)
        gap = a - start
        t = (gap[:, 0] * wall[:, 1] - gap[:, 1] * wall[:, 0]) / den
        u = (gap[None, :, 0] * way[:, None, 1] - gap[None, :, 1] * way[:, None, 0]) / den
        return np.any((t > 0) & (t < 1) & (u > 0) & (u < 1), axis=1)


def moved(pose, twists):
    """Poses (..., 3) after motions (..., 3) that stay the same as seen from the moving body."""
    turn = twists[..., 2]
    small = np.abs(turn) < 1e-6
    safe = np.where(small, 1.0, turn)
    s, c = np.where(small, 1.0, np.sin(turn) / safe), np.where(small, 0.0, (1.0 - np.cos(turn)) / safe)
    x, y = s * twists[..., 0] - c * twists[..., 1], c * twists[..., 0] + s * twists[..., 1]
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    return np.stack([pose[..., 0] + cos * x - sin * y, pose[..., 1] + sin * x + cos * y,
                     pose[..., 2] + turn + 0.0 * x], axis=-1)


def contacts_of(outline, per_face, tip_radius):
    """Contact points (n, 2) and inward normals (n, 2), in the body frame, that a tip of this radius can reach."""
    contacts, normals = [], []
    for start, edge in zip(outline, np.roll(outline, -1, axis=0) - outline):
        normal = np.array([-edge[1], edge[0]]) / np.hypot(*edge)
        for share in (np.arange(per_face) + 0.5) / per_face:
            point = start + share * edge
            if nearest_on(outline, point - (tip_radius + 0.002) * normal)[1] > tip_radius:
                contacts.append(point)
                normals.append(normal)
    return np.array(contacts), np.array(normals)


def nearest_on(outline, point):
    """(nearest point (2,) of the outline, distance in m)."""
    edges = np.roll(outline, -1, axis=0) - outline
    share = np.clip(np.sum((point - outline) * edges, axis=1) / np.sum(edges ** 2, axis=1), 0.0, 1.0)
    points = outline + share[:, None] * edges
    gaps = np.hypot(*(points - point).T)
    best = int(np.argmin(gaps))
    return points[best], gaps[best]


def within(outline, point):
    a, b = outline, np.roll(outline, -1, axis=0)
    over = (a[:, 1] > point[1]) != (b[:, 1] > point[1])
    rise = np.where(over, b[:, 1] - a[:, 1], 1.0)
    return bool(np.sum(over & (point[0] < a[:, 0] + (point[1] - a[:, 1]) / rise * (b[:, 0] - a[:, 0]))) % 2)


def widened(outline, distance):
    """Every edge of a counter-clockwise outline (n, 2) moved outward by `distance`."""
    edges = np.roll(outline, -1, axis=0) - outline
    out = np.stack([edges[:, 1], -edges[:, 0]], axis=1) / np.hypot(*edges.T)[:, None]
    return outline + distance * (out + np.roll(out, 1, axis=0))


def rotate(vectors, angle):
    """Vectors (..., 2) turned by an angle in rad."""
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray(vectors) @ np.array([[c, s], [-s, c]])


def rotate_each(vectors, angles):
    """(k, n, 2): vectors (n, 2) turned by each of the angles (k,)."""
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.stack([c * vectors[:, 0] - s * vectors[:, 1], s * vectors[:, 0] + c * vectors[:, 1]], axis=-1)


def wrap(angle):
    return (angle + math.pi) % (2 * math.pi) - math.pi
