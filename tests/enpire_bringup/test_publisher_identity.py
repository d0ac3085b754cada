"""Nobody but the node whose say it is gets a message through."""

import time

import pytest

rclpy = pytest.importorskip('rclpy')

from std_msgs.msg import Int32  # noqa: E402

from enpire_bringup.publisher_identity import PublisherIdentity  # noqa: E402


class Listener:
    """A node that takes numbers of one publisher from the topic `decides`."""

    def __init__(self, publisher):
        self.node = rclpy.create_node('listener', namespace='/a')
        self.identity = PublisherIdentity(self.node, 'decides', publisher)
        self.taken, self.heard = [], 0
        self.node.create_subscription(Int32, 'decides', self._on_number, 10)
        self.others = []

    def _on_number(self, message, info):
        self.heard += 1
        if self.identity.accepts(info):
            self.taken.append(message.data)

    def publisher(self, name, namespace='/a'):
        """publish(number), of another node."""
        node = rclpy.create_node(name, namespace=namespace)
        self.others.append(node)
        publisher = node.create_publisher(Int32, '/a/decides', 10)
        return lambda number: publisher.publish(Int32(data=number))

    def end(self, number):
        self.others.pop(number).destroy_node()

    def until(self, publish, number, condition):
        """Publishes until it is so."""
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, (self.taken, self.heard, self.identity.intruder)
            publish(number)
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def close(self):
        for node in (*self.others, self.node):
            node.destroy_node()


@pytest.fixture(params=['judge', ''])
def listener(request):
    rclpy.init()
    listener = Listener(request.param)
    yield listener
    listener.close()
    rclpy.shutdown()


@pytest.mark.parametrize('known_to_be_gone', [True, False])
def test_the_right_one_is_heard_also_after_it_was_started_anew(listener, known_to_be_gone, monkeypatch):
    listener.until(listener.publisher('judge'), 1, lambda: 1 in listener.taken)
    if known_to_be_gone:
        listener.end(0)
    else:
        monkeypatch.setattr('enpire_bringup.publisher_identity.SUCCESSION', 0.0)     # it was killed, some time ago
    listener.until(listener.publisher('judge'), 2, lambda: 2 in listener.taken)
    assert listener.identity.intruder == ''


@pytest.mark.parametrize('name, namespace', [('rogue', '/a'), ('judge', '/b'), ('judge', '/a')])
def test_an_intruder_is_dropped_and_named_and_the_right_one_stays(listener, name, namespace):
    judge = listener.publisher('judge')
    listener.until(judge, 1, lambda: 1 in listener.taken)
    listener.until(listener.publisher(name, namespace), 666, lambda: listener.identity.intruder)
    assert f'{namespace}/{name} publishes /a/decides' in listener.identity.intruder
    listener.until(judge, 2, lambda: 2 in listener.taken)
    assert 666 not in listener.taken
    listener.identity.forget_intruder()
    assert listener.identity.intruder == ''
