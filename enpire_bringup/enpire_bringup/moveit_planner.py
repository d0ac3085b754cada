"""Joint-space paths by MoveIt, through moveit_py; only for machines where that is installed. No ROS of ours.

MoveIt gets the robot with its groups (moveit_configuration.py), the table and the boxes, and the joints as they are. Of
where the other arms are about to go it knows nothing: whoever asks checks the path.
"""

from __future__ import annotations

import threading

import numpy as np
import pinocchio as pin
from geometry_msgs.msg import Pose
from moveit.core.robot_state import RobotState
from moveit.planning import MoveItPy
from moveit_msgs.msg import CollisionObject
from shape_msgs.msg import SolidPrimitive

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.collision_model import TABLE, TABLE_SIZE
from enpire_bringup.kinematics import quaternion_of
from enpire_bringup.moveit_configuration import moveit_parameters
from enpire_bringup.obstacles import Obstacle
from enpire_bringup.path_planner import NoPathError, PathQuestion
from enpire_bringup.robot_description import WORLD
from enpire_bringup.station import Station

NODE = 'arm_control_moveit'


class MoveItPlanner:
    """See PathPlanner."""

    name = 'moveit_py'

    def __init__(self, station: Station, task: ArmTask | None):
        parameters = moveit_parameters(station)
        # The joints come with every question: there is no state to wait for.
        parameters['planning_scene_monitor_options']['wait_for_initial_state_timeout'] = 0.0
        self._moveit = MoveItPy(node_name=NODE, config_dict=parameters, provide_planning_service=False)
        self._components = {name: self._moveit.get_planning_component(name) for name in station.arms}
        self._one_at_a_time = threading.Lock()
        table = Obstacle(TABLE, TABLE_SIZE, (0.0, 0.0, -TABLE_SIZE[2] / 2), (0.0, 0.0, 0.0))
        with self._moveit.get_planning_scene_monitor().read_write() as scene:
            for box in (table, *station.obstacles, *(task.obstacles if task is not None else ())):
                scene.apply_collision_object(_collision_object(box))
            for arm in station.arms.values():
                # Bases stand in the table by design.
                scene.allowed_collision_matrix.set_entry(arm.base_frame, TABLE, True)
            scene.current_state.update()

    def plan(self, question: PathQuestion) -> np.ndarray:
        """Waypoints (m, n). Raises NoPathError."""
        component = self._components[question.arm]
        with self._one_at_a_time:
            component.set_start_state(robot_state=self._state(question, question.start))
            component.set_goal_state(robot_state=self._state(question, question.goal))
            outcome = component.plan()
        if not outcome:
            raise NoPathError(f'MoveIt found no path: error code {outcome.error_code.val}')
        path = outcome.trajectory.get_robot_trajectory_msg().joint_trajectory
        names = list(path.joint_names)
        columns = [names.index(joint) for joint in question.joints]
        waypoints = np.array([[point.positions[column] for column in columns] for point in path.points])
        return np.vstack([question.start, waypoints[1:-1], question.goal])

    def _state(self, question: PathQuestion, q: np.ndarray) -> RobotState:
        state = RobotState(self._moveit.get_robot_model())
        state.joint_positions = {**question.present, **dict(zip(question.joints, q.tolist()))}
        state.update()
        return state


def _collision_object(box: Obstacle) -> CollisionObject:
    message = CollisionObject(id=box.name, operation=CollisionObject.ADD)
    message.header.frame_id = WORLD
    message.primitives = [SolidPrimitive(type=SolidPrimitive.BOX, dimensions=list(box.size))]
    turned = np.eye(4)
    turned[:3, :3] = pin.rpy.rpyToMatrix(*box.rpy)
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = box.xyz
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = quaternion_of(turned)
    message.primitive_poses = [pose]
    return message
