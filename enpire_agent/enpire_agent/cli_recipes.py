"""Verbs about recipes, how they travel, and what they teach: recipes, adopt, distill."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

DECISIONS = ('start', 'keep', 'revert', 'adopt')
_MARKS = {'start': 'start', 'keep': 'kept', 'revert': 'reverted', 'adopt': 'adopted'}
_LONGEST_PAUSE = 120.0      # s of wall time that a model is waited for


def add_verbs(verbs) -> None:
    from enpire_agent.cli_research import add_campaign_option, add_namespace_option

    recipes = verbs.add_parser('recipes', help='what a campaign tried, kept, took back and adopted, out of Git')
    add_campaign_option(recipes)
    recipes.add_argument('--decision', choices=DECISIONS, help='only these, e.g. revert: ideas that were taken back')
    recipes.add_argument('--grep', default='', metavar='TEXT',
                         help='only those whose hypothesis, method or reason has it')
    recipes.add_argument('--station', default='', help='only of this station')
    recipes.add_argument('--show', default='', metavar='COMMIT', help='message and difference of one of them')
    recipes.add_argument('--all', dest='everything', action='store_true', help='not cut to 40 lines')
    recipes.add_argument('--json', action='store_true', help='as JSON')
    recipes.set_defaults(run=run_recipes)

    adopt = verbs.add_parser('adopt', help='take over a recipe that a peer announced')
    add_namespace_option(adopt)
    adopt.add_argument('commit', nargs='?', default='', help='default: the best one announced')
    how = adopt.add_mutually_exclusive_group()
    how.add_argument('--merge', dest='how', action='store_const', const='merge', default='',
                     help='put all that the peer changed on top of ours, instead of taking its files as they are')
    how.add_argument('--cherry-pick', dest='how', action='store_const', const='cherry_pick',
                     help='put only what this commit changed on top of ours')
    adopt.set_defaults(run=run_adopt)

    distill = verbs.add_parser('distill', help='what a campaign found out, as a short page for the next one')
    add_campaign_option(distill)
    distill.add_argument('--agent', default='', metavar='NAME',
                         help='have a coding agent put it into words: its name, or a settings file; default: compiled')
    distill.add_argument('--namespace', default='', metavar='STATION',
                         help="whose login the agent uses; default: the campaign's first station")
    distill.set_defaults(run=run_distill)


def run_recipes(options) -> int:
    from enpire_agent.agent_verbs import bounded
    from enpire_agent.cli_research import campaign_directory
    from enpire_agent.recipe_history import campaign_history, show

    directory = campaign_directory(options.campaign)
    if options.show:
        print(bounded(show(directory, options.show).splitlines(), options.everything))
        return 0
    recipes = [recipe for recipe in campaign_history(directory)
               if options.decision in (None, recipe.decision) and options.station in ('', recipe.station)
               and recipe.mentions(options.grep)]
    if options.json:
        print(json.dumps([asdict(recipe) for recipe in recipes]))
        return 0
    if not recipes:
        print(f'enpire: no such recipe in {directory}')
        return 1
    width = max(len(recipe.station) for recipe in recipes)
    lines = []
    for recipe in recipes:
        figures = f'{recipe.successes}/{recipe.trials}' if recipe.trials else '-'
        mark = _MARKS.get(recipe.decision, recipe.decision)
        lines.append(f'{recipe.commit[:10]}  {recipe.station:{width}}  {mark:8}  {figures:>7}  {recipe.hypothesis}'
                     + (f'  [{recipe.reason}]' if recipe.reason else ''))
    print(bounded(lines, options.everything, newest=True))
    print(f'\n./enpire recipes {directory.name} --show COMMIT shows what one changed; ./enpire adopt COMMIT takes over '
          "a peer's")
    return 0


def run_adopt(options) -> int:
    from enpire_agent.cli_research import asked

    return asked(options, lambda station: station.adopt(options.commit, how=options.how))


def run_distill(options) -> int:
    from enpire_agent.cli_research import campaign_directory
    from enpire_agent.distill import distill
    from enpire_agent.durable_file import write_durably
    from enpire_agent.knowledge import DISTILLED

    directory = campaign_directory(options.campaign)
    page = _distilled_by_agent(directory, options) if options.agent else distill(directory)
    write_durably(directory / DISTILLED, page.encode('utf-8'))
    print(f'{page}\nenpire: {directory / DISTILLED}')
    return 0


def _distilled_by_agent(directory, options) -> str:
    import tempfile

    from enpire_agent.agent_programs import agent_home, make_agent
    from enpire_agent.cli_station import researcher_argument
    from enpire_agent.distill import distill_by_agent
    from enpire_agent.researchers import read_researcher
    from enpire_agent.station_run import read_runs

    choice = read_researcher(researcher_argument(options.agent))
    home = agent_home(directory.parent, options.namespace or read_runs(directory)[0].name, choice.name)
    agent = make_agent(choice.name, choice.settings, home)
    with tempfile.TemporaryDirectory(prefix='enpire-distill-') as folder:
        page, tokens = distill_by_agent(agent, directory, folder, pause=_wait)
    print(f'enpire: {choice.name} used {tokens.input} tokens of input and {tokens.output} of output', file=sys.stderr)
    return page


def _wait(seconds: float, why: str) -> bool:
    if seconds > _LONGEST_PAUSE:
        return False
    print(f'enpire: {why}; again in {seconds:.0f} s', file=sys.stderr)
    time.sleep(seconds)
    return True
