"""Verbs that measure: enpire bench verdict, perception, planning, reset, lockstep, memory, fleet, campaign,
evaluate, gym-pusht."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys

from enpire_agent.cli_station import STATION_HELP


def add_verbs(verbs) -> None:
    bench = verbs.add_parser('bench', help='measure this machine: verdict, perception, planning, reset, lockstep, '
                                               'memory, fleet, campaign, evaluate, gym-pusht')
    kinds = bench.add_subparsers(title='what to measure', metavar='WHAT', required=True)

    verdict = kinds.add_parser('verdict', help='latency from a camera frame to its verdict')
    verdict.add_argument('--frames', type=_count, default=300, metavar='N')
    _add_common(verdict, run_verdict)

    perception = kinds.add_parser('perception', help='errors of the pose estimate on rendered images')
    perception.add_argument('--poses', type=_count, default=500, metavar='N')
    perception.add_argument('--camera-size', default='', metavar='WxH', help='e.g. 320x240')
    _add_common(perception, run_perception)

    planning = kinds.add_parser('planning', help='how many random moves the planner finds, and how fast')
    planning.add_argument('--pairs', type=_count, default=100, metavar='N', help='pairs of poses')
    _add_common(planning, run_planning)

    reset = kinds.add_parser('reset', help='how often, how fast and how well the arm resets the scene')
    reset.add_argument('--n', type=_count, default=50, metavar='N', help='resets')
    reset.add_argument('--hard', action='store_true',
                       help='before every reset an arm pushes the object away: to the border, under the other arm; every '
                            'second eight turn it around')
    _add_common(reset, run_reset)

    lockstep = kinds.add_parser('lockstep', help='policy steps a second, with cameras and without')
    lockstep.add_argument('--steps', type=_count, default=900, metavar='N', help='policy steps of each kind')
    lockstep.add_argument('--trials', type=_count, default=0, metavar='N',
                          help='whole trials instead: how fast they run, from the reset to the records')
    _add_common(lockstep, run_lockstep)

    campaign = kinds.add_parser('campaign', help='how much research gains; long, and the same command resumes it')
    campaign.add_argument('--repeats', type=_count, default=5, metavar='N', help='campaigns')
    campaign.add_argument('--gate', type=_count, default=50, metavar='N', help='fresh seeds before and after each')
    campaign.add_argument('--iterations', type=_count, default=8, metavar='N', help='hypotheses at most, each')
    campaign.add_argument('--name', default='', help='of the bench; its campaigns append a number; default: '
                                                     'bench-campaign, with -in-process where that is asked for')
    campaign.add_argument('--in-process', action='store_true',
                          help='trials without ROS and cameras: minutes instead of hours, to try a researcher out')
    campaign.add_argument('--published', type=_published, action='append', default=[], metavar='NAME=MINUTES:RATE',
                          help="somebody else's figure, to be drawn beside the curves")
    for name, default, text in (('most-before', 0.5, 'success before, of every campaign'),
                                ('least-median', 0.85, 'success after, in the median'),
                                ('least-worst', 0.75, 'success after, in the worst campaign'),
                                ('most-minutes', math.inf, 'of every campaign')):
        campaign.add_argument(f'--{name}', type=float, default=default, metavar='X',
                              help=f'what the exit code asks: {text}; default: %(default)s')
    _add_common(campaign, run_campaign)

    memory = kinds.add_parser('memory', help="memory of the station's processes, and how fast it grows")
    memory.add_argument('--seconds', type=_count, default=120, metavar='S', help='s of wall time; a night has 36000')
    _add_common(memory, run_memory)

    fleet = kinds.add_parser('fleet', help='time from the announcement of a recipe until the peers have it')
    fleet.add_argument('--recipes', type=_count, default=200, metavar='N')
    fleet.add_argument('--stations', type=_count, default=2, metavar='N')
    _add_common(fleet, run_fleet)

    evaluate = kinds.add_parser('evaluate', help='trials a second of an evaluation, and what a second worker gives')
    evaluate.add_argument('--trials', type=_count, default=40, metavar='N', help='of each evaluation')
    evaluate.add_argument('--workers', type=_count, default=2, metavar='N', help='to compare with one')
    evaluate.add_argument('--executor', choices=('local', 'ray'), help='default: both, on this machine')
    evaluate.add_argument('--recipe', default='', metavar='FOLDER', help="default: a good one of the task's library")
    _add_common(evaluate, run_evaluate)

    pusht = kinds.add_parser('gym-pusht', help='a recipe in the bare loop of the package gym-pusht (optional extra)')
    pusht.add_argument('--recipe', default='planned_pushes', metavar='NAME',
                       help='folder, or start, planned_pushes, cloned_pushes')
    pusht.add_argument('--trials', type=_count, default=500, metavar='N')
    pusht.add_argument('--first-seed', type=_count, default=10000, metavar='N')
    pusht.add_argument('--level', choices=('state', 'keypoints', 'pixels'), default='state',
                       help='what the policy gets to see')
    pusht.add_argument('--json', action='store_true', help='one JSON object as the last line')
    pusht.set_defaults(run=run_gym_pusht)


def _published(text: str) -> tuple[str, float, float]:
    name, _, figures = text.rpartition('=')
    minutes, _, rate = figures.partition(':')
    try:
        found = name, float(minutes), float(rate)
    except ValueError:
        found = '', 0.0, 0.0
    if not (found[0] and found[1] > 0 and 0 <= found[2] <= 1):
        raise argparse.ArgumentTypeError(f"'{text}' is no figure; write e.g. 'Codex=120:0.95' (minutes, success rate)")
    return found


def _add_common(parser: argparse.ArgumentParser, run) -> None:
    parser.add_argument('--station', default=None, metavar='NAME', help=STATION_HELP)
    parser.add_argument('--task', default='push_t', metavar='NAME', help='name or folder')
    parser.add_argument('--json', action='store_true', help='one JSON object as the last line')
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"'{text}' is no count; expected a whole number from 1 to 100000")
    return int(text)


def _report(line: str) -> None:
    print(f'enpire: {line}', file=sys.stderr, flush=True)


def run_verdict(options) -> int:
    from enpire_reward.bench_verdict import COMPUTE_LIMIT_MS, LATENCY_LIMIT_MS, run

    figures = run(options.frames, station=options.station, task=options.task, report=_report)
    print(f'{figures["frames"]} frames at {figures["frame_rate_hz"]} Hz; looked at meanwhile: '
          + ', '.join(f'{topic.split("/")[0]} {seen["size"]} {seen["hz"]} Hz'
                      for topic, seen in figures['cameras'].items()))
    for key, title in (('latency_ms', 'frame to verdict'), ('compute_ms', 'computing part'),
                       ('jitter_ms', 'late wake-ups of this machine')):
        print(f'{title:30} ' + '  '.join(f'{name} {value:7.2f}' for name, value in figures[key].items()) + '  ms')
    met = figures['latency_ms']['p99'] <= LATENCY_LIMIT_MS and figures['compute_ms']['p99'] <= COMPUTE_LIMIT_MS
    print(f'p99 {"meets" if met else "misses"} the limits of {LATENCY_LIMIT_MS:.0f} ms and {COMPUTE_LIMIT_MS:.0f} ms')
    return _finish(options, figures, met)


def run_perception(options) -> int:
    from enpire_bringup.configuration import ConfigurationError
    from enpire_bringup.station import load_station
    from enpire_bringup.task import load_task
    os.environ.setdefault('MUJOCO_GL', 'osmesa')
    from enpire_bringup.bench_perception import run

    station = load_station(options.station)
    if options.camera_size:
        width, _, height = options.camera_size.partition('x')
        if not (width.isdigit() and height.isdigit()):
            raise ConfigurationError(f"--camera-size is '{options.camera_size}'; write e.g. 320x240")
        station = station.with_camera_size(int(width), int(height))
    figures = run(station, load_task(options.task), options.poses)
    print(f'{figures["poses"]} plain views in {figures["image"]} images, each with its own light and camera pose; '
          f'{figures["not_visible"]} not recognized, {figures["hidden_by_arm"]} more were hidden by an arm')
    for key, title in (('position_mm', 'position, mm'), ('yaw_deg', 'yaw, degrees'),
                       ('compute_ms', 'compute, ms'), ('tracking_ms', 'compute while tracking, ms')):
        print(f'{title:30} ' + '  '.join(f'{name} {value:7.3f}' for name, value in figures[key].items()))
    print(f'squared error over covariance: {figures["normalized_error"]}')
    covered = figures['covered']
    print(f'{covered["views"]} partly covered views: {covered["trusted"]} trusted, {covered["trusted_wrong"]} of these '
          f'wrong; {covered["occluded"]} occluded, {100 * (figures["occluded_flagged"] or 0):.1f} % of these flagged')
    return _finish(options, figures, True)


def run_planning(options) -> int:
    from enpire_bringup.bench_planning import run
    from enpire_bringup.station import load_station
    from enpire_bringup.task import load_task

    figures = run(load_station(options.station), load_task(options.task), options.pairs, _report)
    for title, part in (('as the station is', figures), ('with boxes in the way', figures['with_boxes'])):
        print(f'{title:30} {part["solved"]} of {part["pairs"]} moves planned by {part["planner"]}, ms a move: '
              + '  '.join(f'{name} {value:.1f}' for name, value in part['ms'].items()))
    jitter = '  '.join(f'{name} {value:.2f}' for name, value in figures['jitter_ms'].items())
    print(f'{"late wake-ups of this machine":30} ms: {jitter}')
    return _finish(options, figures, figures['solved'] >= 0.99 * figures['pairs'])


def run_gym_pusht(options) -> int:
    from enpire_agent.bench_gym_pusht import run

    figures = run(options.recipe, level=options.level, trials=options.trials, first_seed=options.first_seed,
                  report=lambda text: _report(text) if text.split()[0].endswith('0') else None)
    print(f'{options.recipe} ({options.level}): {figures["successes"]} of {figures["trials"]} trials succeeded, '
          f'{figures["mean_steps"]:g} steps and {figures["seconds_per_trial"]:g} s of CPU time of the policy a trial')
    return _finish(options, figures, True)


def run_reset(options) -> int:
    from enpire_reset.bench_reset import run

    figures = run(options.n, hard=options.hard, station=options.station, task=options.task, report=_report)
    print(f'{figures["succeeded"]} of {figures["n"]} resets succeeded, {figures["attempts_mean"]:g} attempts on average')
    if figures['succeeded']:
        for key, title in (('seconds', 'duration, s of ROS time'), ('wall_seconds', 'duration, s of wall time'),
                           ('position_mm', 'position error, mm'), ('yaw_deg', 'yaw error, degrees')):
            print(f'{title:30} ' + '  '.join(f'{name} {value:7.2f}' for name, value in figures[key].items()))
    for reason in figures['failures']:
        print(f'failed: {reason}')
    return _finish(options, figures, True)


def run_lockstep(options) -> int:
    if options.trials:
        return _run_lockstep_trials(options)
    from enpire_bringup.bench_lockstep import LEAST_PACE, LEAST_STEPS_PER_S, run

    figures = run(options.steps, station=options.station, task=options.task, report=_report)
    for key in ('with_cameras', 'without'):
        part = figures[key]
        cameras = ', '.join(part['cameras']) or 'no camera'
        print(f'{key.replace("_", " "):14} {part["steps_per_s"]:7.1f} policy steps/s, {part["realtime_factor"]:.2f} x real '
              f'time ({cameras}); CPU ms a step: '
              + '  '.join(f'{name} {value:.1f}' for name, value in part['cpu_ms_per_step'].items()))
    met = (figures['with_cameras']['realtime_factor'] >= LEAST_PACE
           and figures['without']['steps_per_s'] >= LEAST_STEPS_PER_S)
    print(f'{"meets" if met else "misses"} {LEAST_PACE:g} x real time with cameras and {LEAST_STEPS_PER_S:g} policy steps/s '
          'without')
    return _finish(options, figures, met)


def _run_lockstep_trials(options) -> int:
    from enpire_agent.bench_trials import LEAST_PACE, run

    figures = run(options.trials, station=options.station, task=options.task, report=_report)
    print(f'{figures["trials"]} trials of {figures["recipe"]}: '
          + ', '.join(f'{count} {outcome}' for outcome, count in figures['outcomes'].items()))
    for key, title in (('policy_pace', 'while the policy runs, x real time'), ('pace', 'whole trial, x real time')):
        print(f'{title:35} ' + '  '.join(f'{name} {value:5.2f}' for name, value in figures[key].items()))
    print(f'{"wall time, median":35} ' + '  '.join(f'{name} {value:.2f} s' for name, value in figures['wall_s'].items()))
    met = figures['policy_pace']['median'] >= LEAST_PACE
    print(f'{"meets" if met else "misses"} {LEAST_PACE:g} x real time while the policy runs, in the median')
    return _finish(options, figures, met)


def run_memory(options) -> int:
    from enpire_bringup.bench_memory import run

    figures = run(options.seconds, station=options.station, task=options.task, report=_report)
    for name, part in figures['processes'].items():
        print(f'{name:14} {part["resident_mb"]:7.1f} MB, at most {part["peak_mb"]:.1f}; '
              f'{part["growth_mb_per_hour"]:+8.1f} MB an hour')
    print(f'{"all":14} {figures["total_mb"]:7.1f} MB; {figures["growth_mb_per_hour"]:+.1f} MB an hour over '
          f'{figures["policy_steps"]} policy steps in {figures["seconds"]:.0f} s')
    return _finish(options, figures, True)


def run_fleet(options) -> int:
    from enpire_agent.bench_fleet import VISIBLE_LIMIT_MS, run
    from enpire_bringup.configuration import ConfigurationError

    if options.stations < 2:
        raise ConfigurationError('--stations is 1; a recipe travels between at least 2')
    figures = run(options.recipes, options.stations, station=options.station, task=options.task, report=_report)
    print(f'{figures["recipes"]} recipes of one of {figures["stations"]} stations')
    for key, title in (('kept_to_announced_ms', 'kept to announced (push)'),
                       ('announced_to_visible_ms', 'announced to visible at the peer'),
                       ('jitter_ms', 'late wake-ups of this machine')):
        print(f'{title:33} ' + '  '.join(f'{name} {value:8.1f}' for name, value in figures[key].items()) + '  ms')
    met = figures['announced_to_visible_ms']['p99'] < VISIBLE_LIMIT_MS
    print(f'p99 {"meets" if met else "misses"} the limit of {VISIBLE_LIMIT_MS:.0f} ms')
    return _finish(options, figures, met)


def run_campaign(options) -> int:
    from enpire_agent.bench_campaign import meets, run

    name = options.name or 'bench-campaign' + ('-in-process' if options.in_process else '')
    figures = run(options.repeats, options.gate, name=name, iterations=options.iterations,
                  in_process=options.in_process, station=options.station, task=options.task,
                  published=options.published, report=_report)
    for repeat in figures['repeats']:
        print(f'{repeat["campaign"]:30} {repeat["before"]:6.0%} -> {repeat["after"]:6.0%} on fresh seeds; '
              f'{repeat["iterations"]} iterations, {repeat["trials"]} trials, {repeat["minutes"]:.0f} min, '
              f'MRU {repeat["mru"]:.0%}; best: {repeat["method"]}')
    print(f'median {figures["before_median"]:.0%} -> {figures["after_median"]:.0%}, worst after '
          f'{figures["after_worst"]:.0%}; curves: {figures["picture"]}')
    met = meets(figures, most_before=options.most_before, least_median=options.least_median,
                least_worst=options.least_worst, most_minutes=options.most_minutes)
    within = f', within {options.most_minutes:g} min each' if math.isfinite(options.most_minutes) else ''
    print(f'{"meets" if met else "misses"} at most {options.most_before:.0%} before, at least '
          f'{options.least_median:.0%} after in the median and {options.least_worst:.0%} in the worst{within}')
    return _finish(options, figures, met)


def run_evaluate(options) -> int:
    from enpire_agent.bench_evaluate import run

    figures = run(options.trials, executors=(options.executor,) if options.executor else ('local', 'ray'),
                  workers=options.workers, recipe=options.recipe, station=options.station, task=options.task,
                  report=_report)
    for part in figures['runs']:
        print(f'{part["executor"]:6} {part["workers"]:3} workers {part["trials_per_s"]:7.2f} trials/s, '
              f'{part["cpu_s_per_trial"]:.2f} CPU s a trial, the first one began after {part["start_s"]:.1f} s')
    for executor, efficiency in figures['scaling_efficiency'].items():
        print(f'{executor:6} scaling efficiency from 1 to {options.workers} workers: {efficiency:.0%}')
    different, late = figures['different'], sum(part['late_steps'] for part in figures['runs'])
    print(f'{figures["successes"]} of {figures["trials"]} trials of {figures["recipe"]} succeeded; '
          + (f'NOT the same result each time: {len(different)} seeds; {late} steps were held for a policy that was late'
             if different else 'the same results each time'))
    return _finish(options, figures, not different)


def _finish(options, figures: dict, met: bool) -> int:
    if options.json:
        print(json.dumps(figures))
    return 0 if met else 1
