"""The live 3-D page of a running station, by viser: what `enpire view` shows."""

from __future__ import annotations

import html
import io
import socket
import time
from contextlib import redirect_stdout
from time import sleep as pause
from typing import Callable

import numpy as np
import trimesh
import viser
from diagnostic_msgs.msg import DiagnosticStatus
from enpire_msgs.msg import ObjectPose, StationStatus, Verdict
from nav_msgs.msg import Path
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from enpire_agent.remote_station import Station
from enpire_agent.robot_shapes import LinkShape, link_shapes
from enpire_agent.station_results import read_guard, read_joints, read_object, read_verdict
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.image_messages import ImageMessageError, read_image
from enpire_bringup.kinematics import quaternion_of
from enpire_bringup.robot_description import LinkTransforms
from enpire_bringup.station_node import IMAGE_QOS, LATCHED_QOS, STATE_QOS
from enpire_bringup.station_scene import (GUARD_COLORS, OUTCOME_COLORS, Box, Lines, fixed_shapes, object_shapes,
                                         verdict_text)

PERIOD = 1 / 15          # s of wall time between two updates of the page
IMAGE_PERIOD = 0.2       # s of wall time between two camera images
SILENT_AFTER = 2.0       # s of wall time without joint states
TEXT_COLOR = (0.25, 0.25, 0.25, 1.0)
PATH_COLOR = (0.25, 0.6, 1.0, 1.0)


class StationPage:
    """A page with a robot, the things around it and a panel of text; knows no ROS.

    urdf: the robot. links: its kinematics. shapes: what does not move.
    """

    def __init__(self, title: str, urdf: str, shapes: list[Lines | Box], host: str, port: int):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ConfigurationError(f'the page cannot have port {port} of {host}: {error.strerror}; choose '
                                         'another with --port') from error
        self._links = LinkTransforms(urdf)
        with redirect_stdout(io.StringIO()):      # viser prints a banner; who asked for the page says where it is
            self._server = viser.ViserServer(host=host, port=port, verbose=False)
        self._server.scene.set_up_direction('+z')
        self._server.gui.configure_theme(control_width='large', show_logo=False, show_share_button=False)
        self._server.gui.main_panel.dock_right()
        self._server.gui.set_panel_label(title)
        self._texts = {name: self._server.gui.add_html('') for name in ('state', 'verdict', 'guard', 'objects')}
        self._image = None
        self._outlines: dict[str, object] = {}
        self._frames = {}
        for number, shape in enumerate(link_shapes(urdf)):
            if shape.link not in self._frames:
                self._frames[shape.link] = self._server.scene.add_frame(f'/robot/{shape.link}', show_axes=False)
            self._add_link_shape(shape, f'/robot/{shape.link}/{number}')
        for shape in shapes:
            self._draw(shape)
        self._look_at(shapes)

    @property
    def url(self) -> str:
        return f'http://{self._server.get_host()}:{self._server.get_port()}'

    @property
    def watched(self) -> bool:
        """Whether a browser shows the page."""
        return bool(self._server.get_clients())

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self._server.stop()

    def _look_at(self, shapes: list[Lines | Box]) -> None:
        """Begin with a view of the workspace and the table below it, from above and aside."""
        corners = next(shape.points for shape in shapes if shape.name == 'workspace').reshape(-1, 3)
        low, high = corners.min(axis=0), corners.max(axis=0)
        center, size = (low + high) / 2, float(np.linalg.norm(high - low))
        self._server.scene.add_grid('/table', 2.0, 2.0, cell_size=0.1, section_size=0.5, position=center * (1, 1, 0),
                                    cell_color=(205, 205, 210), section_color=(170, 170, 180))
        camera = self._server.initial_camera
        camera.look_at = tuple(center * (1, 1, 0.4))
        camera.position = tuple(center + size * np.array([0.62, 0.42, 0.55]))

    def show_joints(self, positions: dict[str, float]) -> None:
        """Positions (rad, m) by joint name."""
        with self._server.atomic():
            for link, frame in self._frames.items():
                pose = self._links.pose(link, positions)
                frame.position, frame.wxyz = pose[:3, 3], _wxyz(pose)

    def show_shapes(self, group: str, shapes: list[Lines]) -> None:
        """Show these lines in the place of those that the group had."""
        with self._server.atomic():
            for name in [name for name in self._outlines if name.startswith(f'{group} ')]:
                if name not in {shape.name for shape in shapes}:
                    self._outlines.pop(name).remove()
            for shape in shapes:
                self._draw(shape)

    def show_text(self, name: str, text: str, color=TEXT_COLOR) -> None:
        """name: state, verdict, guard or objects."""
        red, green, blue = _rgb(color if min(color[:3]) < 0.8 else TEXT_COLOR)      # the page is white
        content = (f'<div style="padding:4px 14px;font-size:0.85em;overflow-wrap:anywhere">'
                   f'<b style="color:rgb({red},{green},{blue})">{name}</b> {html.escape(text)}</div>')
        if self._texts[name].content != content:
            self._texts[name].content = content

    def show_image(self, image: np.ndarray) -> None:
        """(height, width, 3) uint8 RGB."""
        if self._image is None:
            self._image = self._server.gui.add_image(image, format='jpeg', jpeg_quality=75)
        else:
            self._image.image = image

    def _draw(self, shape: Lines | Box) -> None:
        path = f"/scene/{shape.name.replace('/', '_')}"
        if isinstance(shape, Lines):
            drawn = self._outlines.get(shape.name)
            points = shape.points.astype(np.float32)
            if drawn is not None and drawn.points.shape == points.shape:
                drawn.points = points
                return
            self._outlines[shape.name] = self._server.scene.add_line_segments(
                path, points, _rgb(shape.color), thickness=shape.width)
        else:
            self._server.scene.add_box(path, _rgb(shape.color), shape.size, opacity=shape.color[3],
                                       position=shape.pose[:3, 3], wxyz=_wxyz(shape.pose), cast_shadow=False)

    def _add_link_shape(self, shape: LinkShape, name: str) -> None:
        place = {'position': shape.pose[:3, 3], 'wxyz': _wxyz(shape.pose)}
        color, scene = _rgb(shape.color), self._server.scene
        if shape.kind == 'box':
            scene.add_box(name, color, shape.size, **place)
        elif shape.kind == 'cylinder':
            scene.add_cylinder(name, shape.size[0], shape.size[1], color, **place)
        elif shape.kind == 'sphere':
            scene.add_icosphere(name, shape.size[0], color, **place)
        else:
            mesh = trimesh.load_mesh(shape.mesh)
            scene.add_mesh_simple(name, np.asarray(mesh.vertices) * shape.size, np.asarray(mesh.faces), color=color,
                                  **place)


class StationFeed:
    """Brings what a station says to a page; call `update` often. Camera images only while somebody watches."""

    def __init__(self, station: Station, page: StationPage):
        self._station, self._page = station, page
        self._client = station.client
        self._latest: dict[str, object] = {}
        self._shown: dict[str, object] = {}
        self._heard = time.monotonic()
        self._objects: dict[str, ObjectPose] = {}
        self._camera = next(iter({item.camera for item in station.task.objects.values()}))
        self._images = None
        self._image_due = 0.0
        for kind, topic, qos in ((JointState, 'joint_states', STATE_QOS), (Verdict, 'verdict', STATE_QOS),
                                 (DiagnosticStatus, 'guard_status', LATCHED_QOS),
                                 (StationStatus, 'station_status', LATCHED_QOS), (Path, 'planned_path', LATCHED_QOS)):
            self._subscribe(kind, topic, qos, lambda message, topic=topic: self._latest.update({topic: message}))
        self._subscribe(ObjectPose, 'object_poses', STATE_QOS,
                        lambda message: self._objects.update({message.object_id: message}))

    def update(self) -> None:
        """Show what has changed since the last time."""
        fresh = {topic: message for topic, message in self._latest.items() if self._shown.get(topic) is not message}
        self._shown.update(fresh)
        self._show_state(fresh)
        if 'joint_states' in fresh:
            joints = read_joints(fresh['joint_states'])
            self._page.show_joints(dict(zip(joints.names, joints.position)))
        if 'verdict' in fresh:
            verdict = read_verdict(fresh['verdict'])
            self._page.show_text('verdict', verdict_text(verdict.outcome, verdict.reason),
                                 OUTCOME_COLORS[verdict.outcome])
        if 'guard_status' in fresh:
            guard = read_guard(fresh['guard_status'])
            self._page.show_text('guard', guard.message, GUARD_COLORS[guard.level])
        if 'planned_path' in fresh:
            self._show_path(fresh['planned_path'])
        self._show_objects()
        self._show_image()

    def _show_state(self, fresh: dict) -> None:
        now = time.monotonic()
        if 'joint_states' in fresh:
            self._heard = now
        silence = now - self._heard
        status = self._latest.get('station_status')
        if silence > SILENT_AFTER:
            self._page.show_text('state', f'no joint states for {silence:.0f} s; is the station up?', (0.75, 0.1, 0.1))
        elif status is not None:
            campaign = f' · {status.campaign} {status.phase} {status.iteration}' if status.campaign else ''
            self._page.show_text('state', f'{status.state}{campaign} · {status.message}'.rstrip(' ·'))

    def _show_objects(self) -> None:
        lines, shapes = [], []
        for name, message in sorted(self._objects.items()):
            view = read_object(message)
            if name not in self._station.task.objects:
                continue
            shapes += object_shapes(self._station.task.objects[name], view.pose, view.covariance, view.visible)
            x, y, yaw = view.pose
            lines.append(f'{name}: x {1e3 * x:.1f} mm, y {1e3 * y:.1f} mm, yaw {np.degrees(yaw):.1f}°' if view.visible
                         else f"{name}: {'partly hidden' if view.occluded else 'not visible'}")
        if lines:
            self._page.show_text('objects', '; '.join(lines))
            self._page.show_shapes('object', [shape for shape in shapes if shape.name.startswith('object ')])
            self._page.show_shapes('covariance', [shape for shape in shapes if shape.name.startswith('covariance ')])

    def _show_path(self, path: Path) -> None:
        points = np.array([[pose.pose.position.x, pose.pose.position.y, pose.pose.position.z] for pose in path.poses])
        shapes = []
        if len(points) > 1:
            shapes = [Lines('path planned', np.stack([points[:-1], points[1:]], axis=1), PATH_COLOR, 0.003)]
        self._page.show_shapes('path', shapes)

    def _show_image(self) -> None:
        """To look at a camera costs the station work: only while a browser shows the page."""
        if self._page.watched and self._images is None:
            self._images = self._subscribe(Image, f'{self._camera}_camera/overlay', IMAGE_QOS,
                                           lambda message: self._latest.update({'image': message}))
        elif not self._page.watched and self._images is not None:
            self._client.run_in_executor(lambda: self._client.node.destroy_subscription(self._images))
            self._images = None
        message, now = self._latest.get('image'), time.monotonic()
        if message is None or now < self._image_due or self._shown.get('image shown') is message:
            return
        self._image_due, self._shown['image shown'] = now + IMAGE_PERIOD, message
        try:
            self._page.show_image(read_image(message, 'rgb8'))
        except ImageMessageError as error:
            self._page.show_text('state', f'{self._camera} camera: {error}', (0.75, 0.1, 0.1))

    def _subscribe(self, kind, topic: str, qos, callback):
        return self._client.run_in_executor(
            lambda: self._client.node.create_subscription(kind, topic, callback, qos))


def show_station(station: Station, host: str, port: int, say: Callable[[str], None]) -> None:
    """Show a running station until KeyboardInterrupt; `say` gets the page's address once it is there."""
    # The description that the station publishes is the one that is true; meshes are read from this machine.
    description = station.client.listen(String, 'robot_description', LATCHED_QOS, timeout=10.0)
    page = StationPage(station.name, description.data, fixed_shapes(station.config, station.task), host, port)
    try:
        feed = StationFeed(station, page)
        say(page.url)
        while True:
            feed.update()
            pause(PERIOD)
    finally:
        page.close()


def _rgb(color) -> tuple[int, int, int]:
    return tuple(int(round(255 * part)) for part in color[:3])


def _wxyz(pose: np.ndarray) -> np.ndarray:
    x, y, z, w = quaternion_of(pose)
    return np.array([w, x, y, z])
