"""The simulated station's cameras: draws what somebody looks at. Its own process, beside the 100 Hz loop."""

from __future__ import annotations

import threading

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float64MultiArray
from tf2_msgs.msg import TFMessage

from enpire_bringup.camera_model import PinholeCamera, optical_pose
from enpire_bringup.control_ticks import is_policy_tick
from enpire_bringup.node_group import run_single
from enpire_bringup.serialized_messages import ImageWriter, read_numbers
from enpire_bringup.station import Camera
from enpire_bringup.station_node import IMAGE_QOS, STATE_QOS, StationNode
from enpire_bringup.transform_messages import TF_STATIC_QOS, transform_message
from enpire_bringup.world import Renderer

SUBSCRIBER_CHECK = 0.1    # s of wall time


class SimCameras(StationNode):
    """Publishes image, aligned depth and camera_info of every camera that has subscribers, and where the cameras
    are (as the station file says: what a seed changes about them nobody is told).

    A frame that comes due before the one before it is drawn takes its place: late is worse than lost.
    """

    def __init__(self, **kwargs):
        super().__init__('sim_cameras', **kwargs)
        self.set_parameters([Parameter('use_sim_time', value=False)])   # stamps come with the states
        self._cameras = {name: _CameraTopics(self, camera) for name, camera in self.station.cameras.items()}
        self._subscription = None
        self._wanted: set[str] = set()      # cameras that somebody has subscribed to
        self._condition = threading.Condition()
        self._due: dict[str, tuple[float, np.ndarray]] = {}
        self._stopping = False
        self._failure: Exception | None = None
        self._failure_signal = self.create_guard_condition(self._raise_failure)
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._draw, name='renderer', daemon=True)
        self._thread.start()
        self._frames = self.create_publisher(TFMessage, 'tf_static', TF_STATIC_QOS)
        self._frames.publish(TFMessage(transforms=[
            transform_message(camera.parent, camera.optical_frame, optical_pose(camera), Time())
            for camera in self.station.cameras.values()]))
        # OpenGL belongs to the thread that draws. Whether it works is said now, not at the first image.
        if not self._opened.wait(30.0):
            self._failure = self._failure or TimeoutError('opening the renderer took more than 30 s')
        if self._failure is not None:
            self.destroy_node()
            raise self._failure
        self.create_timer(SUBSCRIBER_CHECK, self._look_for_subscribers,
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _look_for_subscribers(self) -> None:
        self._wanted = {name for name, camera in self._cameras.items() if camera.wanted}
        if self._wanted and self._subscription is None:
            self._subscription = self.create_subscription(
                Float64MultiArray, 'sim/world_state', self._on_state, STATE_QOS, raw=True)
        elif not self._wanted and self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None

    def _on_state(self, data: bytes) -> None:
        numbers = read_numbers(data)
        stamp, state = float(numbers[0]), numbers[1:]
        tick = round(stamp * self.station.control_rate)
        due = [name for name in self._wanted
               if is_policy_tick(tick, self.station.cameras[name].rate, self.station.control_rate)]
        with self._condition:
            for name in due:
                self._due[name] = (stamp, state)
            self._condition.notify()

    def _draw(self) -> None:
        try:
            renderer = Renderer(self.station, self.task)
            self.get_logger().info(f'renderer: {renderer.backend}')
            self._opened.set()
            while True:
                with self._condition:
                    self._condition.wait_for(lambda: self._due or self._stopping)
                    if self._stopping:
                        return
                    name = min(self._due, key=lambda name: self._due[name][0])
                    stamp, state = self._due.pop(name)
                self._cameras[name].draw(renderer, stamp, state)
        except Exception as error:
            if not self._stopping:
                self._failure = error
                self._failure_signal.trigger()
        finally:
            self._opened.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def destroy_node(self):
        if hasattr(self, '_thread'):
            with self._condition:
                self._stopping = True
                self._condition.notify()
            self._thread.join(timeout=1.0)
        super().destroy_node()


class _CameraTopics:
    """What one camera publishes; only what somebody has subscribed to is drawn."""

    def __init__(self, node: SimCameras, camera: Camera):
        self._name = camera.name
        self._image = node.create_publisher(Image, camera.image_topic, IMAGE_QOS)
        self._depth = node.create_publisher(Image, camera.depth_topic, IMAGE_QOS)
        self._infos = [node.create_publisher(CameraInfo, topic, IMAGE_QOS)
                       for topic in (camera.info_topic, camera.depth_info_topic)]
        self._image_writer = ImageWriter(camera.optical_frame, camera.height, camera.width, 'rgb8')
        self._depth_writer = ImageWriter(camera.optical_frame, camera.height, camera.width, '16UC1')
        self._info = CameraInfo(**PinholeCamera.from_station(camera).info())
        self._info.header.frame_id = camera.optical_frame

    @property
    def wanted(self) -> bool:
        return any(publisher.get_subscription_count() for publisher in (self._image, self._depth, *self._infos))

    def draw(self, renderer: Renderer, stamp: float, state: np.ndarray) -> None:
        """Draw and publish the frame of a world state. stamp: s."""
        nanoseconds = round(stamp * 1e9)
        color, depth = (bool(publisher.get_subscription_count()) for publisher in (self._image, self._depth))
        image, distances = None, None
        if color or depth:
            image, distances = renderer.look(self._name, state, color=color, depth=depth)
        if image is not None:
            self._image.publish(self._image_writer.write(nanoseconds, image))
        if distances is not None:
            self._depth.publish(self._depth_writer.write(nanoseconds, _millimetres(distances)))
        info = self._info
        info.header.stamp.sec, info.header.stamp.nanosec = divmod(nanoseconds, 1_000_000_000)
        for publisher in self._infos:
            if publisher.get_subscription_count():
                publisher.publish(info)


def _millimetres(distances: np.ndarray) -> np.ndarray:
    """16UC1 of distances in m: 0 where there is none that fits, as depth cameras say it."""
    millimetres = np.round(1000.0 * distances)
    return np.where(millimetres < 65535, millimetres, 0).astype(np.uint16)


def main() -> None:
    run_single(SimCameras)


if __name__ == '__main__':
    main()
