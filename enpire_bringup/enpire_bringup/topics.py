"""The topics of a station as data: name relative to its namespace, type, and who has it when.

docs/architecture.md says what each means. `enpire status`, the RViz configuration and their tests read this list.
"""

from __future__ import annotations

from dataclasses import dataclass

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.gym_task import GymTask
from enpire_bringup.station import Station
from enpire_bringup.task import Task


VIEW_TOPIC = 'view_camera/color/image_raw'      # a Gymnasium environment as it draws itself


@dataclass(frozen=True)
class Topic:
    """steady: flows at all times while the station is up. latched: said once, for those who come later.

    on_demand: published while somebody subscribes, which costs the station work.
    """

    name: str
    type: str
    steady: bool = False
    latched: bool = False
    on_demand: bool = False


def station_topics(station: Station, task: Task) -> list[Topic]:
    """Every topic that a person or a program outside the station may want to listen to."""
    research = [
        Topic('station_status', 'enpire_msgs/msg/StationStatus', steady=True, latched=True),
        Topic('trial_results', 'enpire_msgs/msg/TrialResult', latched=True),
        Topic('agent_events', 'enpire_msgs/msg/AgentEvent', latched=True),
        Topic('kept_recipes', 'enpire_msgs/msg/Recipe', latched=True),
    ]
    if isinstance(task, GymTask):
        return research + [
            Topic('observation', 'enpire_msgs/msg/Observation'),
            Topic('policy_action', 'enpire_msgs/msg/PolicyAction'),
            Topic('verdict', 'enpire_msgs/msg/Verdict'),
            Topic(VIEW_TOPIC, 'sensor_msgs/msg/Image', on_demand=True),
        ]
    return research + _arm_topics(station, task)


def _arm_topics(station: Station, task: ArmTask) -> list[Topic]:
    topics = [
        Topic('clock', 'rosgraph_msgs/msg/Clock', steady=station.backend == 'sim'),
        Topic('joint_states', 'sensor_msgs/msg/JointState', steady=True),
        Topic('joint_commands', 'sensor_msgs/msg/JointState', on_demand=True),
        Topic('object_poses', 'enpire_msgs/msg/ObjectPose', steady=True),
        Topic('verdict', 'enpire_msgs/msg/Verdict', steady=True),
        Topic('tf', 'tf2_msgs/msg/TFMessage', steady=True),
        Topic('tf_static', 'tf2_msgs/msg/TFMessage', latched=True),
        Topic('robot_description', 'std_msgs/msg/String', latched=True),
        Topic('guard_status', 'diagnostic_msgs/msg/DiagnosticStatus', latched=True),
        Topic('camera_status', 'diagnostic_msgs/msg/DiagnosticStatus', latched=True),
        Topic('reset/last_view', 'sensor_msgs/msg/Image', latched=True),
        Topic('planned_path', 'nav_msgs/msg/Path', latched=True),
        Topic('markers', 'visualization_msgs/msg/MarkerArray', latched=True, on_demand=True),
    ]
    topics += [Topic(f'{arm}/servo', 'geometry_msgs/msg/PoseStamped') for arm in station.arms]
    for camera in station.cameras.values():
        topics += [Topic(camera.image_topic, 'sensor_msgs/msg/Image', on_demand=True),
                   Topic(camera.info_topic, 'sensor_msgs/msg/CameraInfo', on_demand=True),
                   Topic(camera.depth_topic, 'sensor_msgs/msg/Image', on_demand=True),
                   Topic(camera.depth_info_topic, 'sensor_msgs/msg/CameraInfo', on_demand=True)]
    topics += [Topic(f'{camera}_camera/overlay', 'sensor_msgs/msg/Image', on_demand=True)
               for camera in dict.fromkeys(item.camera for item in task.objects.values())]
    return topics
