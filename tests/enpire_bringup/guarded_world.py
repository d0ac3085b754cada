"""A simulated station with its controller and its guard in one process: what the guard's tests drive at full speed."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np

from enpire_bringup.arm_extent import ArmExtent
from enpire_bringup.collision_model import CollisionModel
from enpire_bringup.guarded_arms import GuardedArms, ServoTarget
from enpire_bringup.kinematics import ArmKinematics, tool_down
from enpire_bringup.trajectory_controller import StationMotion
from enpire_bringup.world import World, is_policy_tick

DELAY = 2     # ticks of 10 ms from a joint state until what the guard says to it reaches the controller


class GuardedWorld:
    """World, trajectory controller and guard, one tick after the other.

    limits: changes of the station's safety limits. positions, velocities, efforts (rad, m, N m), tips (m) and forces
    (N on the table): what really happened, one entry a tick.
    """

    def __init__(self, station, task, arm='left', **limits):
        self.station = replace(station, safety=replace(station.safety, **limits))
        self.world = World(self.station, task)
        self.world.reset(1)
        self.motion = StationMotion(self.station)
        self.statuses = []
        self._due = []
        self.guard = GuardedArms(self.station, self.station.safety, send=self._send, changed=self.statuses.append,
                                 lockstep=True)
        self.arm = arm
        self._part = self.station.arm_slice(arm)
        self.kinematics = ArmKinematics(self.station, arm)
        self.deaf = False               # whether joint states are kept from the guard
        self.blind = lambda state: state   # what the guard is told instead of the state measured
        self.positions, self.velocities, self.efforts, self.tips, self.forces = [], [], [], [], []
        self.tick()

    @property
    def q(self):
        """Measured joint positions (n,) of the arm."""
        return self.positions[-1][self._part]

    def _send(self, name, command, stamp):
        due = self.world.tick + (0 if stamp else DELAY)
        self._due.append((due, name, stamp, command))

    def tick(self, servo=None):
        """One control tick. servo: a TCP pose (4, 4) that is streamed now, at a policy step."""
        world = self.world
        _, p, v, e = world.joint_state()
        stamp = world.stamp_ns
        self.positions.append(p)
        self.velocities.append(v)
        self.efforts.append(e)
        self.tips.append(world.frame_pose(self.station.arms[self.arm].tcp_frame)[:3, 3])
        self.forces.append(self._force_on_table())
        self._told = stamp
        self.motion.observe(stamp, p.tolist(), v.tolist(), e.tolist())
        if not self.deaf:
            self.guard.observe(stamp, *self.blind((p.tolist(), v.tolist(), e.tolist())))
        if servo is not None and world.is_policy_tick(self.station.policy_rate):
            self.guard.servo(self.arm, ServoTarget(servo, 'world', stamp))
        for entry in [entry for entry in self._due if entry[0] <= world.tick]:
            self._due.remove(entry)
            _, name, answered, command = entry
            self.motion.arms[name].follow(self.motion.now, answered, command.points)
        targets, speeds, efforts = self.motion.command(p.tolist(), v.tolist())
        joints = self.station.joints
        grippers = {arm.gripper.joint for arm in self.station.arms.values()}
        world.step(dict(zip(joints, targets)), {j: e for j, e in zip(joints, efforts) if j in grippers},
                   dict(zip(joints, speeds)))

    def run(self, seconds, servo=None, until=lambda: False):
        """Ticks; servo: pose, or function of the time (s) that gives one."""
        for step in range(round(seconds * 100)):
            if until():
                return
            self.tick(servo(step / 100) if callable(servo) else servo)

    def follow(self, points, arm=None):
        """Straight to the controller, past the guard: [(s from now, joint positions)]."""
        points = [(t, list(map(float, q)), None) for t, q in points]
        self.motion.arms[arm or self.arm].follow(self.motion.now, 0, points)

    def repeat_last(self):
        """Everything that the guard was told in the last tick once more, with another target where there was one."""
        state = [values[-1].tolist() for values in (self.positions, self.velocities, self.efforts)]
        self.guard.observe(self._told, *state)
        if is_policy_tick(self.world.tick - 1, self.station.policy_rate, self.station.control_rate):
            self.guard.servo(self.arm, ServoTarget(tool_down(0.5, 0.2, 0.2, 1.0), 'world', self._told))

    def lowest(self):
        """Height (m) of the lowest point of the arm over all ticks."""
        extent = ArmExtent(self.station, self.arm)
        return min(extent.at(p[self._part]).lowest for p in self.positions)

    def _force_on_table(self):
        """N between the arm and the table."""
        model, data = self.world.model, self.world._data
        table, total = model.geom('table').id, 0.0
        for index in range(data.ncon):
            contact = data.contact[index]
            if table in contact.geom:
                other = model.geom_bodyid[contact.geom[0] + contact.geom[1] - table]
                if model.body(other).name.startswith(self.arm):
                    force = np.empty(6)
                    mujoco.mj_contactForce(model, data, index, force)
                    total += force[0]
        return total

    def clear(self):
        return self.guard.clear()

    def arm_distance(self):
        """Least distance (m) between the arms over all ticks."""
        model = CollisionModel(self.station)
        return min(model.arm_distance(p).distance for p in self.positions)


