"""The estimated tip force is the one that physics puts on the tool."""

import math

import mujoco
import numpy as np
import pytest

from enpire_bringup.kinematics import ArmKinematics, tool_down
from enpire_bringup.tip_force import TipForce
from enpire_bringup.world import World


class PressingArm:
    """The left arm of a simulated station, over the free table."""

    def __init__(self, station, task):
        self.world = World(station, task)
        self.world.reset(1)     # the T lies elsewhere
        arm = station.arms['left']
        self.joints = arm.joints
        self.kinematics = ArmKinematics(station, 'left')
        self.force = TipForce(station, 'left')
        self.q = np.array(arm.named['home'])

    def estimate(self):
        n = len(self.joints)
        _, positions, velocities, efforts = self.world.joint_state()
        return self.force.observe(self.world.time, positions[:n], velocities[:n], efforts[:n])

    def go(self, pose, ticks):
        """The estimates on the way to a TCP pose."""
        goal = self.kinematics.ik(pose, self.q)
        estimates = []
        for share in np.linspace(0.0, 1.0, ticks):
            self.world.step(dict(zip(self.joints, self.q + share * (goal - self.q))))
            estimates.append(self.estimate())
        self.q = goal
        return np.array(estimates)

    def settle(self):
        return self.go(self.kinematics.fk(self.q), 40)[-1]

    def contact_force(self):
        """The force (3,) N that physics has on the arm's bodies from all others."""
        model, data = self.world.model, self.world._data
        total = np.zeros(3)
        for index, contact in enumerate(data.contact):
            ours = [model.body(model.geom_bodyid[geom]).name.startswith('left_') for geom in contact.geom]
            if ours[0] != ours[1]:
                wrench = np.zeros(6)
                mujoco.mj_contactForce(model, data, index, wrench)
                total += (1 if ours[1] else -1) * contact.frame.reshape(3, 3).T @ wrench[:3]
        return total


@pytest.fixture
def arm(station, task):
    return PressingArm(station, task)


def test_free_arm_feels_nothing_moving_or_standing(arm):
    moving = arm.go(tool_down(0.30, -0.12, 0.08, 0.0), 150)
    assert np.linalg.norm(moving, axis=1).max() < 4.0        # a motion that begins with a jerk
    assert np.linalg.norm(moving[20:], axis=1).max() < 1.0
    assert np.linalg.norm(arm.settle()) < 1.0


def test_pressed_on_the_table_it_feels_what_physics_puts_on_it(arm):
    arm.go(tool_down(0.30, -0.12, 0.02, 0.0), 150)
    for depth in (0.010, 0.030):
        arm.go(tool_down(0.30, -0.12, -depth, 0.0), 60)
        estimate, true = arm.settle(), arm.contact_force()
        assert true[2] > 5.0
        np.testing.assert_allclose(estimate, true, atol=0.8 + 0.06 * np.linalg.norm(true))


def test_reading_that_is_no_number_gives_no_force_and_is_forgotten_with_the_next(arm):
    arm.settle()
    n = len(arm.joints)
    _, positions, velocities, efforts = (values[:n] for values in arm.world.joint_state())
    for bad in (math.nan, math.inf):
        broken = efforts.copy()
        broken[2] = bad
        assert np.isnan(arm.force.observe(arm.world.time, positions, velocities, broken)).all()
        broken = velocities.copy()
        broken[2] = bad
        assert np.isnan(arm.force.observe(arm.world.time, positions, broken, efforts)).all()
    assert np.linalg.norm(arm.settle()) < 1.0


def test_force_is_estimated_where_a_stretched_arm_can_feel_it_and_stays_finite(station):
    arm = station.arms['left']
    force = TipForce(station, 'left')
    zero = np.zeros(len(arm.joints))
    for q in (zero, np.array(arm.named['home'])):
        free = force.estimate(q, zero, zero, zero)
        assert np.isfinite(free).all()
