"""Distances between the arms, the table and the boxes of a station. No ROS.

Shapes are the collision shapes of the robot description (pinocchio and coal), the table is what is below z = 0 in
"world", boxes come from the station file and the task file. Which pairs of bodies are looked at:

* Two arms: every link of one with every link of the other, two fixed bases left out.
* One arm with itself: links that at least two of its joints move against each other. Pairs that overlap at a named
  position of the station file or nearly everywhere are a matter of coarse shapes; pairs that never come near each
  other need no look. Both are found once from random joint positions, as MoveIt's setup assistant does it.
* Arm with table: all that the arm's joints move, except what overlaps at a named position; bases stand in the table
  by design.
* Arm with box: all that the arm's joints move.

Clearances differ: the tool (whatever is beyond the last arm joint) has to work a few millimeters above the table,
nothing else has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence

import coal
import numpy as np
import pinocchio as pin

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.obstacles import Obstacle
from enpire_bringup.robot_description import collision_geometry, robot_description
from enpire_bringup.station import Station

TABLE = 'table'
TABLE_SIZE = (10.0, 10.0, 1.0)   # m: wider than any arm reaches
SAMPLES = 1000             # random joint positions of an arm from which its own pairs are chosen
ALWAYS = 0.95              # share of them in which a pair overlaps that is overlapping by its coarse shapes
NEVER = 0.015              # m: a pair that stays farther apart in all of them is not looked at
FAR = 0.12                 # m beyond which the distance between arms may be given by their bounding capsules
PLACES = 6                 # of other arms in one set of pairs: making its memory holds the interpreter, 10 ms for these
UNBOUNDED = 1000.0         # m: no distance, because there is no pair


@dataclass(frozen=True)
class Clearance:
    """Least distances in m, by what is near what. A negative one allows that much overlap.

    tool_table and tool_boxes are for the tool, table and boxes for all other links that move.
    """

    arms: float = 0.0
    self: float = 0.0
    table: float = 0.0
    tool_table: float = 0.0
    boxes: float = 0.0
    tool_boxes: float = 0.0


@dataclass(frozen=True)
class Proximity:
    """Distance (m, negative: depth of overlap) and the two nearest bodies: links, "table", "box <name>"."""

    distance: float
    bodies: tuple[str, str]

    def __str__(self) -> str:
        first, second = self.bodies
        if self.distance <= 0.0:
            return f'{first} touches {second}'
        return f'{first} comes within {self.distance * 1000:.0f} mm of {second}'


@dataclass(frozen=True)
class _Pair:
    """Two geometries, and the field of Clearance that holds for them."""

    first: int
    second: int
    kind: str


class CollisionModel:
    """Arms, table and boxes of one station; joint positions q (n,) are in the order of `Station.joints`.

    task: its boxes are added. Keeps scratch memory: use one instance a thread.
    Raises ConfigurationError for a joint or a base frame that the robot description lacks.
    """

    def __init__(self, station: Station, task: ArmTask | None = None):
        self._bodies = _bodies_of(station, task)
        between = [pair for pair in self._bodies.pairs if pair.kind == 'arms']
        self._all = _PairSet(self._bodies, self._bodies.geometry, self._bodies.names, self._bodies.pairs)
        self._between = _PairSet(self._bodies, self._bodies.geometry, self._bodies.names, between)
        self._between_bounds = _PairSet(self._bodies, self._bodies.bounds, self._bodies.names, between)
        self._q = pin.neutral(self._bodies.model)

    def distance(self, q: Sequence[float]) -> Proximity:
        """The nearest two bodies."""
        return self._all.nearest(self._full(q))

    def arm_distance(self, q: Sequence[float]) -> Proximity:
        """The nearest links of two different arms; UNBOUNDED m on a station with one arm.

        Cheap: beyond FAR it is the distance of capsules around the links, which is never more than the true one.
        """
        full = self._full(q)
        bound = self._between_bounds.nearest(full)
        return bound if bound.distance > FAR else self._between.nearest(full)

    def in_collision(self, q: Sequence[float]) -> bool:
        """Whether any two bodies overlap."""
        return self._all.collide(self._full(q))

    def _full(self, q: Sequence[float]) -> np.ndarray:
        self._q[self._bodies.order] = q
        return self._q


class ArmScene:
    """What one arm has to keep clear of: itself, the table, boxes, and the other arms wherever they may be.

    positions: joint positions (k, n) of the whole station, in the order of `Station.joints`, k >= 1. The other arms
    stand at all of them at once; the arm's own gripper is as in the first.
    Its joint positions q are those of the arm alone, in the station file's order. Keeps scratch memory.
    """

    def __init__(self, station: Station, task: ArmTask | None, arm: str, positions: Sequence[Sequence[float]],
                 clearance: Clearance):
        bodies = _bodies_of(station, task)
        positions = np.atleast_2d(np.asarray(positions, float))
        self._sets = []
        for begin in range(0, len(positions), PLACES):
            pairs = bodies.pairs_of(arm) if begin == 0 else []
            self._sets.append(_PairSet(
                bodies, *bodies.with_fixed_others(arm, positions[begin:begin + PLACES], pairs), clearance))
        self._q = pin.neutral(bodies.model)
        self._q[bodies.order] = positions[0]
        start = station.joints.index(station.arms[arm].joints[0])
        self._own = bodies.order[start:start + len(station.arms[arm].joints)]

    def in_collision(self, q: Sequence[float]) -> bool:
        """Whether the arm is nearer to anything than the clearance."""
        self._q[self._own] = q
        return any(pairs.collide(self._q) for pairs in self._sets)

    def too_near(self, q: Sequence[float]) -> list[Proximity]:
        """All pairs of bodies nearer to each other than the clearance, the worst first, each pair of bodies once."""
        self._q[self._own] = q
        short = sorted((near for pairs in self._sets for near in pairs.too_near(self._q)), key=lambda near: near[0])
        found: dict[tuple[str, str], Proximity] = {}
        for _, proximity in short:
            found.setdefault(proximity.bodies, proximity)
        return list(found.values())

    def allow_present_distances(self, q: Sequence[float], slack: float) -> None:
        """Let pairs be as near to each other as they are at q, and `slack` (m) nearer: for a motion that has to begin
        too near to something."""
        self._q[self._own] = q
        for pairs in self._sets:
            pairs.relax(self._q, slack)


class _PairSet:
    """Pairs of geometries with the scratch memory to look at them."""

    def __init__(self, bodies: '_Bodies', geometry: pin.GeometryModel, names: list[str], pairs: list[_Pair],
                 clearance: Clearance = Clearance()):
        self._names = names
        self._model = bodies.model
        self._data = bodies.model.createData()
        self._geometry = geometry.copy()
        self._geometry.removeAllCollisionPairs()
        for pair in pairs:
            self._geometry.addCollisionPair(pin.CollisionPair(pair.first, pair.second))
        self._scratch = self._geometry.createData()
        self._pairs = pairs
        self._clearances = np.array([getattr(clearance, pair.kind) for pair in pairs])
        self._set_margins(self._clearances)

    def nearest(self, q: np.ndarray) -> Proximity:
        if not self._pairs:
            return Proximity(UNBOUNDED, ('', ''))
        index = pin.computeDistances(self._model, self._data, self._geometry, self._scratch, q)
        return self._proximity(index)

    def collide(self, q: np.ndarray) -> bool:
        # Trees of bounding boxes, clearances included, leave out what is far apart.
        return bool(self._pairs) and pin.computeCollisions(self._model, self._data, self._tree, q, True)

    def too_near(self, q: np.ndarray) -> list[tuple[float, Proximity]]:
        """What is nearer than its clearance, and by how much (m, negative)."""
        short = self.distances(q) - self._clearances
        return [(float(short[index]), self._proximity(int(index))) for index in np.flatnonzero(short < 0.0)]

    def relax(self, q: np.ndarray, slack: float) -> None:
        self._set_margins(np.minimum(self._clearances, self.distances(q) - slack))

    def distances(self, q: np.ndarray) -> np.ndarray:
        """Distance (pairs,) m of every pair."""
        if self._pairs:
            pin.computeDistances(self._model, self._data, self._geometry, self._scratch, q)
        return np.array([result.min_distance for result in self._scratch.distanceResults])

    def _set_margins(self, margins: np.ndarray) -> None:
        for request, margin in zip(self._scratch.collisionRequests, margins):
            request.security_margin = float(margin)
        # A tree for each joint: with a single one, all that is fixed would be looked at against one another.
        self._tree = pin.TreeBroadPhaseManager_DynamicAABBTreeCollisionManager(self._model, self._geometry,
                                                                               self._scratch)

    def _proximity(self, index: int) -> Proximity:
        pair = self._pairs[index]
        return Proximity(self._scratch.distanceResults[index].min_distance,
                         (self._names[pair.first], self._names[pair.second]))


@dataclass(frozen=True)
class _ArmLinks:
    """What of an arm decides about its bodies."""

    name: str
    base_frame: str
    joints: tuple[str, ...]
    gripper_joint: str
    gripper_closed: float
    named: tuple[tuple[str, tuple[float, ...]], ...]


def _arm_links(station: Station) -> tuple[_ArmLinks, ...]:
    return tuple(_ArmLinks(arm.name, arm.base_frame, arm.joints, arm.gripper.joint, arm.gripper.closed,
                           tuple(arm.named.items())) for arm in station.arms.values())


class _Bodies:
    """All bodies of a station: pinocchio's model, the geometries, what each belongs to, and the pairs to look at.

    Raises ConfigurationError for a joint or a base frame that the robot description lacks.
    """

    def __init__(self, urdf: str, arms: tuple[_ArmLinks, ...], obstacles: tuple[Obstacle, ...]):
        self.model = pin.buildModelFromXML(urdf, mimic=True)
        self.geometry = collision_geometry(self.model, urdf)
        self._joint_ids = {joint: self._joint_id(arm, joint) for arm in arms
                           for joint in (*arm.joints, arm.gripper_joint)}
        self.order = np.array([self.model.joints[index].idx_q for index in self._joint_ids.values()])
        self._arm_joints = {arm.name: {self._joint_ids[joint] for joint in arm.joints} for arm in arms}
        self._bases = {self._frame_id(arm): arm.name for arm in arms}
        shapes = self.geometry.geometryObjects
        self.names = [self.model.frames[shape.parentFrame].name for shape in shapes]
        self._parents = [shape.parentJoint for shape in shapes]
        self._arms = [self._arm_of(shape.parentFrame) for shape in shapes]
        # A box, because the tree of bounding boxes cannot hold a half-space.
        self._add_fixed(TABLE, coal.Box(*TABLE_SIZE), pin.SE3(np.eye(3), np.array([0.0, 0.0, -TABLE_SIZE[2] / 2])))
        for box in obstacles:
            self._add_fixed(f'box {box.name}', coal.Box(*box.size),
                            pin.SE3(pin.rpy.rpyToMatrix(*box.rpy), np.array(box.xyz)))
        self.bounds = _bounding_capsules(self.geometry)
        self.pairs = self._choose_pairs(self._named_positions(arms))

    def pairs_of(self, arm: str) -> list[_Pair]:
        """What one arm has to keep clear of but for other arms."""
        return [pair for pair in self.pairs if pair.kind != 'arms' and arm in (self._arms[pair.first],
                                                                               self._arms[pair.second])]

    def with_fixed_others(self, arm: str, positions: np.ndarray, pairs: list[_Pair]
                          ) -> tuple[pin.GeometryModel, list[str], list[_Pair]]:
        """Geometries and their names with the other arms fixed at all positions (k, n), and `pairs` with those pairs
        that these add for one arm: see ArmScene."""
        geometry, names, pairs = self.geometry.copy(), list(self.names), list(pairs)
        own = [index for index, owner in enumerate(self._arms) if owner == arm]
        moving = [index for index in own if self._parents[index]]
        others = [index for index, owner in enumerate(self._arms) if owner not in (arm, None)]
        q = pin.neutral(self.model)
        data, placements = self.model.createData(), self.geometry.createData()
        for number, row in enumerate(positions):
            q[self.order] = row
            pin.updateGeometryPlacements(self.model, data, self.geometry, placements, q)
            for index in others:
                if number and not self._parents[index]:
                    continue    # a base stands at the same place each time
                fixed = pin.GeometryObject(f'{geometry.ngeoms}', 0, 0, placements.oMg[index],
                                           self.geometry.geometryObjects[index].geometry)
                names.append(self.names[index])
                pairs += [_Pair(mine, geometry.ngeoms, 'arms') for mine in moving]
                geometry.addGeometryObject(fixed)
        return geometry, names, pairs

    def _joint_id(self, arm: _ArmLinks, joint: str) -> int:
        if not self.model.existJointName(joint):
            raise ConfigurationError(f"arms.{arm.name} names the joint '{joint}', which the robot description lacks")
        return self.model.getJointId(joint)

    def _frame_id(self, arm: _ArmLinks) -> int:
        if not self.model.existFrame(arm.base_frame):
            raise ConfigurationError(f"arms.{arm.name}.base_frame is '{arm.base_frame}', no link of the robot "
                                     'description')
        return self.model.getFrameId(arm.base_frame)

    def _arm_of(self, frame: int) -> str | None:
        while frame > 0:
            if frame in self._bases:
                return self._bases[frame]
            frame = self.model.frames[frame].parentFrame
        return None

    def _add_fixed(self, name: str, shape, placement: pin.SE3) -> None:
        self.geometry.addGeometryObject(pin.GeometryObject(name, 0, 0, placement, shape))
        self.names.append(name)
        self._parents.append(0)
        self._arms.append(None)

    # -- which pairs

    def _choose_pairs(self, named: list[np.ndarray]) -> list[_Pair]:
        sure, to_look_at = [], []
        for first in range(len(self.names)):
            for second in range(first + 1, len(self.names)):
                pair = self._pair(first, second)
                if pair is not None:
                    (to_look_at if pair.kind in ('self', 'table', 'tool_table') else sure).append(pair)
        return sure + self._meaningful(to_look_at, named)

    def _pair(self, first: int, second: int) -> _Pair | None:
        if not (self._parents[first] or self._parents[second]):
            return None
        arms = self._arms[first], self._arms[second]
        if None not in arms:
            if arms[0] != arms[1]:
                return _Pair(first, second, 'arms')
            return _Pair(first, second, 'self') if self._arm_joints_between(first, second) > 1 else None
        if self.names[second] == TABLE:
            return _Pair(first, second, 'tool_table' if self._is_tool(first) else 'table')
        return _Pair(first, second, 'tool_boxes' if self._is_tool(first) or self._is_tool(second) else 'boxes')

    def _arm_joints_between(self, first: int, second: int) -> int:
        """How many joints of their arm move one geometry against the other."""
        joints = self._arm_joints[self._arms[first]]
        supports = [joints & set(self.model.supports[self._parents[index]]) for index in (first, second)]
        return len(supports[0] ^ supports[1])

    def _is_tool(self, index: int) -> bool:
        arm = self._arms[index]
        return arm is not None and self._arm_joints[arm] <= set(self.model.supports[self._parents[index]])

    def _meaningful(self, pairs: list[_Pair], named: list[np.ndarray]) -> list[_Pair]:
        """Those of the pairs within an arm, and with the table, that tell something; see the module's text."""
        looked = _PairSet(self, self.geometry, self.names, pairs)
        by_design = np.min([looked.distances(q) for q in named], axis=0) < 0.0
        sampled = np.array([looked.distances(q) for q in self._random_positions(SAMPLES)])
        always = (sampled < 0.0).mean(axis=0) > ALWAYS
        never = sampled.min(axis=0) > NEVER
        return [pair for pair, *not_needed in zip(pairs, by_design, always, never) if not any(not_needed)]

    def _named_positions(self, arms: tuple[_ArmLinks, ...]) -> list[np.ndarray]:
        """q (nq,) for each named position of each arm, the other arms at home, grippers closed."""
        home = {arm.name: dict(arm.named)['home'] for arm in arms}

        def full(positions: dict[str, tuple[float, ...]]) -> np.ndarray:
            q = pin.neutral(self.model)
            q[self.order] = [value for arm in arms for value in (*positions[arm.name], arm.gripper_closed)]
            return q

        return [full({**home, arm.name: positions}) for arm in arms for _, positions in arm.named]

    def _random_positions(self, count: int) -> np.ndarray:
        """Joint positions (count, nq), always the same ones."""
        low, high = self.model.lowerPositionLimit, self.model.upperPositionLimit
        low, high = np.where(np.isfinite(low), low, -np.pi), np.where(np.isfinite(high), high, np.pi)
        return np.random.default_rng(0).uniform(low, high, (count, self.model.nq))


def _bodies_of(station: Station, task: ArmTask | None) -> _Bodies:
    """The bodies of a station and a task; choosing the pairs takes half a second, once in a process."""
    return _cached_bodies(robot_description(station), _arm_links(station),
                          station.obstacles + (task.obstacles if task is not None else ()))


_cached_bodies = lru_cache(maxsize=4)(_Bodies)


def _bounding_capsules(geometry: pin.GeometryModel) -> pin.GeometryModel:
    """The same geometries, boxes and cylinders replaced by the capsules around them, whose distances are cheap."""
    bounds = geometry.copy()
    for shape in bounds.geometryObjects:
        solid = shape.geometry
        if isinstance(solid, coal.Box):
            half = np.array(solid.halfSide)
            axis = int(np.argmax(half))
            turn = pin.SE3(pin.Quaternion.FromTwoVectors(np.array([0.0, 0.0, 1.0]), np.eye(3)[axis]), np.zeros(3))
            shape.placement = shape.placement * turn
            shape.geometry = coal.Capsule(float(np.linalg.norm(np.delete(half, axis))), float(2.0 * half[axis]))
        elif isinstance(solid, coal.Cylinder):
            shape.geometry = coal.Capsule(solid.radius, 2.0 * solid.halfLength)
    return bounds
