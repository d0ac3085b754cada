"""What a campaign found out, for the next one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from recorded_campaign import record_campaign

from enpire_agent.agent_researcher import AgentResearcher
from enpire_agent.agent_turn import DONE, RATE_LIMITED, Tokens, TurnEvent, TurnResult
from enpire_agent.cli import main
from enpire_agent.coding_agent import AgentSettings
from enpire_agent.distill import CORRECTIONS, DistillError, distill, distill_by_agent
from enpire_agent.knowledge import LONGEST, give_knowledge, given_knowledge, read_knowledge
from enpire_agent.recipe_repository import RecipeRepository
from enpire_agent.researcher import BuiltinResearcher, Context, Tried
from enpire_bringup.configuration import ConfigurationError


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
    return record_campaign(tmp_path_factory.mktemp('runs') / 'c', stations=2, decisions=('keep', 'revert', 'adopt'))


def test_a_campaign_is_told_on_a_page_with_its_figures(recorded):
    page = distill(recorded)
    assert 'found out about push_t' in page and 'Push the T block' in page and f'`{"e" * 12}`' in page
    assert '- Starting recipe on fresh seeds: ' in page and '- Best recipe on fresh seeds: ' in page
    assert ' of 20, 95 % interval ' in page
    helped, did_not = page.partition('## What helped')[2].split('## What was not kept')
    assert helped.count('Pushing slower') == 3      # of station_1 both, for nobody was there to learn from
    assert '`method_2`' in did_not and '3 trials told so' in did_not and 'TIMEOUT' in did_not
    assert '[`slow_pushes`]' in page.partition('that nobody tried')[2]
    assert 'station_2' in page.partition('took over from each other')[2]


def test_a_page_stays_short_and_says_what_it_leaves_out(tmp_path):
    campaign = record_campaign(tmp_path / 'c', hypothesis='Once | more\u202e `and` again ' * 30,
                               decisions=('keep', 'revert', 'revert') * 20)
    page = distill(campaign)
    assert len(page) <= LONGEST and ' more lines' in page
    assert page.isascii() and '`and`' not in page
    assert max(map(len, page.splitlines())) < 600


def test_the_commits_of_a_campaign_and_the_notes_in_its_best_recipe_are_read(make_campaign, monkeypatch, capsys):
    campaign, station, _ = make_campaign(max_iterations=2)
    state = campaign.run()
    kept = next(iteration for iteration in state.iterations if iteration.state == 'kept')
    work_tree = campaign.directory / 'recipe'
    (work_tree / 'notes').mkdir()
    (work_tree / 'notes' / 'found.md').write_text('# Found\n\nThe block slips on the left.\n')
    campaign._repository.commit('Say what was found', {'Decision': 'note'})
    monkeypatch.setenv('ENPIRE_RUNS', str(campaign.directory.parents[1]))
    assert main(['distill', 'c']) == 0
    page = capsys.readouterr().out
    assert f'{kept.successes} of {kept.trials}, 95 % interval' in page and kept.commit[:8] in page
    assert 'notes/found.md: The block slips on the left.' in page
    file = campaign.directory.parent / 'knowledge.md'
    assert file.read_text() + f'\nenpire: {file}\n' == page
    assert read_knowledge(file).families['path'][0] >= 1 and read_knowledge(file).families['gains'][0] == 0


def test_a_file_of_anybody_is_knowledge_if_it_is_short(tmp_path):
    file = tmp_path / 'told.md'
    file.write_text('Push gently.\n\n## Families of ideas\n\n'
                    '| family | kept | tried |\n|---|---|---|\n| slow | 9 | 3 |\n')
    assert given_knowledge(tmp_path / 'c').text == ''
    give_knowledge(file, tmp_path / 'c')
    assert given_knowledge(tmp_path / 'c').families == {'slow': (3, 3)}
    file.write_text('x' * (LONGEST + 1))
    with pytest.raises(ConfigurationError, match=f'told.md: has {LONGEST + 1} characters'):
        give_knowledge(file, tmp_path / 'c')
    with pytest.raises(ConfigurationError, match='nothing.md: cannot be read'):
        read_knowledge(tmp_path / 'nothing.md')


# --- by a coding agent ---


class Writer:
    """An agent that leaves one text after the other in summary.md."""

    name = 'scripted'

    def __init__(self, *texts, **changes):
        self.texts, self.changes, self.asked = list(texts), changes, []

    def turn(self, prompt, work_tree, session, *, cancelled, reach):
        self.asked.append(SimpleNamespace(prompt=prompt, session=session))
        (work_tree / 'summary.md').write_text(self.texts.pop(0))
        return replace(TurnResult(DONE, text='done', session='s1', tokens=Tokens(1000, 0, 50)), **self.changes)


def test_an_agent_sums_up_beside_the_figures(recorded, tmp_path):
    agent = Writer('short', '# Title\n' + 'Slower pushes helped. ' * 30 + '\n| method_1 | 99 | 99 |')
    page, tokens = distill_by_agent(agent, recorded, tmp_path)
    assert 'Pushing slower' in agent.asked[0].prompt and 'material, no instruction' in agent.asked[0].prompt
    assert agent.asked[1].session == 's1' and 'has 5 characters' in agent.asked[1].prompt
    assert tokens == Tokens(2000, 0, 100)
    assert '- Starting recipe on fresh seeds: ' in page and '### Title' in page and len(page) <= LONGEST
    (tmp_path / 'knowledge.md').write_text(page)
    assert read_knowledge(tmp_path / 'knowledge.md').families['method_1'] == (2, 2)      # as the ledger has it


def test_the_verb_asks_the_agent_that_it_names(recorded, monkeypatch, capsys):
    agent = Writer('It is friction. ' * 30)
    monkeypatch.setenv('ENPIRE_RUNS', str(recorded.parent))
    monkeypatch.setattr('enpire_agent.agent_programs.make_agent', lambda name, settings, home: agent if (
        name, home) == ('codex', recorded.parent / '.stations' / 'station_1' / 'agents' / 'codex') else None)
    assert main(['distill', 'c', '--agent', 'codex']) == 0
    out, err = capsys.readouterr()
    assert '## As scripted sums it up' in out and 'used 1000 tokens of input' in err
    assert main(['distill', 'c', '--agent', 'nobody']) == 2


def test_an_agent_that_cannot_says_why(recorded, tmp_path):
    with pytest.raises(DistillError, match='scripted: rate_limited: no more today'):
        distill_by_agent(Writer('', outcome=RATE_LIMITED, reason='no more today'), recorded, tmp_path)
    agent = Writer(*['x' * 90_000] * (1 + CORRECTIONS))
    with pytest.raises(DistillError, match='no summary of 300 to 5500 characters in 3 turns'):
        distill_by_agent(agent, recorded, tmp_path)


# --- given to a campaign ---


def test_an_agent_is_told_once_what_an_earlier_campaign_found_out(recipe, tmp_path):
    class Agent(Writer):
        settings = AgentSettings()

        def turn(self, prompt, work_tree, session, *, on_event, cancelled, reach, environment):
            self.asked.append(prompt)
            on_event(TurnEvent('session', 's1'))
            (work_tree / 'notes').mkdir()
            (work_tree / 'notes' / f'{len(self.asked)}.md').write_text('x')
            return TurnResult(DONE, text='Hypothesis: It helps.', session='s1')

    agent = Agent()
    work_tree = RecipeRepository.open_or_create(tmp_path / 'runs' / 'c' / 's' / 'recipe', 's', recipe).work_tree
    researcher = AgentResearcher(agent, tmp_path / 'workspace', knowledge='Push {gently}.\n')
    for _ in range(2):
        assert researcher.propose(Context(work_tree, 'push_t', 'e' * 64, (0.1, 0.5))).hypothesis == 'It helps.'
    first, second = agent.asked
    assert 'Push {gently}.' not in second
    assert first.index('You are the researcher') < first.index('Push {gently}.') < first.index('Make the next edit')


def test_a_family_that_helped_elsewhere_comes_first_until_there_are_results(recipe, ideas_file):
    def first(knowledge, *history):
        context = Context(recipe, 'push_t', 'e' * 64, (0.1, 0.5), history)
        return BuiltinResearcher(ideas_file, knowledge=knowledge).propose(context).origin

    assert first({}) == 'idea:harder#0'
    assert first({'path': (3, 4), 'gains': (0, 5)}) == 'idea:curved#0'
    assert first({'gains': (0, 50)}) == 'idea:curved#0'      # one that failed comes later, not never:
    assert first({'gains': (0, 50)}, Tried('idea:curved#0', 'path', False, 6, 0)) == 'idea:harder#0'
