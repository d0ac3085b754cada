"""Several nodes in one process: one XX.

Run as the executable `node_group`:

    node_group --nodes '[{"class": "enpire_bringup.sim_station_node:SimStation", "name": "sim_station",
                          "namespace": "/station_1", "parameters": {"task": "push_t"},
                          "remappings": [["/clock", "clock"]]}]' [--parent PID] [--ros-args ...]

or `--nodes-file FILE` with the same JSON in a file. `composition.py` writes that JSON; the process runner and the
launch files pass it on. A node class takes keyword arguments and hands them to `rclpy.node.Node`.

Exit codes: 0 stopped by SIGINT or SIGTERM (or because the parent ended), 1 a node crashed while running,
2 a node could not be made (one line on stderr says why).
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Sequence

from enpire_bringup.configuration import ConfigurationError

READY_LINE = 'node_group: ready'   # on stdout once every node is made
STOPPED, CRASHED, NOT_MADE = 0, 1, 2
STOP_WITHIN = 1.8        # s from the signal to the end of the process, whatever the nodes are doing
PARENT_CHECK = 0.5       # s between two looks at whether the parent still lives
_PR_SET_PDEATHSIG = 1


class NodeGroup:
    """Runs nodes until `stop()`; `run()` returns the exit code."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._running: list[tuple[Any, Any]] = []
        self._exit_code = STOPPED

    def stop(self) -> None:
        """Ask the group to end; callable from anywhere, also from a signal handler."""
        self._stop.set()

    def run(self, makers: Sequence[tuple[str, Callable[[], Any]]], ros_args: Sequence[str] | None,
            parent: int | None = None) -> int:
        """Make every node and spin it until a signal, a crash or the end of the process `parent`.

        makers: (name for messages, function that makes the node) for each node. Call from the main thread.
        """
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop())
        if parent is not None:
            self._end_with_parent(parent)
        rclpy.init(args=list(ros_args) if ros_args is not None else None,
                   signal_handler_options=SignalHandlerOptions.NO)
        try:
            for name, make in makers:
                if self._stop.is_set():
                    break
                if not self._start(name, make):
                    return NOT_MADE
            sys.stdout.write(f'{READY_LINE}\n')      # at once: print's own line end may come after a node's log line
            sys.stdout.flush()
            while not self._stop.wait(1.0):
                pass
            return self._exit_code
        finally:
            self._stop.set()
            threading.Thread(target=self._force_exit, daemon=True).start()
            self._shut_down()

    def _start(self, name: str, make: Callable[[], Any]) -> bool:
        from enpire_bringup.message_executor import fastest_executor

        try:
            node = make()
        except ConfigurationError as error:
            print(f'enpire: {name}: {error}', file=sys.stderr, flush=True)
            self._exit_code = NOT_MADE
            return False
        except Exception as error:
            if not self._stop.is_set():
                traceback.print_exc()
                print(f'enpire: {name}: could not start: {error!r}', file=sys.stderr, flush=True)
                self._exit_code = NOT_MADE
            return False
        executor = fastest_executor()
        executor.add_node(node)
        thread = threading.Thread(target=self._spin, args=(node.get_name(), executor), daemon=True,
                                  name=f'spin {node.get_name()}')
        self._running.append((node, executor))
        self._threads.append(thread)
        thread.start()
        return True

    def _spin(self, name: str, executor) -> None:
        from rclpy.executors import ExternalShutdownException

        try:
            executor.spin()
        except ExternalShutdownException:
            pass
        except Exception as error:
            # While the context shuts down, rclpy raises RuntimeError out of take_message; that is no crash.
            if not self._stop.is_set():
                traceback.print_exc()
                print(f'enpire: {name}: crashed: {error!r}', file=sys.stderr, flush=True)
                self._exit_code = CRASHED
        self._stop.set()

    def _shut_down(self) -> None:
        import rclpy

        for node, executor in self._running:
            executor.shutdown(timeout_sec=0.0)
        for thread in self._threads:
            thread.join(timeout=0.5)
        for node, executor in reversed(self._running):
            try:
                node.destroy_node()
            except Exception:
                traceback.print_exc()
        rclpy.try_shutdown()

    def _force_exit(self) -> None:
        """A node that does not let go must not keep the process: files are written atomically anyway."""
        time.sleep(STOP_WITHIN)
        busy = ', '.join(thread.name for thread in self._threads if thread.is_alive())
        print(f'enpire: forced the end of the process after {STOP_WITHIN} s ({busy or "closing nodes"})',
              file=sys.stderr, flush=True)
        os._exit(self._exit_code)

    def _end_with_parent(self, parent: int) -> None:
        # The signal covers a parent killed at once; the thread covers one that ended before this line ran.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        threading.Thread(target=self._watch_parent, args=(parent,), daemon=True).start()

    def _watch_parent(self, parent: int) -> None:
        while not self._stop.is_set():
            if os.getppid() != parent:
                self.stop()
                time.sleep(STOP_WITHIN)   # the main thread may still be busy making nodes
                os._exit(STOPPED)
            time.sleep(PARENT_CHECK)


def run_single(node_class: type, args: Sequence[str] | None = None) -> None:
    """`main()` of a single node's executable; does not return."""
    argv = list(sys.argv if args is None else args)
    _leave(NodeGroup().run([(node_class.__name__, node_class)], argv))


def load_class(reference: str) -> type:
    """The class that "package.module:Class" names. Raises ConfigurationError."""
    module, _, name = reference.partition(':')
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"cannot load the node class '{reference}': {error}") from error


def make_node(entry: dict):
    """A node from one JSON entry: class, name, namespace, parameters, remappings (pairs)."""
    from rclpy.parameter import Parameter

    arguments = ['--ros-args', '-r', f'__node:={entry["name"]}', '-r', f'__ns:={entry.get("namespace") or "/"}']
    for old, new in entry.get('remappings', ()):
        arguments += ['-r', f'{old}:={new}']
    parameters = [Parameter(name, value=value) for name, value in entry.get('parameters', {}).items()]
    return load_class(entry['class'])(cli_args=arguments, parameter_overrides=parameters)


def main() -> None:
    """The executable `node_group`; does not return."""
    argv = sys.argv[1:]
    ros_args: list[str] = []
    if '--ros-args' in argv:
        start = argv.index('--ros-args')
        argv, ros_args = argv[:start], argv[start:]
    parser = argparse.ArgumentParser(prog='node_group', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--nodes', metavar='JSON', help='the nodes, as a JSON list')
    source.add_argument('--nodes-file', metavar='FILE', type=Path, help='a file with that JSON list')
    parser.add_argument('--parent', metavar='PID', type=int, help='end when this parent process has ended')
    options = parser.parse_args(argv)
    try:
        entries = json.loads(options.nodes if options.nodes is not None else options.nodes_file.read_text())
    except (OSError, ValueError) as error:
        parser.exit(NOT_MADE, f'enpire: node_group: cannot read the nodes: {error}\n')
    makers = [(entry['name'], lambda entry=entry: make_node(entry)) for entry in entries]
    _leave(NodeGroup().run(makers, ros_args, options.parent))


def _leave(exit_code: int) -> None:
    """End the process now. Python's own end takes the libraries apart one by one, which takes seconds on a busy
    machine, and a daemon thread inside a library can hang it; the nodes are closed already."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == '__main__':
    main()
