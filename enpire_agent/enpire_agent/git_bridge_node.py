"""Node `git_bridge`: pushes kept recipes, announces them to the fleet, and takes over a peer's on request."""

from __future__ import annotations

import queue
import threading

from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from rclpy.task import Future

from enpire_agent.peer_recipes import PeerRecipes
from enpire_agent.recipe_repository import RecipeRepository, RepositoryError
from enpire_bringup.node_group import run_single
from enpire_bringup.paths import runs_directory
from enpire_bringup.station_node import HISTORY_QOS, LATCHED_QOS, StationNode
from enpire_msgs.msg import AgentEvent, Recipe, StationStatus
from enpire_msgs.srv import Adopt

RETRY_AFTER = (1.0, 2.0, 5.0, 10.0, 30.0)   # s of wall time between attempts to push while the remote is away


class GitBridge(StationNode):
    """Git works in a thread of its own, so that a slow remote keeps no message waiting.

    Parameter `remote`: Git URL or path to push to; empty: runs/<campaign>/remote.git.
    """

    def __init__(self, **kwargs):
        super().__init__('git_bridge', **kwargs)
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._runs = runs_directory()
        self._station_name = self.get_namespace().strip('/') or self.station.name
        self._remote = self.declare_parameter('remote', '').value
        self._peers = PeerRecipes(self._station_name)
        self._campaign = ''
        self._closing = threading.Event()
        self._jobs: queue.Queue = queue.Queue()
        self._announcements = self.create_publisher(Recipe, '/fleet/recipes', HISTORY_QOS)
        self._events = self.create_publisher(AgentEvent, 'agent_events', HISTORY_QOS)
        self.create_subscription(Recipe, 'kept_recipes', lambda recipe: self._jobs.put(recipe), HISTORY_QOS)
        self.create_subscription(Recipe, '/fleet/recipes', self._on_recipe, HISTORY_QOS)
        self.create_subscription(StationStatus, 'station_status', self._on_status, LATCHED_QOS)
        self.create_service(Adopt, 'adopt', self._on_adopt)
        self._worker = threading.Thread(target=self._work, name='git', daemon=True)
        self._worker.start()

    def _on_recipe(self, message: Recipe) -> None:
        peer = self._peers.add(message)
        if peer is not None:
            self.get_logger().info(f'{peer.station} announced {peer.commit[:10]} ({peer.decision}): {peer.successes} '
                                   f'of {peer.trials}: {peer.hypothesis}')

    def _on_status(self, message: StationStatus) -> None:
        self._campaign = message.campaign

    async def _on_adopt(self, request: Adopt.Request, response: Adopt.Response) -> Adopt.Response:
        if self._campaign:
            response.message = (f'the campaign {self._campaign} is running: its researcher adopts what is better by '
                                f'itself; cancel the campaign to adopt by hand')
            return response
        done = Future()
        self._jobs.put((request.commit, done))
        response.accepted, response.message, response.commit = await done
        return response

    # --- in the Git thread ---

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                job = self._jobs.get(timeout=0.2)
            except queue.Empty:
                continue
            try:
                if isinstance(job, Recipe):
                    self._publish(job)
                else:
                    commit, done = job
                    done.set_result(self._adopt(commit))
                    if self.executor is not None:
                        self.executor.wake()
            except Exception as error:
                # The next recipe must still be pushed.
                self.get_logger().error(f'git_bridge: {error!r}')

    def _publish(self, recipe: Recipe) -> None:
        """Push until it succeeds, then announce: nobody is told of a commit that cannot be fetched."""
        recipe.remote = self._remote or str(self._runs / recipe.campaign / 'remote.git')
        attempt = 0
        while not self._closing.is_set():
            try:
                repository = RecipeRepository(self._runs / recipe.campaign / self._station_name / 'recipe')
                try:
                    recipe.branch = repository.push(recipe.remote, recipe.campaign)
                finally:
                    repository.close()
                break
            except RepositoryError as error:
                wait = RETRY_AFTER[min(attempt, len(RETRY_AFTER) - 1)]
                attempt += 1
                self.get_logger().error(f'cannot push {recipe.commit[:10]}: {error}; trying again in {wait:g} s')
                self._closing.wait(wait)
        if self._closing.is_set():
            return
        recipe.header.stamp = Clock(clock_type=ClockType.SYSTEM_TIME).now().to_msg()
        self._announcements.publish(recipe)
        self.get_logger().info(f'pushed and announced {recipe.commit[:10]} ({recipe.decision}): {recipe.successes} of '
                               f'{recipe.trials}')

    def _adopt(self, commit: str) -> tuple[bool, str, str]:
        """(accepted, message, commit on our branch)."""
        try:
            campaign, peer = self._peers.find(commit, self.task.name, self.env_hash)
            repository = RecipeRepository.open_or_create(
                self._runs / campaign / self._station_name / 'recipe', self._station_name, self.task.recipe)
            try:
                repository.fetch_commit(peer.commit, self._remote or peer.remote, campaign)
                adopted = repository.adopt(peer.commit, {
                    'Task': peer.task, 'Station': self._station_name, 'Method': peer.method,
                    'Env-Hash': peer.env_hash, 'Decision': 'adopt', 'Adopted-From': f'{peer.station} {peer.commit}'})
            finally:
                repository.close()
        except LookupError as error:
            return False, str(error.args[0]), ''
        except (RepositoryError, OSError) as error:
            return False, str(error), ''
        text = f'adopted {peer.commit[:10]} of {peer.station}: {peer.hypothesis}'
        event = AgentEvent(station=self._station_name, campaign=campaign, researcher='', kind='adopt', text=text,
                           commit=adopted)
        event.header.stamp = Clock(clock_type=ClockType.SYSTEM_TIME).now().to_msg()
        self._events.publish(event)
        self.get_logger().info(text)
        return True, text, adopted

    def destroy_node(self) -> None:
        if hasattr(self, '_worker'):
            self._closing.set()
            self._worker.join(timeout=0.5)
        super().destroy_node()


def main() -> None:
    run_single(GitBridge)


if __name__ == '__main__':
    main()
