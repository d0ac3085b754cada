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
from enpire_bringup.image_messages import fill_image
from enpire_bringup.node_group import run_single
from enpire_bringup.station import Camera
from enpire_bringup.station_node import IMAGE_QOS, STATE_QOS, StationNode
from enpire_bringup.transform_messages import TF_STATIC_QOS, transform_message
from enpire_bringup.world import Renderer

SUBSCRIBER_CHECK = 0.1    # s of wall time


class SimCameras(StationNode):
    """Publishes image and camera_info of every camera that has subscribers, and where the cameras are.

    A frame that comes due before the one before it is drawn takes its place: late is worse than lost.
    """

    def __init__(self, **kwargs):
        super().__init__('sim_cameras', **kwargs)
        self.set_parameters([Parameter('use_sim_time', value=False)])   # stamps come with the states
        self._images, self._infos, self._info_messages = {}, {}, {}
        for name, camera in self.station.cameras.items():
            self._images[name] = self.create_publisher(Image, camera.image_topic, IMAGE_QOS)
            self._infos[name] = self.create_publisher(CameraInfo, camera.info_topic, IMAGE_QOS)
            info = CameraInfo(**PinholeCamera.from_station(camera).info())
            info.header.frame_id = camera.optical_frame
            self._info_messages[name] = info
        self._subscription = None
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
        wanted = any(self._wanted(name) for name in self.station.cameras)
        if wanted and self._subscription is None:
            self._subscription = self.create_subscription(
                Float64MultiArray, 'sim/world_state', self._on_state, STATE_QOS)
        elif not wanted and self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None

    def _wanted(self, name: str) -> bool:
        return bool(self._images[name].get_subscription_count() or self._infos[name].get_subscription_count())

    def _on_state(self, message: Float64MultiArray) -> None:
        stamp, state = message.data[0], np.frombuffer(message.data)[1:]
        tick = round(stamp * self.station.control_rate)
        due = [name for name, camera in self.station.cameras.items()
               if is_policy_tick(tick, camera.rate, self.station.control_rate) and self._wanted(name)]
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
                self._publish(renderer, self.station.cameras[name], stamp, state)
        except Exception as error:
            if not self._stopping:
                self._failure = error
                self._failure_signal.trigger()
        finally:
            self._opened.set()

    def _publish(self, renderer: Renderer, camera: Camera, stamp: float, state: np.ndarray) -> None:
        info = self._info_messages[camera.name]
        info.header.stamp.sec, info.header.stamp.nanosec = divmod(round(stamp * 1e9), 1_000_000_000)
        if self._images[camera.name].get_subscription_count():
            message = Image(header=info.header)
            fill_image(message, renderer.render(camera.name, state), 'rgb8')
            self._images[camera.name].publish(message)
        self._infos[camera.name].publish(info)

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


def main() -> None:
    run_single(SimCameras)


if __name__ == '__main__':
    main()
