"""What a coding agent used in a campaign, for people: tokens by kind, MTU, tokens to success, cost."""

from __future__ import annotations

from typing import Mapping

from enpire_agent.campaign_state import CampaignState
from enpire_agent.time_split import token_utilization


def tokens_text(state: CampaignState) -> str:
    """One line for a terminal; '' where no model was asked."""
    if not state.tokens:
        return ''
    turns = f"{len(state.turns)} turn{'s' if len(state.turns) != 1 else ''}"
    parts = [f'{count_text(state.tokens)} tokens in {turns}: {count_text(state.input_tokens)} input '
             f'({count_text(state.cached_tokens)} cached), {count_text(state.output_tokens)} output '
             f'({count_text(state.reasoning_tokens)} reasoning)',
             f'{token_utilization(state.tokens, state.time_split):.0f} a minute (MTU)']
    if state.cost is not None:
        parts.append(f'{state.cost:.2f} USD')
    return '; '.join(parts)


def tokens_row(name: str, state: CampaignState, time_split: Mapping[str, float]) -> dict:
    """A row of the report's table. name: of the station. time_split: s of wall time by activity."""
    to_success, cost = state.tokens_to_success, state.cost
    return {'station': name, 'researcher': state.researcher, 'turns': len(state.turns),
            'input': count_text(state.input_tokens), 'cached': count_text(state.cached_tokens),
            'output': count_text(state.output_tokens), 'reasoning': count_text(state.reasoning_tokens),
            'a_minute': f'{token_utilization(state.tokens, time_split):.0f}',
            'to_success': 'not solved yet' if to_success is None else count_text(to_success),
            'cost': 'not told' if cost is None else f'{cost:.2f}'}


def count_text(number: float) -> str:
    """Three digits at most and a letter for what they stand for."""
    for size, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if number >= size:
            value = number / size
            return f'{value:.1f} {letter}' if value < 100 else f'{value:.0f} {letter}'
    return f'{number:.0f}'
