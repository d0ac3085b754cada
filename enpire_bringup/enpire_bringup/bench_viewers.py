"""A process that looks at every camera of a station, as a person with RViz or a recorder does, and counts.

    python -m enpire_bringup.bench_viewers NAMESPACE DOMAIN TOPIC...

It prints the line "looking" once an image of every topic has come, runs until its input ends or a line comes, then
prints a JSON object: topic -> {frames, hz, size}.
"""

from __future__ import annotations

import json
import sys
import threading

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from enpire_bringup.bench_station import station_node
from enpire_bringup.serialized_messages import stamp_of
from enpire_bringup.station_node import IMAGE_QOS

LOOKING = 'looking'


class _Viewer:
    def __init__(self, node, topic: str):
        self.stamps: list[int] = []
        self.newest = b''
        node.create_subscription(Image, topic, self._on_image, IMAGE_QOS, raw=True)

    def _on_image(self, data: bytes) -> None:
        self.stamps.append(stamp_of(data))
        self.newest = data

    def report(self) -> dict:
        """hz: of the stamps, by which a lost frame shows."""
        seconds = 1e-9 * (self.stamps[-1] - self.stamps[0]) if len(self.stamps) > 1 else 0.0
        image = deserialize_message(self.newest, Image) if self.newest else Image()
        return {'frames': len(self.stamps), 'hz': round((len(self.stamps) - 1) / seconds, 2) if seconds else 0.0,
                'size': f'{image.width}x{image.height}'}


def main() -> None:
    namespace, domain, *topics = sys.argv[1:]
    with station_node('bench_viewers', namespace, int(domain)) as node:
        viewers = {topic: _Viewer(node, topic) for topic in topics}
        ended = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
        looking = False
        while not ended.wait(0.05):
            if not looking and all(viewer.newest for viewer in viewers.values()):
                looking = True
                print(LOOKING, flush=True)
        print(json.dumps({topic: viewer.report() for topic, viewer in viewers.items()}), flush=True)


if __name__ == '__main__':
    main()
