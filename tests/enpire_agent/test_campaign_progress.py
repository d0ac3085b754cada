"""A campaign that is shown ends with its result, or is found to be lost."""

import time

import pytest

pytest.importorskip('rclpy')

from enpire_agent import campaign_progress  # noqa: E402
from enpire_bringup.actions import RemoteCallCancelled  # noqa: E402
from enpire_msgs.action import RunCampaign  # noqa: E402
from enpire_msgs.msg import StationStatus  # noqa: E402


def status(seconds):
    message = StationStatus()
    message.header.stamp.sec = seconds
    return message


class Supervisor:
    """A StationClient whose supervisor gives feedback at 100 s of wall time, and then only status messages."""

    def __init__(self, *, knows_the_goal_until):
        self._until = knows_the_goal_until
        self._now = 100

    def status(self, timeout):
        return status(self._now)

    def run_campaign(self, goal, *, timeout, feedback, cancelled):
        while self._now < 120:
            if self._now <= self._until:
                feedback(RunCampaign.Feedback(status=status(self._now)))
            if cancelled():
                raise RemoteCallCancelled('cancelled')
            self._now += 1
        return RunCampaign.Result(success=True)


@pytest.mark.parametrize('knows_the_goal_until, result', [(120, RunCampaign.Result(success=True)), (103, None)])
def test_a_supervisor_that_speaks_of_the_station_and_not_of_the_goal_has_forgotten_it(knows_the_goal_until, result):
    client = Supervisor(knows_the_goal_until=knows_the_goal_until)
    began = time.monotonic()
    assert campaign_progress._run_once(client, RunCampaign.Goal(), lambda _: None, campaign_progress.SILENCE) == result
    assert time.monotonic() - began < campaign_progress.SILENCE / 2
