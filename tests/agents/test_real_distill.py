"""What a campaign found out, put into words by each real program with a mock as its model."""

import pytest
from mock_model import Answer, Usage
from recorded_campaign import record_campaign

from enpire_agent.distill import distill_by_agent
from enpire_agent.knowledge import LONGEST

pytestmark = [pytest.mark.agents, pytest.mark.timeout(120)]


@pytest.mark.parametrize('name', ['codex', 'claude_code', 'kimi_code'])
def test_an_agent_writes_a_summary_and_mends_one_that_is_too_short(real_agent, tmp_path, name):
    campaign = record_campaign(tmp_path / 'runs' / 'c', decisions=('keep', 'revert'))
    folder = tmp_path / 'summary'
    folder.mkdir()
    agent, model = real_agent(name, [
        Answer(shell={'command': 'echo Slower. > summary.md'}, usage=Usage(2000, 0, 30)),
        Answer(text='Done.', usage=Usage(2100, 2000, 5)),
        Answer(shell={'command': "yes 'Slower pushes helped.' | head -n 20 > summary.md"}, usage=Usage(2200, 2100, 30)),
        Answer(text='Mended.', usage=Usage(2300, 2200, 5))])
    model.work_tree = folder
    page, tokens = distill_by_agent(agent, campaign, folder)
    assert f'## As {name} sums it up' in page and page.count('Slower pushes helped.') == 20 and len(page) <= LONGEST
    assert model.given == 4 and (tokens.input, tokens.output) == (8600, 70)
