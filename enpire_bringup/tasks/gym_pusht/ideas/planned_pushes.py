"""gym-pusht by planning: two pushes ahead by a table of what pushes do, the first of them tried out in a model.

What it knows besides the observation are the package's published constants (shape, mass and moment of the T, gains of
the agent's controller, walls, goal), of which it builds a pymunk space of its own. The environment is never touched.
Contacts have no friction and the T stops at once when nothing pushes it, so a push leads where the model says.

Lengths are in the package's units (the table is 512 wide, y points down), angles in rad, times in steps of 0.1 s. A
pose is (x, y, angle) of the T's centre of gravity; the package's own block position is the middle of its upper edge.
"Seen from the T": in its frame, with the origin in the centre of gravity.
"""

import math

import numpy as np
import pymunk

SIZE = 512.0                                    # of the table, and of the action
SUBSTEPS, DT, STIFFNESS, DAMPING = 10, 0.01, 100.0, 20.0       # of the agent's controller; a step has SUBSTEPS of DT s
AGENT_RADIUS = 15.0
CENTER = np.array([0.0, 45.0])                  # centre of gravity, from the package's block position
MASS, MOMENT, AREA = 1.0, 3000.0, 6300.0
BOXES = np.array([[-60.0, 0.0, 60.0, 30.0], [-15.0, 30.0, 15.0, 120.0]]) - np.tile(CENTER, 2)   # bar, stem: low, high
OUTLINE = np.array([[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]]) - CENTER
KEYPOINTS = np.vstack([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]] for x0, y0, x1, y1 in BOXES])
GOAL = np.array([256.0 - CENTER[1] * math.sin(math.pi / 4), 256.0 + CENTER[1] * math.cos(math.pi / 4), math.pi / 4])

LENGTHS = np.arange(4.0, 170.0, 4.0)            # of the pushes that are considered
START_GAP = 2.0                                 # between agent and T where a push begins
MOST_STEPS = 14                                 # of one transfer of the agent
CANDIDATES = 30                                 # first pushes that are looked at closely
FINE = 0.985                                    # coverage that needs no refining; the package asks for 0.95


class Policy:
    """`act` returns the agent's next target (2,); the parameters come from recipe.yaml."""

    def __init__(self, config):
        parameters = config['parameters']
        self.travel_speed = parameters['travel_speed']      # a step, on the way to a push
        self.push_speed = parameters['push_speed']          # a step, while pushing
        self.turn_radius = parameters['turn_radius']        # by which a turn counts as a distance
        self.push_cost = parameters['push_cost']            # steps that a push takes besides its length and its way
        self.error_cost = parameters['error_cost']          # steps that a unit of remaining error will take ...
        self.unsolved_cost = parameters['unsolved_cost']    # ... and those of going on at all
        self.branches = parameters['branches']              # first pushes for which a second one is considered
        self.refinements = parameters['refinements']        # pushes tried out in the model to improve the last one
        self.model = Model()
        self.pushes = PushTable(self.model, parameters['contact_spacing'], parameters['push_angle'])
        self.routes = Routes(AGENT_RADIUS + parameters['clearance'], self.pushes.starts)
        self.push_steps = np.array([steps_for(length + START_GAP, self.push_speed) for length in LENGTHS])

    def reset(self, observation):
        self.sight = Sight()
        self.tip, self.velocity = agent_position(observation), np.zeros(2)
        self.plan, self.targets, self.expected = None, [], None
        self.barred, self.idle = set(), 0

    def act(self, observation):
        before, self.tip = self.tip, agent_position(observation)
        if self.targets:
            return self.send(self.targets.pop(0))
        pose = self.pose(observation)
        self.idle = self.idle + 1 if np.hypot(*(self.tip - before)) < 0.1 else 0
        if self.plan is not None and self.idle > 3:
            self.barred.add(self.plan['push'])      # the agent does not get there
            self.plan = None
        if self.plan is None or self.apart(pose, self.plan['from']) > 0.5:
            self.plan = self.choose(pose)
        target = self.travel(pose)
        if target is not None:
            return self.send(target)
        self.targets, self.expected = list(self.plan['targets']), self.plan['pose']
        self.plan, self.barred, self.idle = None, set(), 0
        return self.send(self.targets.pop(0))

    def pose(self, observation):
        """Pose (3,) of the T, at whichever level the observation is."""
        if 'state' in observation:
            x, y, angle = np.asarray(observation['state'], float)[2:]
            return np.array([*([x, y] + rotate(CENTER, angle)), angle])
        if 'environment_state' in observation:
            return fitted_pose(np.asarray(observation['environment_state'], float).reshape(-1, 2))
        pose = self.sight.look(np.asarray(observation['pixels']), self.tip, self.expected)
        self.expected = None
        return pose

    def send(self, target):
        """The target, after noting how fast the agent will be: nobody observes it."""
        target = np.clip(target, 0.0, SIZE)
        self.velocity = END_SPEED[0] * (self.tip - target) + END_SPEED[1] * self.velocity
        return target

    # --- the way to a push ---

    def travel(self, pose):
        """Next target on the way to where the push begins; None when the agent rests there."""
        begin = self.plan['begin']
        if np.hypot(*(self.tip - begin)) < 0.3 and np.hypot(*self.velocity) < 3.0:
            return None
        start = to_body(pose, self.tip)
        room = min(AGENT_RADIUS + 0.3, distance(start[None])[0] - 0.02)
        way = to_world(pose, self.routes.way(pose, start, to_body(pose, begin)))
        for stop in stops_along(way, 25.0):
            target = self.safe_target(pose, stop, room)
            if target is not None:
                return target
        return self.tip

    def safe_target(self, pose, stop, room):
        """First target of the quickest transfer to rest at `stop` that keeps `room` from the T; None without one."""
        steps = steps_for(np.hypot(*(stop - self.tip)), self.travel_speed)
        start = np.array([self.tip - stop, self.velocity])
        targets, path = stop + TARGETS[steps] @ start, stop + PATHS[steps] @ start
        if targets.min() < 0.0 or targets.max() > SIZE:
            targets, path = [stop], stop + APPROACH @ start
        return targets[0] if distance(to_body(pose, path)).min() >= room else None

    # --- choosing a push ---

    def choose(self, pose):
        """The next push, see `tried`: the first of the one or two that lead to the goal the soonest."""
        after = compose(pose, self.pushes.motions)                          # (pushes, lengths, 3)
        ways = self.routes.lengths(pose, to_body(pose, self.tip))
        cost = self.push_cost + ways[:, None] / self.travel_speed + self.push_steps + wall_cost(after)
        once = cost + self.to_go(after)
        firsts = distinct(np.argsort(once, axis=None), once.shape)
        last = np.array([once[first] for first in firsts])
        total = last.copy()
        for k, (i, j) in enumerate(firsts[:self.branches]):
            total[k] = min(last[k], cost[i, j] + self.second(after[i, j], i))
        for k in np.argsort(total):
            i, j = firsts[k]
            plan = self.tried(pose, i, LENGTHS[j]) if i not in self.barred else None
            if plan is not None:
                return self.refined(pose, i, LENGTHS[j], plan) if total[k] == last[k] else plan
        i, j = firsts[0]
        return self.tried(pose, i, LENGTHS[j], anyway=True)

    def second(self, pose, first):
        """Steps to the goal by one push after the push `first`, which led to a pose (3,)."""
        cost = self.push_cost + self.routes.between[first][:, None] / self.travel_speed + self.push_steps
        return np.min(cost + self.to_go(compose(pose, self.pushes.motions)))

    def to_go(self, poses):
        """Steps (...) that pushes after the planned ones will take, from poses (..., 3)."""
        x, y = poses[..., 0] - GOAL[0], poses[..., 1] - GOAL[1]
        turn = self.turn_radius * wrap(poses[..., 2] - GOAL[2])
        error = np.sqrt(x * x + y * y + turn * turn)
        return self.error_cost * error + self.unsolved_cost * np.clip((error - 1.0) / 6.0, 0.0, 1.0)

    def apart(self, a, b):
        """Distance of two poses, a turn counted as the way of a point of the T."""
        return math.hypot(a[0] - b[0], a[1] - b[1], self.turn_radius * wrap(a[2] - b[2]))

    def tried(self, pose, index, length, offset=0.0, turn=0.0, anyway=False):
        """A push, begun `offset` along the face and turned: where the agent begins, its targets, and the pose after.

        None where it cannot be done or does nothing, unless it is wanted anyway.
        """
        table = self.pushes
        begin = to_world(pose, table.starts[index] + offset * table.tangents[index])
        end = begin + (length + START_GAP) * rotate(table.directions[index], pose[2] + turn)
        outside = min(begin.min(), end.min(), SIZE - begin.max(), SIZE - end.max()) < 1.0
        if not anyway and (outside or distance(to_body(pose, begin)[None])[0] < AGENT_RADIUS + 1.0):
            return None
        steps = steps_for(length + START_GAP, self.push_speed)
        targets = np.clip(end + TARGETS[steps] @ np.array([begin - end, np.zeros(2)]), 0.0, SIZE)
        after = self.model.pose_after(pose, begin, targets)
        if not anyway and self.apart(pose, after) < 0.3:
            return None
        return {'push': index, 'from': pose, 'begin': np.clip(begin, 0.0, SIZE), 'targets': targets, 'pose': after}

    def refined(self, pose, index, length, plan):
        """The push varied in length, place and direction, in the model, so that it ends nearer to the goal."""
        values, sizes, left = np.array([length, 0.0, 0.0]), np.array([4.0, 4.0, 0.1]), self.refinements
        while left > 0 and sizes[0] > 0.2 and coverage(plan['pose']) < FINE:
            better = False
            for change in np.vstack([np.diag(sizes), -np.diag(sizes)])[[0, 3, 1, 4, 2, 5]]:
                left -= 1
                new = self.tried(pose, index, *np.maximum(values + change, [1.0, -np.inf, -np.inf]))
                if new is not None and self.apart(new['pose'], GOAL) < self.apart(plan['pose'], GOAL):
                    values, plan, better = values + change, new, True
            if not better:
                sizes = sizes / 2
        return plan


class Model:
    """T, agent and walls in a pymunk space, as the package builds its own."""

    def __init__(self):
        self.space = pymunk.Space()
        self.space.damping = 0.0
        corners = [(5, 506), (5, 5), (506, 5), (506, 506), (5, 506)]
        for a, b in zip(corners, corners[1:]):
            self.space.add(pymunk.Segment(self.space.static_body, a, b, 2))
        self.agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.block = pymunk.Body(MASS, MOMENT)
        shapes = [pymunk.Poly(self.block, corners.tolist()) for corners in np.split(KEYPOINTS, 2)]
        self.space.add(self.agent, self.block, pymunk.Circle(self.agent, AGENT_RADIUS), *shapes)

    def place(self, pose, tip):
        self.block.position, self.block.angle = (float(pose[0]), float(pose[1])), float(pose[2])
        self.block.velocity, self.block.angular_velocity = (0.0, 0.0), 0.0
        self.agent.position = float(tip[0]), float(tip[1])

    def pose_after(self, pose, tip, targets):
        """Pose (3,) of the T after a step with each of the targets (n, 2), the agent at rest before."""
        self.place(pose, tip)
        agent, step = self.agent, self.space.step
        x, y = agent.position
        u = v = 0.0
        for target_x, target_y in np.asarray(targets).tolist():
            for _ in range(SUBSTEPS):
                u += (STIFFNESS * (target_x - x) - DAMPING * u) * DT
                v += (STIFFNESS * (target_y - y) - DAMPING * v) * DT
                agent.velocity = u, v
                step(DT)
                x, y = x + DT * u, y + DT * v
        return np.array([*self.block.position, self.block.angle])

    def motions(self, start, direction, lengths):
        """Poses (n, 3), seen from where the T was, in a slow straight push, after each of the lengths."""
        middle = np.array([SIZE / 2, SIZE / 2])
        self.place([*middle, 0.0], middle + start + START_GAP * direction)
        self.agent.velocity = tuple((1.0 / DT) * direction)     # one unit a substep
        poses = []
        for step in range(1, int(lengths[-1]) + 1):
            self.space.step(DT)
            if step in lengths:
                poses.append([*(np.array(self.block.position) - middle), self.block.angle])
        return poses


class PushTable:
    """What pushes do, seen from the T: starts, directions, tangents of the faces (n, 2); motions (n, lengths, 3)."""

    def __init__(self, model, spacing, angle):
        """Contacts lie `spacing` apart; each is pushed along its normal, and turned to both sides by `angle`."""
        pushes = []
        for a, b in zip(OUTLINE, np.roll(OUTLINE, -1, axis=0)):
            length = np.hypot(*(b - a))
            tangent = (b - a) / length
            inward = np.array([-tangent[1], tangent[0]])
            count = max(2, int(round(length / spacing)))
            for share in (np.arange(count) + 0.5) / count:
                start = a + share * (b - a) - (AGENT_RADIUS + START_GAP) * inward
                if distance(start[None])[0] > AGENT_RADIUS + START_GAP - 0.5:
                    pushes += [(start, rotate(inward, turn), tangent) for turn in (-angle, 0.0, angle)]
        self.starts, self.directions, self.tangents = (np.array(column) for column in zip(*pushes))
        self.motions = np.array([model.motions(start, direction, LENGTHS) for start, direction, _ in pushes])


class Routes:
    """Shortest ways of the agent round the T, seen from the T, by way of its six outer corners."""

    def __init__(self, room, starts):
        """`room` is what the agent's middle keeps from the T; starts (n, 2): where pushes begin."""
        self.room, self.starts = room, starts
        low, high = BOXES[:, :2] - room - 0.01, BOXES[:, 2:] + room + 0.01
        self.corners = np.array([low[0], [high[0, 0], low[0, 1]], high[0], high[1], [low[1, 0], high[1, 1]],
                                 [low[0, 0], high[0, 1]]])
        self.gates = np.array([self.outside(start) for start in starts])    # where the last, straight bit begins
        self.last = np.hypot(*(self.gates - starts).T)
        self.corner_corner = self.straight(self.corners, self.corners)
        self.corner_gate = self.straight(self.corners, self.gates)
        everywhere = np.ones(len(self.corners), bool)
        self.between = np.array([last + self.to_starts(gate, everywhere) for last, gate in zip(self.last, self.gates)])

    def outside(self, point):
        """The nearest point that keeps `room` from the T."""
        point = np.array(point, float)
        for _ in range(2):      # out of the stem's surroundings into the bar's, and out of those
            for box in BOXES:
                low, high = box[:2] - self.room - 0.02, box[2:] + self.room + 0.02
                if np.all(point > low) and np.all(point < high):
                    side = int(np.argmin(np.concatenate([point - low, high - point])))
                    point[side % 2] = (low if side < 2 else high)[side % 2]
        return point

    def straight(self, a, b):
        """Lengths (n, m) of the straight ways from a (n, 2) to b (m, 2), infinite where the T is in the way."""
        start, way = a[:, None, None], (b[None] - a[:, None])[:, :, None]       # (n, m, 1, 2)
        slope = np.where(np.abs(way) < 1e-9, 1e-9, way)
        low, high = (BOXES[:, :2] - self.room - start) / slope, (BOXES[:, 2:] + self.room - start) / slope
        enter, leave = np.minimum(low, high).max(axis=-1), np.maximum(low, high).min(axis=-1)
        blocked = np.any((enter < leave) & (leave > 0.0) & (enter < 1.0), axis=-1)
        return np.where(blocked, np.inf, np.hypot(way[:, :, 0, 0], way[:, :, 0, 1]))

    def to_corners(self, point, allowed):
        """Lengths (6,) from a point outside to each corner, by allowed ones (6,); the one before each, -1 for none."""
        between = np.where(allowed[:, None] & allowed, self.corner_corner, np.inf)
        length = np.where(allowed, self.straight(point[None], self.corners)[0], np.inf)
        before = np.full(len(length), -1)
        for _ in range(4):
            by = length[:, None] + between
            before = np.where(by.min(axis=0) < length - 1e-9, by.argmin(axis=0), before)
            length = np.minimum(length, by.min(axis=0))
        return length, before

    def to_starts(self, point, allowed):
        """Lengths (n,) of the ways from a point outside to the start of each push; long where there is none."""
        around = (self.to_corners(point, allowed)[0][:, None] + self.corner_gate).min(axis=0)
        return np.minimum(np.minimum(self.straight(point[None], self.gates)[0], around), 1e4) + self.last

    def lengths(self, pose, point):
        """Lengths (n,) of the ways from a point to the start of each push, the T at a pose (3,)."""
        begin = self.outside(point)
        ways = np.hypot(*(begin - point)) + self.to_starts(begin, on_table(to_world(pose, self.corners)))
        return ways + np.where(on_table(to_world(pose, self.gates)), 0.0, 1e4)

    def way(self, pose, point, end):
        """Polyline (n, 2) from a point to the start of a push, the T at a pose (3,)."""
        begin, gate = self.outside(point), self.outside(end)
        way = [end, gate]
        if np.isinf(self.straight(begin[None], gate[None])[0, 0]):
            length, before = self.to_corners(begin, on_table(to_world(pose, self.corners)))
            length = length + self.straight(self.corners, gate[None])[:, 0]
            corner = int(np.argmin(length)) if np.isfinite(length.min()) else -1
            while corner >= 0:
                way.append(self.corners[corner])
                corner = before[corner]
        return np.array([*way, begin, point][::-1])


class Sight:
    """Pose of the T from images of 96 x 96: the pose that explains best where the T's two greys are seen."""

    DARK, LIGHT, GREEN = np.array([119, 136, 153]), np.array([143, 163, 184]), np.array([144, 238, 144])
    EDGE = 1.9          # from the T at which its dark rim ends ...
    RIM = -2.35         # ... and begins, for the rim is drawn over its edges
    BLUR = 0.45         # of both
    SHIFT = np.array([0.24, -0.05, 0.0])    # of the T from where it is drawn, for lines have an even width
    SAMPLES = 100
    AT = np.stack(np.meshgrid(*2 * [(np.arange(96) + 0.5) * SIZE / 96 - 0.5]), axis=-1)     # what a pixel shows

    def __init__(self):
        self.pose = None
        self.random = np.random.default_rng(0)

    def look(self, image, tip, expected=None):
        """Pose (3,) in an image (96, 96, 3); tip (2,): the agent, which hides some of it; expected: pose (3,)."""
        block, light = self.greys(image.astype(int))
        clear = ((np.hypot(*np.moveaxis(self.AT - tip, -1, 0)) > AGENT_RADIUS + 3.5)
                 & (self.AT.min(axis=-1) > 11.0) & (self.AT.max(axis=-1) < SIZE - 13.0))
        if self.pose is not None:
            if expected is None and np.array_equal(block[clear & self.clear], self.block[clear & self.clear]):
                return self.pose
            guess = self.pose if expected is None else expected
            pose = self.fitted(block, light, clear, guess, np.array([1.5, 1.5, 0.03]), (2.0, 1.0, 1.0))
        if self.pose is None or self.wrong(pose, block, clear) > 12:
            guess = self.guess(block, light, clear)
            pose = self.fitted(block, light, clear, guess, np.array([4.0, 4.0, 0.06]), (8.0, 3.0, 1.0, 1.0))
        self.block, self.clear, self.pose = block, clear, pose
        return pose

    def greys(self, image):
        """For each pixel whether it shows the T, and whether the light inside of its rim: 0, 0.5 (on the edge) or 1."""
        dark, light = (np.abs(image - grey).max(axis=-1) < 6 for grey in (self.DARK, self.LIGHT))
        red, green, blue = np.moveaxis(image, -1, 0)
        within = ~dark & ~light & (red > 118) & (red < 144) & (blue < 185) & (blue > green + 14)
        rim = ~dark & ~light & ~within & (((blue > green + 2) & (blue - red < 60)) | ((red > 118) & (red < 144)))
        rim &= np.abs(image - self.GREEN).max(axis=-1) >= 4
        return np.where(dark | light | within, 1.0, 0.5 * rim), np.where(light, 1.0, 0.5 * within)

    def guess(self, block, light, clear):
        """Pose (3,) of the best of many angles, at the middle of what is seen of the T."""
        middle = self.AT[(block == 1.0) & clear].mean(axis=0)
        poses = np.array([[*(middle - rotate([0.0, -4.3], angle)), angle]       # the middle of its area
                          for angle in np.arange(48) * math.pi / 24])
        near = clear & (np.hypot(*np.moveaxis(self.AT - middle, -1, 0)) < 95.0)
        return poses[np.argmax(self.likelihood(poses, near, block, light, 4.0 * self.BLUR))]

    def fitted(self, block, light, clear, guess, spread, temperatures):
        """Mean of the poses that explain the image, by importance sampling that narrows down from a guess (3,)."""
        pose, covariance = guess - self.SHIFT, np.diag(spread ** 2)
        for k, temperature in enumerate(temperatures):
            covariance = covariance + np.diag([0.04, 0.04, 1e-5])
            errors = self.random.standard_normal((self.SAMPLES, 3)) @ np.linalg.cholesky(covariance).T
            near = clear & (np.abs(signed_distance(to_body(pose, self.AT))) < (14.0 if k == 0 else 9.0))
            weights = self.likelihood(pose + errors, near, block, light, self.BLUR) / temperature
            weights += 0.5 * np.einsum('ni,ij,nj->n', errors, np.linalg.inv(covariance), errors)
            weights = np.exp(weights - weights.max())
            weights /= weights.sum()
            mean = weights @ errors
            covariance = 1.5 * ((errors - mean).T * weights) @ (errors - mean)
            pose = pose + mean
        return pose + self.SHIFT

    def likelihood(self, poses, where, block, light, blur):
        """Logarithm (n,) of how well poses (n, 3) explain the pixels chosen by a mask (96, 96)."""
        block, light = block[where], light[where]
        c, s = np.cos(poses[:, 2:]), np.sin(poses[:, 2:])
        x, y = self.AT[where][:, 0] - poses[:, :1], self.AT[where][:, 1] - poses[:, 1:2]
        inside = -signed_distance(np.stack([c * x + s * y, c * y - s * x], axis=-1))
        is_block, is_light = (np.clip(1.0 / (1.0 + np.exp(np.clip(-(inside + edge) / blur, -20.0, 20.0))), 0.01, 0.99)
                              for edge in (self.EDGE, self.RIM))
        result = block * np.log(is_block) + (1.0 - block) * np.log(1.0 - is_block)
        inner = light * np.log(is_light) + (1.0 - light) * np.log(1.0 - is_light)
        return (result + (block == 1.0) * inner).sum(axis=1)

    def wrong(self, pose, block, clear):
        """Number of pixels that should show the T and do not, or the other way round."""
        inside = signed_distance(to_body(pose - self.SHIFT, self.AT)) < self.EDGE
        return int(np.sum(clear & (block != 0.5) & (inside != (block == 1.0))))


# --- poses and shapes ---

def agent_position(observation):
    """Position (2,) of the agent."""
    return np.array(observation['state'][:2] if 'state' in observation else observation['agent_pos'], float)


def fitted_pose(points):
    """Pose (3,) at which the T's keypoints (8, 2) lie there: the rigid fit of least squares."""
    model, seen = KEYPOINTS - KEYPOINTS.mean(axis=0), points - points.mean(axis=0)
    angle = math.atan2(np.sum(model[:, 0] * seen[:, 1] - model[:, 1] * seen[:, 0]), np.sum(model * seen))
    return np.array([*(points.mean(axis=0) - rotate(KEYPOINTS.mean(axis=0), angle)), angle])


def signed_distance(points):
    """Distance (...) from points (..., 2), seen from the T, to the T's boxes; negative inside."""
    parts = []
    for x0, y0, x1, y1 in BOXES:
        x = np.abs(points[..., 0] - (x0 + x1) / 2) - (x1 - x0) / 2
        y = np.abs(points[..., 1] - (y0 + y1) / 2) - (y1 - y0) / 2
        parts.append(np.hypot(np.maximum(x, 0.0), np.maximum(y, 0.0)) + np.minimum(np.maximum(x, y), 0.0))
    return np.minimum(*parts)


def distance(points):
    """Distance (n,) from points (n, 2), seen from the T, to the T; 0 inside."""
    return np.maximum(signed_distance(points), 0.0)


def coverage(pose):
    """Share of the goal's area that the T at a pose (3,) covers."""
    corners = [to_body(GOAL, to_world(pose, box)).tolist() for box in np.split(KEYPOINTS, 2)]
    return sum(clipped_area(polygon, box) for polygon in corners for box in BOXES.tolist()) / AREA


def clipped_area(corners, box):
    """Area of a convex polygon within a box (Sutherland-Hodgman clipping, shoelace formula)."""
    for axis, bound, sign in ((0, box[0], 1.0), (0, box[2], -1.0), (1, box[1], 1.0), (1, box[3], -1.0)):
        kept = []
        for a, b in zip(corners, corners[1:] + corners[:1]):
            inside_a, inside_b = sign * (a[axis] - bound), sign * (b[axis] - bound)
            if inside_a >= 0.0:
                kept.append(a)
            if inside_a * inside_b < 0.0:
                share = inside_a / (inside_a - inside_b)
                kept.append([a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])])
        corners = kept
    return 0.5 * abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(corners, corners[1:] + corners[:1])))


def wall_cost(poses):
    """Steps (...) that it costs when the T at poses (..., 3) is so near a wall that the agent hardly gets behind."""
    room = np.minimum(poses[..., :2].min(axis=-1), SIZE - poses[..., :2].max(axis=-1))
    return 0.3 * np.maximum(0.0, 110.0 - room) + 20.0 * (room < 80.0)


def on_table(points):
    return np.all((points > 1.0) & (points < SIZE - 1.0), axis=-1)


def distinct(order, shape):
    """The first CANDIDATES (push, length) of a flat order, at most 3 lengths of the same push."""
    taken, found = {}, []
    for push, length in zip(*np.unravel_index(order, shape)):
        taken[push] = taken.get(push, 0) + 1
        if taken[push] <= 3:
            found.append((int(push), int(length)))
            if len(found) == CANDIDATES:
                break
    return found


def stops_along(way, spacing):
    """Points (2,) of a polyline (n, 2), at most `spacing` apart, the farthest first."""
    for start, end in zip(way[-2::-1], way[:0:-1]):
        count = max(1, math.ceil(np.hypot(*(end - start)) / spacing))
        for k in range(count):
            yield end + (start - end) * k / count


def compose(pose, motions):
    """Poses (..., 3) after motions (..., 3) seen from the T at a pose (3,)."""
    c, s = math.cos(pose[2]), math.sin(pose[2])
    x, y, turn = motions[..., 0], motions[..., 1], motions[..., 2]
    return np.stack([pose[0] + c * x - s * y, pose[1] + s * x + c * y, pose[2] + turn], axis=-1)


def to_world(pose, points):
    return pose[:2] + rotate(points, pose[2])


def to_body(pose, points):
    return rotate(points - pose[:2], -pose[2])


def rotate(vectors, angle):
    """Vectors (..., 2) turned by an angle in rad."""
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray(vectors) @ np.array([[c, s], [-s, c]])


def wrap(angle):
    return (angle + math.pi) % (2 * math.pi) - math.pi


# --- how the agent moves: a spring and a damper pull it to its target, whatever it touches ---

def steps_for(length, speed):
    """Steps of a transfer over `length` at about `speed` a step."""
    return int(min(MOST_STEPS, max(2, math.ceil(length / speed) + 1)))


def responses(count):
    """(count, 2, 2): offset from a target that stays and speed, after 1, 2 ... substeps, from those before."""
    once = np.array([[1.0 - STIFFNESS * DT * DT, DT * (1.0 - DAMPING * DT)],
                     [-STIFFNESS * DT, 1.0 - DAMPING * DT]])
    powers = [once]
    while len(powers) < count:
        powers.append(once @ powers[-1])
    return np.array(powers)


def transfer(steps):
    """How to come to rest somewhere within `steps`: linear maps of (offset from there, speed).

    Returns the targets (steps, 2) and the path in all substeps (10 * steps, 2), offsets again. Of all that arrive it is
    the one of least mean square speed, which has a low peak, and of targets that change little.
    """
    state, rows = np.eye(2, 2 + steps), []      # as linear maps of (offset, speed, targets)
    for k in range(steps):
        target = np.zeros((2, 2 + steps))
        target[0, 2 + k] = 1.0
        rows += [response @ (state - target) + target for response in responses(SUBSTEPS)]
        state = rows[-1]
    rows = np.array(rows)
    changes = np.eye(steps, 2 + steps, 2)
    changes[:, :1] -= np.eye(steps, 1)
    changes[1:, 2:] -= np.eye(steps - 1, steps)
    effort = np.vstack([rows[:, 1], 0.3 * changes])
    hessian = effort.T @ effort
    system = np.block([[hessian[2:, 2:], state[:, 2:].T], [state[:, 2:], np.zeros((2, 2))]])
    targets = np.linalg.solve(system, -np.vstack([hessian[2:, :2], state[:, :2]]))[:steps]
    return targets, rows[:, 0, :2] + rows[:, 0, 2:] @ targets


TARGETS, PATHS = zip(*[(None, None)] * 2, *[transfer(steps) for steps in range(2, MOST_STEPS + 1)])
APPROACH = responses(6 * SUBSTEPS)[:, 0]        # the path when the target is the place itself
END_SPEED = responses(SUBSTEPS)[-1][1]          # after a step
