import pytest
import yaml

from enpire_agent.idea_library import load_ideas
from enpire_agent.recipe import load_recipe, static_check, with_parameters
from enpire_agent.researcher import BuiltinResearcher, Context, PeerRecipe, Tried
from enpire_bringup.configuration import ConfigurationError

ENV = 'e' * 64


def _context(recipe, history=(), peers=(), best=(0.1, 0.5), **changes):
    return Context(recipe, 'push_t', ENV, best, history, peers, **changes)


def _peer(**changes):
    return PeerRecipe(**{**dict(
        station='station_2', commit='2' * 40, task='push_t', env_hash=ENV, remote='', method='path',
        hypothesis='Go round', decision='keep', trials=20, successes=18, interval=(0.68, 0.99)), **changes})


def _tried(edit, kept):
    return Tried(edit.origin, edit.method, kept, 6, 3)


def test_proposes_each_variant_once_and_then_nothing(recipe, ideas_file):
    researcher, history, seen = BuiltinResearcher(ideas_file), [], []
    while (edit := researcher.propose(_context(recipe, history))) is not None:
        seen.append(edit.origin)
        history.append(_tried(edit, kept=False))
    assert sorted(seen) == ['idea:curved#0', 'idea:harder#0', 'idea:harder#1']


def test_a_kept_idea_opens_its_refinements_and_they_come_first(recipe, ideas_file):
    history = [Tried('idea:curved#0', 'path', True, 6, 5)]
    (recipe / 'recipe.yaml').write_text((recipe / 'recipe.yaml').read_text().replace('curve: false', 'curve: true'))
    edit = BuiltinResearcher(ideas_file).propose(_context(recipe, history))
    assert edit.origin == 'idea:lead#0'


def test_a_family_that_failed_is_left_for_another(recipe, ideas_file):
    history = [Tried('idea:harder#0', 'gains', False, 6, 1)]
    assert BuiltinResearcher(ideas_file).propose(_context(recipe, history)).origin == 'idea:curved#0'


def test_the_edit_changes_one_parameter_and_keeps_the_comments(recipe, ideas_file):
    edit = BuiltinResearcher(ideas_file).propose(_context(recipe))
    assert edit.files['recipe.yaml'] == (recipe / 'recipe.yaml').read_text().replace('gain: 1.0 ', 'gain: 2.0 ')
    assert 'gain = 2.0' in edit.hypothesis


def test_a_better_recipe_of_a_peer_comes_first(recipe, ideas_file):
    edit = BuiltinResearcher(ideas_file).propose(
        _context(recipe, peers=[_peer()], read_peer=lambda peer: {'policy.py': 'x'}))
    assert edit.adopts == '2' * 40
    assert '18 successes of 20' in edit.hypothesis


@pytest.mark.parametrize('changes', [
    {'env_hash': 'f' * 64}, {'task': 'other'}, {'interval': (0.05, 0.3)}])
def test_a_recipe_of_another_environment_task_or_worse_is_not_adopted(recipe, ideas_file, changes):
    edit = BuiltinResearcher(ideas_file).propose(
        _context(recipe, peers=[_peer(**changes)], read_peer=lambda peer: {'policy.py': 'x'}))
    assert not edit.adopts


def test_a_peer_that_cannot_be_fetched_does_not_stop_research(recipe, ideas_file):
    def away(peer):
        raise RuntimeError('remote is away')

    said = []
    context = Context(recipe, 'push_t', ENV, (0, 1e-9), [], [_peer()], read_peer=away, log=said.append)
    assert BuiltinResearcher(ideas_file).propose(context).origin.startswith('idea:')
    assert 'remote is away' in said[0]


def test_what_a_peer_rejected_comes_last(recipe, ideas_file):
    rejected = [Tried('idea:harder#0', 'gains', False, 6, 1)]
    researcher, history, seen = BuiltinResearcher(ideas_file), [], []
    assert researcher.propose(_context(recipe)).origin == 'idea:harder#0'
    while (edit := researcher.propose(_context(recipe, history, peer_history=rejected))) is not None:
        seen.append(edit.origin)
        history.append(_tried(edit, kept=False))
    assert seen == ['idea:curved#0', 'idea:harder#1', 'idea:harder#0']


def test_what_helped_a_peer_is_combined_with_the_own_best_early_and_as_it_was_set_there(recipe, ideas_file):
    ideas_file.write_text(
        ideas_file.read_text() + '  - {id: s, family: gains, hypothesis: Try, search: {gain: [0.5, 3.0]}}\n')
    (recipe / 'recipe.yaml').write_text((recipe / 'recipe.yaml').read_text().replace('curve: false', 'curve: true'))
    helped = [Tried('idea:s#gain=2.75', 'gains', True, 12, 11), Tried('idea:s#gain=9.5', 'gains', True, 12, 11)]
    edit = BuiltinResearcher(ideas_file).propose(_context(recipe, peer_history=helped))
    assert edit.origin == 'idea:s#gain=2.75'
    parameters = yaml.safe_load(edit.files['recipe.yaml'])['parameters']
    assert parameters['gain'] == 2.75 and parameters['curve'] is True
    again = BuiltinResearcher(ideas_file).propose(_context(recipe, [_tried(edit, kept=False)], peer_history=helped))
    assert again.origin not in ('idea:s#gain=2.75', 'idea:s#gain=9.5')


def test_research_goes_on_from_an_adopted_recipe_as_from_one_of_its_own(recipe, ideas_file):
    (recipe / 'recipe.yaml').write_text((recipe / 'recipe.yaml').read_text().replace('gain: 1.0', 'gain: 1.3'))
    history = [Tried(f'adopt:station_2/{"2" * 40}', 'path', True, 6, 6)]
    researcher, seen = BuiltinResearcher(ideas_file), []
    while (edit := researcher.propose(_context(recipe, history, built_on={'idea:curved#0'}))) is not None:
        seen.append(edit.origin)
        history.append(_tried(edit, kept=False))
        if 'lead' in edit.origin:
            assert yaml.safe_load(edit.files['recipe.yaml'])['parameters']['gain'] == 1.3
    assert seen[0] == 'idea:lead#0', 'what builds on the idea that the peer kept'
    assert 'idea:curved#0' not in seen, 'that is part of the recipe already'


def test_ideas_may_replace_a_file(recipe, ideas_file):
    (ideas_file.parent / 'better.py').write_text('class Policy:\n    pass\n')
    ideas_file.write_text('ideas:\n  - {id: b, family: f, hypothesis: Better, files: {policy.py: better.py}}\n')
    edit = BuiltinResearcher(ideas_file).propose(_context(recipe))
    assert edit.files == {'policy.py': 'class Policy:\n    pass\n'}


SEARCH = 'ideas:\n  - {id: s, family: f, hypothesis: Try, search: {gain: [0.5, 3.0]}, attempts: 6}\n'


def search_for_gain(recipe, ideas_file, rate, rounds=6, **context):
    """Gains that are proposed one after the other when `rate` tells how many of 100 trials succeed."""
    history, gains = [], []
    for _ in range(rounds):
        edit = BuiltinResearcher(ideas_file).propose(_context(recipe, history, **context))
        if edit is None:
            break
        gains.append(yaml.safe_load(edit.files['recipe.yaml'])['parameters']['gain'])
        history.append(Tried(edit.origin, edit.method, False, 100, round(100 * rate(gains[-1]))))
    return gains, history


def test_a_range_is_searched_from_what_was_tried_and_no_further_than_allowed(recipe, ideas_file):
    ideas_file.write_text(SEARCH)
    gains, history = search_for_gain(recipe, ideas_file, lambda gain: max(0.0, 1 - abs(gain - 2.5)), rounds=9)
    assert len(gains) == len(set(gains)) == 6 and all(0.5 <= gain <= 3.0 for gain in gains)
    assert BuiltinResearcher(ideas_file).propose(_context(recipe, history)) is None


def test_results_steer_a_search(recipe, ideas_file):
    ideas_file.write_text(SEARCH.replace('6', '20'))
    low, _ = search_for_gain(recipe, ideas_file, lambda gain: max(0.0, 1 - abs(gain - 0.7)), rounds=14)
    high, _ = search_for_gain(recipe, ideas_file, lambda gain: max(0.0, 1 - abs(gain - 2.8)), rounds=14)
    assert sum(low[5:]) < sum(high[5:]) - 3


def test_a_search_goes_on_from_the_parameters_of_an_adopted_recipe(recipe, ideas_file):
    ideas_file.write_text(SEARCH.replace('6', '20'))
    text, sums = (recipe / 'recipe.yaml').read_text(), []
    for best in (0.8, 2.8):
        (recipe / 'recipe.yaml').write_text(text.replace('gain: 1.0', f'gain: {best}'))
        gains, _ = search_for_gain(recipe, ideas_file, lambda gain: 0.1, rounds=14, best=(0.9, 1.0))
        assert best not in gains
        sums.append(sum(gains[5:]))
    assert sums[0] < sums[1] - 1, 'where nothing else tells, nearer to what it has'


def test_a_search_goes_on_from_what_peers_tried(recipe, ideas_file):
    ideas_file.write_text(SEARCH.replace('6', '20'))
    tried = [Tried(f'idea:s#gain={gain}', 'f', False, 100, round(100 * max(0.0, 1 - abs(gain - 2.8))))
             for gain in (0.6, 1.1, 1.6, 2.1, 2.6, 2.9)] + [Tried('idea:s#gain=huge', 'f', False, 6, 6)]
    gains, _ = search_for_gain(recipe, ideas_file, lambda gain: max(0.0, 1 - abs(gain - 2.8)), rounds=3,
                               peer_history=tried)
    assert sum(gains) / 3 > 2.2 and not {2.6, 2.9} & set(gains)


def test_a_restarted_search_goes_on_as_it_would_have(recipe, ideas_file):
    ideas_file.write_text(SEARCH)
    _, history = search_for_gain(recipe, ideas_file, lambda gain: gain / 4, rounds=4)
    again = [BuiltinResearcher(ideas_file).propose(_context(recipe, history)).origin for _ in range(2)]
    assert again[0] == again[1] not in {entry.origin for entry in history}


def test_parameters_of_another_method_are_left_alone(recipe, ideas_file):
    (ideas_file.parent / 'p.py').write_text('class Policy:\n    pass\n')
    method = load_recipe(recipe).method
    ideas_file.write_text(f'ideas:\n  - {{id: own, family: {method}, hypothesis: h, set: {{gain: 2.0}}}}\n'
                          '  - {id: other, family: g, hypothesis: h, set: {gain: 3.0}}\n'
                          '  - {id: new, family: g, hypothesis: h, files: {policy.py: p.py}}\n')
    researcher, history, seen = BuiltinResearcher(ideas_file), [], []
    while (edit := researcher.propose(_context(recipe, history))) is not None:
        seen.append(edit.origin.split('#')[0])
        history.append(_tried(edit, kept=False))
    assert sorted(seen) == ['idea:new', 'idea:own']


@pytest.mark.parametrize('text, said', [
    ('ideas: 3', 'ideas must be a list'),
    ('ideas:\n  - {id: a, family: f, hypothesis: h}', r'ideas\[0\].set is missing'),
    ('ideas:\n  - {id: a, family: f, hypothesis: h, search: {x: [2, 1]}}', r'search.x is \[2, 1\]; expected'),
    ('ideas:\n  - {id: a, family: f, hypothesis: h, search: {x: [1, 2]}, set: {y: 1}}', 'search stands beside set'),
    ('ideas:\n  - {id: a, family: f, hypothesis: h, set: {x: 1}, requires: [b]}', "names 'b', which is no idea"),
    ('ideas:\n  - {id: a, family: f, hypothesis: h, files: {policy.py: no.py}}', 'no such file'),
    ('ideas:\n  - {id: a, family: f, hypothesis: h, set: {x: 1}, sett: 1}', 'is not a known key')])
def test_a_bad_library_names_file_and_key(ideas_file, text, said):
    ideas_file.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_ideas(ideas_file)


def test_the_starting_recipe_passes_the_static_check(recipe):
    static_check(recipe, ['policy.py', 'notes/why.md'])


@pytest.mark.parametrize('file, text, changed, said', [
    ('policy.py', 'class Policy(:\n', ['policy.py'], 'policy.py line 1 does not compile'),
    ('policy.py', 'class Polcy:\n    pass\n', ['policy.py'], 'no class Policy'),
    ('program.md', 'Be lazy', ['program.md'], 'may change only'),
    ('recipe.yaml', 'method: a\nparameters: {gain: .nan}', ['recipe.yaml'], 'parameters.gain is nan'),
    ('recipe.yaml', 'parameters: {}', ['recipe.yaml'], 'method is missing'),
    ('train.py', 'def', ['train.py'], 'train.py line 1 does not compile')])
def test_a_bad_edit_is_found_without_running_it(recipe, file, text, changed, said):
    (recipe / file).write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        static_check(recipe, changed)


@pytest.mark.parametrize('value', [2, 0.25, True, 'left side', -1e-05, 1e-5])
def test_parameters_are_written_as_they_were_given(recipe, value):
    text = with_parameters((recipe / 'recipe.yaml').read_text(), {'gain': value, 'new': value})
    found = yaml.safe_load(text)['parameters']
    assert found['gain'] == value and found['new'] == value and found['curve'] is False
    (recipe / 'recipe.yaml').write_text(text)
    assert load_recipe(recipe).parameters['gain'] == value
