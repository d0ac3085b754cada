"""The `enpire` command. Each group of verbs is a module of its own, which loads what is heavy only when it runs."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys

# A group defines add_verbs(subparsers); each verb's parser sets the default `run`: a function of the options that
# returns the exit code.
GROUPS = ('cli_station', 'cli_research', 'cli_recipes', 'cli_agent', 'cli_papers', 'cli_environment', 'cli_bench')
FAILED, REFUSED, INTERRUPTED = 1, 2, 130

DESCRIPTION = 'A robot station that improves its own policy: reset, run, verify, record, improve, again.'


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 not achieved, 2 refused with one line why, 130 interrupted."""
    parser = make_parser()
    options = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        _choose_station(options)
        return options.run(options) or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:      # e.g. `enpire score | head -1`
        sys.stderr.close()
        return FAILED
    except Exception as error:
        if not type(error).__module__.startswith('enpire_'):
            raise
        # The suite's own errors are written for people: one line says all, a traceback would hide it.
        print(f'enpire: {error}', file=sys.stderr)
        return REFUSED


def _choose_station(options: argparse.Namespace) -> None:
    """Who names a task and no station gets the one that goes with the task."""
    if getattr(options, 'station', '') is None:
        from enpire_bringup.station import default_station
        from enpire_bringup.task import load_task

        options.station = default_station(load_task(options.task))


def make_parser() -> argparse.ArgumentParser:
    """The parser with the verbs of every group that loads; its help names the ones that do not, and why."""
    parser = argparse.ArgumentParser(prog='enpire', description=DESCRIPTION)
    verbs = parser.add_subparsers(title='verbs', metavar='VERB', required=True)
    broken: dict[str, Exception] = {}
    for group in GROUPS:
        try:
            importlib.import_module(f'enpire_agent.{group}').add_verbs(verbs)
        except Exception as error:
            broken[group] = error
    if broken:
        parser.epilog = 'verbs missing because of errors: ' + '; '.join(
            f'{group}: {error!r}' for group, error in broken.items())
    return parser


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


if __name__ == '__main__':
    sys.exit(main())
