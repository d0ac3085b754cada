"""Verbs about recipes and how they travel: recipes, adopt."""

from __future__ import annotations

import json
from dataclasses import asdict

DECISIONS = ('start', 'keep', 'revert', 'adopt')
_MARKS = {'start': 'start', 'keep': 'kept', 'revert': 'reverted', 'adopt': 'adopted'}


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
