"""Verbs about research: demo, campaign, evaluate, score, ledger, report, hold, resume."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from enpire_agent.cli_station import RESEARCHER_HELP, STATION_HELP, researcher_argument

# The demo's budgets: fit for 2 cores without a GPU.
DEMO_MINUTES = 15.0        # then the second station and the report, all of it within 20
DEMO_CAMERA_SIZE = (320, 240)
DEMO_GATE_TRIALS = 20
DEMO_SEARCH_TRIALS = 4
DEMO_ITERATIONS = 5
DEMO_CONFIRMATION = 3      # trials of the second station


def add_verbs(verbs) -> None:
    from enpire_agent.cli_station import add_station_options

    demo = verbs.add_parser('demo', help='the whole loop on a simulated station: research, adoption, report')
    add_station_options(demo)
    demo.add_argument('--name', default='demo', help='name of the campaign; one that exists gets a date appended')
    demo.add_argument('--minutes', type=float, default=DEMO_MINUTES, metavar='M',
                      help="of wall time for the first station's campaign")
    _add_budget_options(demo, DEMO_GATE_TRIALS, DEMO_SEARCH_TRIALS, DEMO_ITERATIONS)
    demo.set_defaults(run=run_demo)

    campaign = verbs.add_parser('campaign', help='improve a recipe on a running station; resumes one of that name')
    add_namespace_option(campaign)
    campaign.add_argument('--name', default='', help='default: campaign- and the date')
    campaign.add_argument('--recipe', default='', metavar='FOLDER', help="to start from; default: the task's own")
    campaign.add_argument('--researcher', default='', metavar='NAME', help=RESEARCHER_HELP)
    campaign.add_argument('--knowledge', default='', metavar='FILE',
                          help='what an earlier campaign found out, for the researcher: enpire distill')
    campaign.add_argument('--minutes', type=float, default=0.0, metavar='M', help='of wall time; 0: no limit')
    campaign.add_argument('--trials', type=_count, default=0, metavar='N', help='in all; 0: no limit')
    campaign.add_argument('--tokens', type=_token_count, default=0, metavar='N',
                          help="of the researcher's model, input and output; 0: no limit")
    campaign.add_argument('--goal', type=float, default=0.0, metavar='RATE',
                          help="success rate at which the search ends, 0 to 1; default: the task's")
    _add_budget_options(campaign, 0, 0, 0)
    campaign.set_defaults(run=run_campaign)

    evaluate = verbs.add_parser('evaluate', help='many trials of a recipe in simulation without ROS, on all cores or a '
                                                 'Ray cluster')
    evaluate.add_argument('recipe', help='folder with policy.py and recipe.yaml')
    evaluate.add_argument('--trials', type=_count, default=500, metavar='N')
    evaluate.add_argument('--executor', choices=('local', 'ray'), default='local',
                          help='where; local: on this machine; ray: on the Ray cluster at --address')
    evaluate.add_argument('--address', default='', metavar='HOST:PORT',
                          help='of the Ray cluster, or auto; default: one of this machine alone')
    evaluate.add_argument('--workers', type=_count, default=0, metavar='N', help='processes; default: one a core')
    evaluate.add_argument('--seeds', default='', metavar='NAME',
                          help='stream of seeds, the same for the same name; default: a new one')
    evaluate.add_argument('--name', default='', help='of its ledger; default: evaluation- and the seeds; one that was '
                                                     'interrupted goes on')
    evaluate.add_argument('--station', default=None, metavar='NAME', help=STATION_HELP)
    evaluate.add_argument('--task', default='push_t', metavar='NAME', help='name or folder')
    evaluate.add_argument('--json', action='store_true', help='one JSON object as the last line')
    evaluate.set_defaults(run=run_evaluate)

    score = verbs.add_parser('score', help='success rate and interval from the ledgers of a campaign')
    add_campaign_option(score)
    score.add_argument('--station', default='', help="default: all of the campaign's")
    score.add_argument('--kind', choices=('search', 'gate', 'baseline', 'manual'), help='only trials of this kind')
    score.add_argument('--recipe', default='', metavar='COMMIT',
                       help='only trials of this recipe: a commit, the hash of its files, or a folder')
    score.add_argument('--env-hash', default='', metavar='HASH', help='only trials of this environment')
    score.add_argument('--window', type=_count, default=50, metavar='N',
                       help='consecutive trials of the window, and successes on fresh seeds that solve the task; '
                            'default: %(default)s')
    score.add_argument('--any-scorer', action='store_true',
                       help='score also with another scorer than the trials were made with, and say so')
    score.add_argument('--json', action='store_true', help='as JSON')
    score.set_defaults(run=run_score)

    ledger = verbs.add_parser('ledger', help='look at a ledger')
    kinds = ledger.add_subparsers(title='what to do', metavar='WHAT', required=True)
    verify = kinds.add_parser('verify', help='walk the chain and look for trials that it lacks; names the first line '
                                             'that was changed')
    add_campaign_option(verify)
    verify.add_argument('--station', default='', help="default: all of the campaign's")
    verify.set_defaults(run=run_ledger_verify)

    report = verbs.add_parser('report', help="write a campaign's page")
    add_campaign_option(report)
    report.set_defaults(run=run_report)

    hold = verbs.add_parser('hold', help='stop after the current trial')
    add_namespace_option(hold)
    hold.add_argument('reason', nargs='?', default='asked for on the command line')
    hold.set_defaults(run=run_hold)

    resume = verbs.add_parser('resume', help='go on after a hold')
    add_namespace_option(resume)
    resume.set_defaults(run=run_resume)


def _add_budget_options(parser, gate_trials: int, search_trials: int, iterations: int) -> None:
    default = "the task's" if not gate_trials else '%(default)s'
    parser.add_argument('--gate-trials', type=_count, default=gate_trials, metavar='N',
                        help=f'on fresh seeds, before and after the search; default: {default}')
    parser.add_argument('--search-trials', type=_count, default=search_trials, metavar='N',
                        help='that a hypothesis gets first, the promising up to four times as many; default: '
                             + default)
    parser.add_argument('--iterations', type=_count, default=iterations, metavar='N',
                        help='hypotheses; ' + ('default: %(default)s' if iterations else '0: no limit'))


def add_namespace_option(parser) -> None:
    parser.add_argument('--namespace', help='which station; default: the one that runs, else station_1')


def add_campaign_option(parser) -> None:
    parser.add_argument('campaign', nargs='?', default='', help='its name; default: the newest')


def _count(text: str, most: int = 1_000_000) -> int:
    if not text.isdigit() or int(text) > most:
        raise argparse.ArgumentTypeError(f"'{text}' is no count; expected a whole number from 0 to {most}")
    return int(text)


def _token_count(text: str) -> int:
    return _count(text, 10**15)


# --- demo ---

def run_demo(options) -> int:
    from enpire_agent.campaign_progress import Progress
    from enpire_agent.report import write_report
    from enpire_bringup.paths import runs_directory
    from enpire_bringup.process_environment import environment_domain
    from enpire_bringup.domain_locks import DomainReservation

    runs = runs_directory()
    name = options.name
    if (runs / name).exists():
        name = f'{name}-{time.strftime("%Y%m%d-%H%M%S")}'
    progress = Progress()
    # A domain of its own: a demo neither disturbs nor is disturbed by whatever else runs on this network.
    reservation = None if os.environ.get('ROS_DOMAIN_ID') else DomainReservation()
    domain = reservation.domain_id if reservation else environment_domain()
    try:
        improved = _demo_campaigns(options, name, domain, progress)
    finally:
        if reservation is not None:
            reservation.release()
    progress.say('writing the report')
    page = write_report(runs / name)
    print(f'enpire: report: {page}')
    return 0 if improved else 1


def _demo_campaigns(options, name: str, domain: int, progress) -> bool:
    from enpire_agent.campaign_progress import run_shown
    from enpire_agent.station_client import StationClient
    from enpire_msgs.action import RunCampaign

    progress.say(f'campaign {name}: starting station_1 (ROS domain {domain})')
    with _station(options, 'station_1', domain, progress), StationClient('station_1', domain) as client:
        result = run_shown(client, RunCampaign.Goal(
            campaign=name, max_iterations=options.iterations, max_duration=60.0 * options.minutes,
            search_trials=options.search_trials, gate_trials=options.gate_trials), progress)
        progress.say(f'station_1: {result.message}')
        if not result.gate_trials:
            return False
        progress.say('starting station_2, which will hear of the recipe and try it')
        with _station(options, 'station_2', domain, progress), StationClient('station_2', domain) as second:
            confirmed = run_shown(second, RunCampaign.Goal(
                campaign=name, max_iterations=1, search_trials=DEMO_CONFIRMATION,
                gate_trials=options.gate_trials), progress)
            progress.say(f'station_2: {confirmed.message}')
        return bool(result.success)


def _station(options, namespace: str, domain: int, progress):
    from enpire_bringup.process_runner import StationProcesses

    width, height = options.camera_size if options.camera_size != (0, 0) else DEMO_CAMERA_SIZE
    return StationProcesses(options.station, options.task, namespace, real_time_factor=options.real_time_factor,
                            camera_width=width, camera_height=height, domain_id=domain, report=progress.say)


# --- on a running station ---

def run_campaign(options) -> int:
    from enpire_agent.campaign_progress import Progress, run_shown
    from enpire_agent.cli_station import connect
    from enpire_agent.knowledge import give_knowledge
    from enpire_agent.recipe_remote import check_campaign_name
    from enpire_bringup.paths import runs_directory
    from enpire_msgs.action import RunCampaign

    name = options.name or f'campaign-{time.strftime("%Y%m%d-%H%M%S")}'
    goal = RunCampaign.Goal(
        campaign=name, recipe=os.path.abspath(options.recipe) if options.recipe else '',
        researcher=researcher_argument(options.researcher), max_iterations=options.iterations,
        max_trials=options.trials, max_duration=60.0 * options.minutes, max_tokens=options.tokens, search_trials=options.search_trials,
        gate_trials=options.gate_trials, goal=options.goal)
    if options.knowledge:
        check_campaign_name(name)
        give_knowledge(options.knowledge, runs_directory() / name)
    progress = Progress()
    progress.say(f'campaign {name}; the same command with --name {name} resumes it')
    with connect(options.namespace) as client:
        result = run_shown(client, goal, progress)
    print(f'enpire: {result.message}')
    if result.gate_trials:
        print(f'        best recipe {result.best_recipe[:10]}, {result.iterations} iterations, {result.trials} trials; '
              f'./enpire report {name} writes its page')
    _print_tokens(name, client.namespace.strip('/'))
    return 0 if result.success else 1


def _print_tokens(campaign: str, station: str) -> None:
    """What a coding agent used, where the campaign's files lie on this machine."""
    from enpire_agent.campaign_state import read_campaign
    from enpire_agent.campaign_tokens import tokens_text
    from enpire_bringup.paths import runs_directory

    file = runs_directory() / campaign / station / 'campaign.json'
    text = tokens_text(read_campaign(file)) if file.is_file() else ''
    if text:
        print(f'        {text}')


def run_hold(options) -> int:
    return asked(options, lambda station: station.hold(options.reason))


def run_resume(options) -> int:
    return asked(options, lambda station: station.resume())


def asked(options, ask) -> int:
    """Exit code of a verb: prints what `ask` (of the station in `options`) answers, or why there is no answer."""
    from enpire_agent.remote_station import Station, StationCallError

    with Station(options.namespace or '') as station:
        try:
            print(f'enpire: {ask(station)}')
        except StationCallError as error:
            print(f'enpire: {error}')
            return 1
    return 0


# --- on files ---

def campaign_directory(name: str) -> Path:
    """runs/<name>, else the campaign of the current folder or of $ENPIRE_CAMPAIGN, else the one with the newest ledger.

    Raises ConfigurationError listing those there are.
    """
    from enpire_agent.agent_place import CAMPAIGN, surrounding_station
    from enpire_bringup.configuration import ConfigurationError
    from enpire_bringup.paths import runs_directory

    around = surrounding_station(Path.cwd())
    runs = around.parents[1] if around is not None else runs_directory()
    name = name or os.environ.get(CAMPAIGN, '') or (around.parent.name if around is not None else '')
    ledgers = sorted(runs.glob('*/*/ledger.jsonl'), key=lambda file: file.stat().st_mtime)
    known = list(dict.fromkeys(file.parents[1].name for file in reversed(ledgers)))
    if name and (runs / name).is_dir():
        return runs / name
    if name or not known:
        raise ConfigurationError(f"no campaign '{name}' in {runs}; known: {', '.join(known) or 'none'}" if name else
                                 f'no campaign in {runs}; run `enpire demo` or `enpire campaign` first, in this '
                                 f'folder or with $ENPIRE_RUNS')
    return runs / known[0]


def _ledgers(options) -> list:
    """The ledgers of a campaign, or of the station that was asked for."""
    from enpire_agent.ledger import Ledger
    from enpire_bringup.configuration import ConfigurationError

    directory = campaign_directory(options.campaign)
    # A station with trials and no ledger is one as well: that of a ledger that is gone.
    stations = sorted({file.parent.name for what in ('ledger.jsonl', 'trials') for file in directory.glob(f'*/{what}')})
    if not stations or options.station and options.station not in stations:
        raise ConfigurationError(f"no ledger of station '{options.station}' in {directory}; stations with one: "
                                 + (', '.join(stations) or 'none'))
    return [Ledger(directory / station / 'ledger.jsonl') for station in stations
            if options.station in ('', station)]


def run_evaluate(options) -> int:
    import secrets

    from enpire_agent.evaluation import evaluate
    from enpire_agent.evaluation_progress import ProgressBar
    from enpire_agent.score import score
    from enpire_bringup.paths import runs_directory

    stream = options.seeds or secrets.token_hex(4)
    executor, began = _executor(options), time.monotonic()
    ledger = evaluate(Path(options.recipe), runs=runs_directory(), name=options.name or f'evaluation-{stream}',
                      stream=stream, trials=options.trials, executor=executor, task=options.task,
                      station=options.station, progress=ProgressBar(sys.stderr).show)
    lines, seconds = ledger.verify(), time.monotonic() - began
    figures = score(lines)
    low, high = figures.interval
    if options.json:
        print(json.dumps({'trials': figures.trials, 'successes': figures.successes, 'outcomes': figures.outcomes,
                          'interval': [low, high], 'env_hash': figures.env_hash, 'seeds': stream,
                          'executor': executor.name, 'workers': executor.workers, 'seconds': round(seconds, 1),
                          'ledger': str(ledger.file)}))
        return 0
    print(f'{figures.successes} of {figures.trials} simulated trials succeeded: {100 * figures.rate:.1f} %, 95 % interval '
          f'{100 * low:.1f} to {100 * high:.1f} %; {", ".join(f"{n} {name}" for name, n in figures.outcomes.items())}\n'
          f'{executor.workers} workers, {seconds:.0f} s; the same again: --seeds {stream} --name <another>\n{ledger.file}')
    return 0


def _executor(options):
    from enpire_agent.evaluation import EvaluationError, LocalExecutor
    from enpire_agent.ray_executor import RayExecutor

    if options.executor == 'ray':
        return RayExecutor(options.address, options.workers)
    if options.address:
        raise EvaluationError('--address is of a Ray cluster; add --executor ray')
    return LocalExecutor(options.workers)


def run_score(options) -> int:
    from enpire_agent.score import score
    from enpire_agent.scored_trials import notes, score_text, scored_trials

    trials = scored_trials(_ledgers(options), kind=options.kind or '', recipe=options.recipe,
                           env_hash=options.env_hash, any_scorer=options.any_scorer)
    figures = score(trials.lines, options.window)
    if options.json:
        print(json.dumps({
            'trials': figures.trials, 'successes': figures.successes, 'outcomes': figures.outcomes,
            'window': figures.window, 'window_success': figures.window_success, 'interval': list(figures.interval),
            'env_hash': figures.env_hash, 'time_to_success_s': figures.time_to_success_s,
            'solved': figures.solved.yes, 'fresh_seeds': {
                'needed': figures.solved.needed, 'trials': figures.solved.trials,
                'successes': figures.solved.successes, 'interval': list(figures.solved.interval),
                'recipe': figures.solved.recipe}}))
        print(*notes(trials), sep='\n', end='', file=sys.stderr)
        return 0
    if not figures.trials:
        print(f'{", ".join(map(str, trials.ledgers))}: no trials of that sort')
        return 1
    print(score_text(figures, trials))
    return 0


def run_ledger_verify(options) -> int:
    from enpire_agent.abandoned_trials import unentered_trials

    removed = 0
    for ledger in _ledgers(options):
        there = ledger.file.exists()
        print(f'{ledger.file}: ' + (f'{len(ledger.verify())} lines, chain intact' if there else 'no ledger'))
        for trial in unentered_trials(ledger.file.parent):
            if trial.running:
                print(f'        {trial.directory.name} runs now')
            elif trial.completed:
                removed += 1
                print(f'        {trial.directory.name} was completed and has no line: either the runner ended in that '
                      f'instant, or lines were removed from the end')
            else:
                print(f'        {trial.directory.name} was interrupted; it is entered as ABORTED when the station '
                      f'starts')
    return 1 if removed else 0


def run_report(options) -> int:
    from enpire_agent.report import write_report

    page = write_report(campaign_directory(options.campaign))
    print(f'{page}\n{page.parent / "report"}: its charts as PNG')
    return 0
