"""When a turn of a coding agent is tried again, how long after, and what its attempts come to."""

import pytest

from enpire_agent.agent_retries import ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, turn_with_retries
from enpire_agent.agent_turn import (CANCELLED, CUT, DONE, FAILED, LOGIN, OUT_OF_TIME, OUT_OF_TOKENS, RATE_LIMITED,
                                     RUNAWAY, SERVER_ERROR, Tokens, TurnResult)


def run(*results, session='', patient=True):
    """(what came of turns that end like that, prompts and sessions of each, pauses)."""
    left, asked, pauses = list(results), [], []

    def turn(prompt, session):
        asked.append((prompt, session))
        return left.pop(0) if len(left) > 1 else left[0]

    result = turn_with_retries(turn, 'Do it.', session, pause=lambda seconds, why: pauses.append(seconds) or patient)
    return result, asked, pauses


def test_a_turn_that_is_done_is_not_tried_again():
    result, asked, pauses = run(TurnResult(DONE), session='s1')
    assert (result.outcome, asked, pauses) == (DONE, [('Do it.', 's1')], [])


def test_pauses_grow_and_have_an_end():
    _, asked, pauses = run(TurnResult(SERVER_ERROR, 'down'))
    assert len(asked) == ATTEMPTS
    assert pauses[0] == FIRST_PAUSE and pauses == sorted(pauses) and max(pauses) <= LONGEST_PAUSE


def test_a_pause_that_the_server_asked_for_is_kept_to():
    _, _, pauses = run(TurnResult(RATE_LIMITED, retry_after=77.0), TurnResult(DONE))
    assert pauses == [77.0]


@pytest.mark.parametrize('outcome', [LOGIN, CANCELLED, FAILED, OUT_OF_TIME, OUT_OF_TOKENS, RUNAWAY])
def test_what_does_not_pass_is_not_tried_again(outcome):
    assert len(run(TurnResult(outcome))[1]) == 1


def test_who_has_no_patience_gets_the_fault():
    result, asked, _ = run(TurnResult(SERVER_ERROR, 'down'), patient=False)
    assert (result.outcome, len(asked)) == (SERVER_ERROR, 1)


def test_a_turn_that_broke_off_goes_on_and_one_that_never_began_begins():
    _, asked, _ = run(TurnResult(SERVER_ERROR, session='s1'), TurnResult(CUT, session='s1', tokens=Tokens(10)),
                      TurnResult(DONE))
    assert asked[:2] == [('Do it.', ''), ('Do it.', 's1')]
    assert asked[2][1] == 's1' and 'Go on' in asked[2][0]


def test_attempts_are_added_up():
    result, _, _ = run(
        TurnResult(CUT, tokens=Tokens(10, 5, 2, 1), cost=0.25, changed=('a', 'b'), tools=1, duration=2.0, session='s1'),
        TurnResult(DONE, text='Done.', tokens=Tokens(20, 10, 3), cost=0.5, changed=('b', 'c'), tools=2, duration=3.0))
    assert result == TurnResult(DONE, text='Done.', session='s1', tokens=Tokens(30, 15, 5, 1), cost=0.75,
                                changed=('a', 'b', 'c'), tools=3, duration=5.0)
