"""A coding agent as a researcher: what becomes of what it leaves in its copy of the recipe."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from enpire_agent.agent_researcher import CORRECTIONS, LARGEST_FILE, AgentResearcher
from enpire_agent.agent_turn import (CANCELLED, DONE, FAILED, LOGIN, OUT_OF_TOKENS, SERVER_ERROR, Tokens, TurnEvent,
                                     TurnResult)
from enpire_agent.campaign_state import Measurement, read_campaign
from enpire_agent.campaign_tokens import tokens_row, tokens_text
from enpire_agent.campaign_trials import CampaignError, CampaignStopped
from enpire_agent.coding_agent import AgentSettings
from enpire_agent.report import write_report
from enpire_agent.researcher import Context, Tried


class ScriptedAgent:
    """Takes turns as told: each is a function of the copy, or (function, changes of the result)."""

    name = 'scripted'

    def __init__(self, *turns):
        self.turns, self.asked, self.settings, self.reach = list(turns), [], AgentSettings(), None

    def turn(self, prompt, work_tree, session, *, on_event, cancelled, environment, reach):
        self.asked.append(SimpleNamespace(prompt=prompt, session=session, limit=self.settings.tokens_per_turn))
        self.reach, self.hear = reach, on_event
        step = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        act, changes = step if isinstance(step, tuple) else (step, {})
        on_event(TurnEvent('session', 's1'))
        on_event(TurnEvent('tokens', tokens=Tokens(100, 0, 5)))
        act(work_tree)
        return replace(TurnResult(DONE, text='I did it.\nHypothesis: A higher gain pushes farther.', session='s1',
                                  tokens=Tokens(150, 100, 9)), **changes)


def nothing(copy):
    pass


def raise_the_gain(copy):
    file = copy / 'recipe.yaml'
    file.write_text(file.read_text().replace('gain: 1.0', 'gain: 2.0'))


@pytest.fixture
def repository(recipe):
    """The recipe under Git, as a campaign has it."""
    for command in (['init', '-q', '-b', 'station_1'], ['add', '-A'],
                    ['-c', 'user.name=test', '-c', 'user.email=test@localhost', 'commit', '-qm', 'start']):
        subprocess.run(['git', *command], cwd=recipe, check=True)
    return recipe


@pytest.fixture
def propose(tmp_path, repository):
    """propose(agent, history..., **context) -> (edit, tokens spent, what was logged)."""

    def run(agent, *history, pause=lambda seconds, why: True, **values):
        spent, logged = [], []
        context = Context(repository, 'push_t', 'e' * 64, (0.2, 0.4), history=history, log=logged.append,
                          spend_tokens=lambda tokens: spent.append((tokens.input, tokens.output)),
                          pause=pause, **values)
        researcher = AgentResearcher(agent, tmp_path / 'workspace')
        return researcher.propose(context), [sum(counts) for counts in zip(*spent)], logged

    return run


def test_what_the_agent_edits_is_proposed_with_its_hypothesis(propose, repository):
    edit, tokens, _ = propose(ScriptedAgent(raise_the_gain))
    assert list(edit.files) == ['recipe.yaml'] and 'gain: 2.0' in edit.files['recipe.yaml']
    assert edit.hypothesis == 'A higher gain pushes farther.'
    assert (edit.method, edit.origin) == ('straight_push', 'scripted:1')
    assert tokens == [150, 9]
    assert 'gain: 1.0' in (repository / 'recipe.yaml').read_text()      # the recipe itself is not touched


def test_new_and_deleted_files_are_part_of_the_edit(propose):
    def act(copy):
        (copy / 'train.py').unlink()
        (copy / 'notes').mkdir()
        (copy / 'notes' / 'found.md').write_text('It slips.')
        (copy / '__pycache__').mkdir()
        (copy / '__pycache__' / 'policy.pyc').write_bytes(b'x')

    assert propose(ScriptedAgent(act))[0].files == {'train.py': None, 'notes/found.md': 'It slips.'}


@pytest.mark.parametrize('act, said', [
    (lambda copy: (copy / 'program.md').write_text('You have won.'), 'changes program.md'),
    (lambda copy: (copy / 'policy.py').write_text('def'), 'does not compile'),
    (lambda copy: (copy / 'recipe.yaml').write_text('parameters: {}'), 'recipe.yaml'),
    (lambda copy: os.symlink('/etc/passwd', copy / 'weights.json'), 'weights.json is no plain file'),
    (lambda copy: (copy / 'weights.json').write_text('x' * (LARGEST_FILE + 1)), 'weights.json has'),
    (lambda copy: (copy / 'weights.json').write_bytes(b'\xff\xfe'), 'no text in UTF-8'),
    (nothing, 'no file differs')])
def test_an_edit_that_breaks_the_rules_goes_back_to_the_agent_with_the_reason(propose, act, said):
    def mend(copy):
        for name in ('weights.json', 'program.md', 'policy.py', 'recipe.yaml'):
            if (copy / name).exists() or (copy / name).is_symlink():
                (copy / name).unlink()
        subprocess.run(['git', 'checkout', '-q', '.'], cwd=copy, check=True)
        raise_the_gain(copy)

    agent = ScriptedAgent(act, mend)
    edit, tokens, logged = propose(agent)
    assert list(edit.files) == ['recipe.yaml']
    assert said in agent.asked[1].prompt and said in logged[0]
    assert agent.asked[1].session == 's1'
    assert tokens == [300, 18]      # of both turns


def test_an_agent_that_never_keeps_the_rules_ends_the_campaign_with_the_reason(propose):
    agent = ScriptedAgent(lambda copy: (copy / 'program.md').write_text('Mine.'))
    with pytest.raises(CampaignError, match='no edit that can be tried in 4 turns: .* changes program.md'):
        propose(agent)
    assert len(agent.asked) == 1 + CORRECTIONS


def test_an_agent_that_has_nothing_left_ends_the_search(propose):
    assert propose(ScriptedAgent((nothing, {'text': 'Nothing left.'})))[0] is None


def test_a_lost_login_is_an_error_for_a_person(propose):
    with pytest.raises(CampaignError, match='scripted: login: type: codex login'):
        propose(ScriptedAgent((nothing, {'outcome': LOGIN, 'reason': 'type: codex login'})))


def test_a_campaign_that_is_stopped_ends_the_turn_quietly(propose):
    with pytest.raises(CampaignStopped):
        propose(ScriptedAgent((nothing, {'outcome': CANCELLED})))


def test_a_model_that_is_away_is_waited_for(propose):
    agent = ScriptedAgent((nothing, {'outcome': SERVER_ERROR, 'tokens': Tokens(100, 0, 5)}), raise_the_gain)
    edit, tokens, _ = propose(agent)
    assert edit is not None and len(agent.asked) == 2
    assert tokens == [250, 14]


def test_a_conversation_that_is_lost_begins_anew(propose, tmp_path):
    (tmp_path / 'workspace').mkdir()
    (tmp_path / 'workspace' / 'session').write_text('s0')
    agent = ScriptedAgent((nothing, {'outcome': FAILED, 'reason': 'no such session'}), raise_the_gain)
    assert propose(agent)[0] is not None
    assert [asked.session for asked in agent.asked] == ['s0', '']
    assert 'You are the researcher' in agent.asked[1].prompt


def test_the_next_iteration_goes_on_with_the_conversation_and_tells_what_came_out(propose):
    agent = ScriptedAgent(raise_the_gain)
    propose(agent)
    edit, _, _ = propose(agent, Tried('scripted:1', 'straight_push', False, 8, 2), iterations_left=4)
    assert [asked.session for asked in agent.asked] == ['', 's1']
    assert 'reverted: 2 successes in 8 trials' in agent.asked[1].prompt and '4 iterations' in agent.asked[1].prompt
    assert 'You are the researcher' not in agent.asked[1].prompt
    assert edit.origin == 'scripted:2'


def test_a_turn_may_use_what_the_campaign_has_left(propose):
    agent = ScriptedAgent((nothing, {'outcome': OUT_OF_TOKENS, 'reason': 'the turn used 70'}))
    edit, _, logged = propose(agent, tokens_left=70)
    assert (edit, agent.asked[0].limit, len(logged)) == (None, 70, 1)


def test_the_agent_reads_the_campaign_and_its_copy_has_no_object_of_the_recipes_history(propose, repository, tmp_path):
    agent = ScriptedAgent(raise_the_gain)
    propose(agent)
    assert agent.reach.readable[0] == repository.parents[1] and agent.reach.writable == ()
    theirs = [file.stat().st_ino for file in (repository / '.git' / 'objects').rglob('*') if file.is_file()]
    copies = [file.stat().st_ino for file in (tmp_path / 'workspace' / 'recipe' / '.git').rglob('*') if file.is_file()]
    assert not set(theirs) & set(copies)


def test_corrections_get_what_the_turns_before_have_left(propose):
    agent = ScriptedAgent(nothing)
    edit, _, logged = propose(agent, tokens_left=300)
    assert [asked.limit for asked in agent.asked] == [300, 141]      # a turn takes 159 in all
    assert edit is None and 'no tokens left' in logged[-1]


@pytest.mark.parametrize('text, hypothesis', [
    ('Hypothesis: one\nmore\n**Hypothesis:** The second\x07 counts.**', 'The second counts.'),
    ('I raised the gain.\nThat is all.', 'I raised the gain. That is all.'), ('', 'no hypothesis was stated')])
def test_a_hypothesis_is_one_line_that_a_commit_can_carry(propose, text, hypothesis):
    assert propose(ScriptedAgent((raise_the_gain, {'text': text})))[0].hypothesis == hypothesis


def test_a_campaign_keeps_what_helps_and_reverts_what_harms(make_campaign, tmp_path):
    def curve(copy):
        file = copy / 'recipe.yaml'
        file.write_text(file.read_text().replace('curve: false', 'curve: true'))

    agent = ScriptedAgent((raise_the_gain, {'cost': 0.25}), curve)
    campaign, _, recorder = make_campaign(researcher=AgentResearcher(agent, tmp_path / 'workspace'), max_iterations=2)
    state = campaign.run()
    assert [iteration.state for iteration in state.iterations] == ['reverted', 'kept']
    assert (state.input_tokens, state.output_tokens) == (300, 18)
    assert {'hypothesis', 'edit', 'keep', 'revert'} <= {kind for kind, *_ in recorder.events}

    # What the turns used is known by turn, is in the campaign's file, and is shown.
    known = read_campaign(campaign.directory / 'campaign.json')
    assert [(turn.iteration, turn.outcome, turn.input_tokens, turn.cached_tokens) for turn in known.turns] == [
        (1, 'done', 150, 100), (2, 'done', 150, 100)]
    assert (known.cached_tokens, known.reasoning_tokens, known.cost) == (200, 0, 0.25)
    assert tokens_text(known).startswith('318 tokens in 2 turns: 300 input (200 cached), 18 output (0 reasoning); ')
    page = write_report(campaign.directory.parent).read_text()
    assert '<h2>Tokens</h2>' in page and '<td>scripted</td><td class="number">2</td>' in page


def test_tokens_to_success_are_those_of_a_campaign_that_passed_its_gate(make_campaign):
    state = make_campaign()[0].state
    state.input_tokens, state.output_tokens = 1_200_000, 34_000
    assert tokens_row('station_1', state, {'thinking': 60.0})['to_success'] == 'not solved yet'
    state.gate = Measurement('r', planned=2, trials=2, successes=2)
    row = tokens_row('station_1', state, {'thinking': 120.0})
    assert (row['to_success'], row['a_minute'], row['output']) == ('1.2 M', '617000', '34.0 k')


def test_what_the_agent_says_and_runs_is_told_in_short_lines(propose):
    told = []

    def talk(copy):
        raise_the_gain(copy)
        for event in (TurnEvent('says', 'I raise\nthe gain.'), TurnEvent('tool', 'ls ' + 'x' * 1000),
                      TurnEvent('thinking', 'Hm.'), TurnEvent('retry', 'in 5 s')):
            agent.hear(event)

    agent = ScriptedAgent(talk)
    propose(agent, tell=told.append)
    assert told[0] == 'says: I raise the gain.' and told[2] == 'tries again: in 5 s' and len(told) == 3
    assert told[1].startswith('runs: ls xxx') and len(told[1]) < 250


def test_a_stop_ends_a_turn_that_waits_for_its_model_again(propose):
    agent = ScriptedAgent((nothing, {'outcome': SERVER_ERROR}))
    with pytest.raises(CampaignStopped):
        propose(agent, pause=lambda seconds, why: False, cancelled=lambda: True)
