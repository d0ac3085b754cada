"""A turn of a coding agent that is taken up again, with growing pauses, when what ended it will pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

from enpire_agent.agent_turn import RETRYABLE, TurnResult

GO_ON = 'Your last turn broke off ({reason}). Go on from where you were.'
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 900.0      # s; each pause is twice the one before
ATTEMPTS = 8


def turn_with_retries(turn: Callable[[str, str], TurnResult], prompt: str, session: str = '', *,
                      pause: Callable[[float, str], bool], attempts: int = ATTEMPTS) -> TurnResult:
    """Take a turn; where it ends by something that passes (RETRYABLE), wait and go on with the conversation.

    turn(prompt, session) takes one. pause(seconds, why) waits that long and says whether to go on: not when a person
    stops the campaign, or its time is over. A pause that the server asked for is kept to. Returns the last attempt,
    with tokens, cost, tools, changes and duration of all of them.
    """
    total, asked = None, prompt
    for attempt in range(attempts):
        result = turn(asked, session)
        total = result if total is None else _added(total, result)
        if result.outcome not in RETRYABLE or attempt == attempts - 1:
            break
        seconds = result.retry_after
        if seconds is None:
            seconds = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** attempt)
        if not pause(seconds, f'{result.outcome}: {result.reason}'):
            break
        session = result.session or session
        # One that has used no tokens has not read the prompt.
        if session and result.tokens.total:
            asked = GO_ON.format(reason=result.outcome)
    return total


def _added(before: TurnResult, last: TurnResult) -> TurnResult:
    """`last` with what both of them used and did."""
    costs = [cost for cost in (before.cost, last.cost) if cost is not None]
    return replace(
        last, text=last.text or before.text, session=last.session or before.session,
        tokens=before.tokens + last.tokens, cost=sum(costs) if costs else None,
        changed=tuple(sorted({*before.changed, *last.changed})), refused=before.refused + last.refused,
        tools=before.tools + last.tools, duration=before.duration + last.duration)
