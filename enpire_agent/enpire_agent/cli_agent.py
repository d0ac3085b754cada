"""Verbs for an agent that improves a recipe, with short answers: records, frames, peers, diff, note, train, mcp."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_verbs(verbs) -> None:
    records = verbs.add_parser('records', help='the newest trials, or one of them with its checks')
    _add_place(records)
    records.add_argument('count', nargs='?', type=_positive, default=10, metavar='N', help='default: %(default)s')
    records.add_argument('--trial', default='', metavar='TRIAL', help='only this one, and more of it')
    records.add_argument('--kind', choices=('search', 'gate', 'baseline', 'manual'), default='')
    records.add_argument('--outcome', default='', help='e.g. TIMEOUT')
    records.add_argument('--recipe', default='', metavar='COMMIT', help='a commit, or the hash of its files')
    _add_bounds(records)
    records.set_defaults(run=run_records)

    frames = verbs.add_parser('frames', help='pictures of a trial as PNG; prints their paths')
    _add_place(frames)
    frames.add_argument('trial', nargs='?', default='', metavar='TRIAL',
                        help='the end of its name; default: the newest')
    frames.add_argument('--strip', type=_positive, default=0, metavar='N', help='one file with N pictures side by side')
    frames.add_argument('--stills', type=_positive, default=3, metavar='N', help='files; default: %(default)s')
    frames.add_argument('--width', type=_positive, default=320, metavar='PIXELS', help='of a picture; default: '
                                                                                      '%(default)s')
    frames.add_argument('--out', default='', metavar='FOLDER', help='default: a temporary one')
    frames.add_argument('--json', action='store_true', help='as JSON')
    frames.set_defaults(run=run_frames)

    peers = verbs.add_parser('peers', help='what the other stations of the campaign kept')
    _add_place(peers)
    _add_bounds(peers)
    peers.set_defaults(run=run_peers)

    diff = verbs.add_parser('diff', help='between two recipes; without arguments: what was edited here')
    _add_place(diff)
    diff.add_argument('before', nargs='?', default='best', metavar='A',
                      help='a commit, a station (its last kept recipe), best, or here; default: best')
    diff.add_argument('after', nargs='?', default='here', metavar='B', help='default: here, the files in this folder')
    _add_bounds(diff)
    diff.set_defaults(run=run_diff)

    note = verbs.add_parser('note', help="add a line to the recipe's notes, or read them")
    _add_place(note)
    note.add_argument('text', nargs='*', metavar='TEXT')
    note.add_argument('--list', action='store_true', help='the ends of all notes')
    _add_bounds(note)
    note.set_defaults(run=run_note)

    train = verbs.add_parser('train', help="run the recipe's train.py on the recorded trials; writes weights.json")
    _add_place(train)
    train.add_argument('--json', action='store_true', help='as JSON')
    train.set_defaults(run=run_train)

    mcp = verbs.add_parser('mcp', help='the same verbs as an MCP server on standard input and output')
    _add_place(mcp)
    mcp.set_defaults(run=run_mcp)


def _add_place(parser) -> None:
    parser.add_argument('--campaign', default='', help='default: that of this folder, else the newest')
    parser.add_argument('--of', dest='of_station', default='', metavar='STATION',
                        help='default: the one of this folder')


def _add_bounds(parser) -> None:
    parser.add_argument('--all', dest='everything', action='store_true', help='not cut to 40 lines')
    parser.add_argument('--json', action='store_true', help='as JSON')


def _positive(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"'{text}' is no count; expected a whole number from 1 to 100000")
    return int(text)


def run_records(options) -> int:
    from enpire_agent.agent_verbs import records, trial_record

    def ask(place):
        if options.trial:
            return trial_record(place, options.trial, everything=options.everything)
        return records(place, options.count, kind=options.kind, outcome=options.outcome, recipe=options.recipe,
                       everything=options.everything)

    return _answered(options, ask)


def run_frames(options) -> int:
    from enpire_agent.agent_verbs import frames

    return _answered(options, lambda place: frames(place, options.trial, strip=options.strip, stills=options.stills,
                                                   width=options.width, folder=options.out))


def run_peers(options) -> int:
    from enpire_agent.agent_verbs import peers

    return _answered(options, lambda place: peers(place, everything=options.everything))


def run_diff(options) -> int:
    from enpire_agent.agent_verbs import diff

    return _answered(options, lambda place: diff(place, options.before, options.after, everything=options.everything))


def run_note(options) -> int:
    from enpire_agent.agent_verbs import note, notes

    if options.list or not options.text:
        return _answered(options, lambda place: notes(place, everything=options.everything))
    return _answered(options, lambda place: note(place, ' '.join(options.text)))


def run_train(options) -> int:
    from enpire_agent.agent_verbs import train

    return _answered(options, train)


def run_mcp(options) -> int:
    from enpire_agent.mcp_server import serve

    serve(_place(options))
    return 0


def _answered(options, ask) -> int:
    """Prints the answer that `ask` has for the place in `options`."""
    answer = ask(_place(options))
    print(json.dumps(answer.data) if options.json else answer.text)
    return 0


def _place(options):
    from enpire_agent.agent_place import find_place

    return find_place(options.campaign, options.of_station, Path.cwd())
