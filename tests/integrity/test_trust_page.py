"""docs/trust.md says of every cheat what happens, and of none that nobody tries."""

from __future__ import annotations

import re
from pathlib import Path

from attempts import ATTEMPTS

HERE = Path(__file__).parent


def test_every_cheat_of_the_page_has_its_test_and_every_test_its_cheat():
    page = (HERE.parents[1] / 'docs' / 'trust.md').read_text(encoding='utf-8').partition('## Cheats')[2]
    rows = re.findall(r'^\| ([^|]+) \| [^|]+ \| (attempts|test_\w+) \|$', page, re.MULTILINE)
    tests = {name for file in ('test_hostile_programs.py', 'test_tampered_results.py')
             for name in re.findall(r'^def (test_\w+)', (HERE / file).read_text(encoding='utf-8'), re.MULTILINE)}
    assert {cheat for cheat, test in rows if test == 'attempts'} == set(ATTEMPTS)
    assert {test for _, test in rows if test != 'attempts'} == tests
    assert len(rows) >= 25
