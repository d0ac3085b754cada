"""Node `git_bridge`: pushes kept recipes, announces them to the fleet, and takes over a peer's on request."""

from __future__ import annotations

import threading
from dataclasses import asdict, fields
from typing import Callable

from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from rclpy.task import Future

from enpire_agent.git_command import RepositoryError
from enpire_agent.peer_recipes import refusal
from enpire_agent.recipe_exchange import AdoptionRefused, KeptRecipe, RecipeExchange
from enpire_agent.recipe_remote import absolute_remote
from enpire_agent.recipe_repository import CHERRY_PICK, MERGE, TAKE_OVER
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.node_group import run_single
from enpire_bringup.paths import runs_directory
from enpire_bringup.station_node import HISTORY_QOS, StationNode
from enpire_msgs.msg import AgentEvent, Recipe
from enpire_msgs.srv import Adopt

IDLE_PERIOD = 0.5                            # s of wall time after which each thread looks what is due
SERVICES = {'adopt': TAKE_OVER, 'adopt/merge': MERGE, 'adopt/cherry_pick': CHERRY_PICK}
_FIELDS = [field.name for field in fields(KeptRecipe)]


class GitBridge(StationNode):
    """Git works in threads: a remote that hangs keeps no message waiting, and a push no fetch.

    Parameter `remote`: Git URL or path to push to; empty: runs/<campaign>/remote.git.
    """

    def __init__(self, **kwargs):
        super().__init__('git_bridge', **kwargs)
        self.env_hash = self.current_env_hash()
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._station_name = self.get_namespace().strip('/') or self.station.name
        self._exchange = RecipeExchange(
            runs_directory(), self._station_name, self.task.recipe, self._read_remote(),
            log=lambda level, text: getattr(self.get_logger(), level)(text))
        self._closing = threading.Event()
        self._push, self._fetch = threading.Event(), threading.Event()
        self._announcements = self.create_publisher(Recipe, '/fleet/recipes', HISTORY_QOS)
        self._events = self.create_publisher(AgentEvent, 'agent_events', HISTORY_QOS)
        for recipe in self._exchange.recover():
            self._publish(recipe)
        self.create_subscription(Recipe, 'kept_recipes', self._on_kept, HISTORY_QOS)
        self.create_subscription(Recipe, '/fleet/recipes', self._on_recipe, HISTORY_QOS)
        for name in SERVICES:
            self.create_service(Adopt, name, self._adopter(SERVICES[name]))
        self._threads = [threading.Thread(target=self._repeat, args=pair, name=name, daemon=True) for name, *pair in (
            ('push', self._push, self._announce), ('fetch', self._fetch, self._exchange.fetch_due))]
        for thread in self._threads:
            thread.start()

    def _read_remote(self) -> str:
        remote = self.declare_parameter('remote', '').value
        try:
            return absolute_remote(remote) if remote else ''
        except RepositoryError as error:
            raise ConfigurationError(f'parameter remote: {error}') from error

    def _on_kept(self, message: Recipe) -> None:
        self._exchange.keep(KeptRecipe(**{name: getattr(message, name) for name in _FIELDS}))
        self._push.set()

    def _on_recipe(self, message: Recipe) -> None:
        peer = self._exchange.hear(message)
        if peer is not None:
            self._fetch.set()
            self.get_logger().info(f'{peer.station} announced {peer.commit[:10]} ({peer.decision}): {peer.successes} '
                                   f'of {peer.trials}: {peer.hypothesis}')
        elif reason := refusal(message):
            self.get_logger().warning(f'{message.station} announced what is no recipe: {reason}')

    def _adopter(self, how: str):
        async def on_adopt(request: Adopt.Request, response: Adopt.Response) -> Adopt.Response:
            done = Future()

            def work() -> None:
                done.set_result(self._adopt(request.commit, how))
                if self.executor is not None:
                    self.executor.wake()

            threading.Thread(target=work, name='adopt', daemon=True).start()
            response.accepted, response.message, response.commit = await done
            return response

        return on_adopt

    # --- in threads ---

    def _repeat(self, woken: threading.Event, work: Callable[[], None]) -> None:
        while not self._closing.is_set():
            woken.wait(IDLE_PERIOD)
            woken.clear()
            try:
                work()
            except Exception as error:
                # The next recipe must still be pushed.
                self.get_logger().error(f'git_bridge: {error!r}')

    def _announce(self) -> None:
        for recipe in self._exchange.push_due():
            if self._closing.is_set():
                return
            self._publish(recipe)
            self._exchange.announced(recipe)
            self.get_logger().info(f'pushed and announced {recipe.commit[:10]} ({recipe.decision}): '
                                   f'{recipe.successes} of {recipe.trials}')

    def _publish(self, recipe: KeptRecipe) -> None:
        message = Recipe(**asdict(recipe))
        message.header.stamp = Clock(clock_type=ClockType.SYSTEM_TIME).now().to_msg()
        self._announcements.publish(message)

    def _adopt(self, commit: str, how: str) -> tuple[bool, str, str]:
        """(accepted, message, commit on our branch)."""
        try:
            adoption = self._exchange.adopt(commit, self.task.name, self.env_hash, how)
        except AdoptionRefused as refused:
            if refused.campaign:
                self._say(refused.campaign, 'error', f'not adopted: {refused}', refused.commit)
            return False, str(refused), ''
        except Exception as error:
            self.get_logger().error(f'git_bridge: {error!r}')
            return False, f'failed: {error!r}', ''
        text = (f'adopted {adoption.peer.commit[:10]} of {adoption.peer.station} ({how}): '
                f'{adoption.peer.hypothesis}')
        self._say(adoption.campaign, 'adopt', text, adoption.commit)
        return True, text, adoption.commit

    def _say(self, campaign: str, kind: str, text: str, commit: str) -> None:
        event = AgentEvent(station=self._station_name, campaign=campaign, kind=kind, text=text, commit=commit)
        event.header.stamp = Clock(clock_type=ClockType.SYSTEM_TIME).now().to_msg()
        self._events.publish(event)
        self.get_logger().info(text)

    def destroy_node(self) -> None:
        if hasattr(self, '_threads'):
            self._closing.set()
            self._push.set()
            self._fetch.set()
            for thread in self._threads:
                thread.join(timeout=0.5)
        super().destroy_node()


def main() -> None:
    run_single(GitBridge)


if __name__ == '__main__':
    main()
