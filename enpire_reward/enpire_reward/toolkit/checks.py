"""Named conditions, and what they make of a frame: "success", "not_yet" or "abstain"."""

from __future__ import annotations


def check(name: str, value: float, limit: float, unit: str = '', *, at_least: bool = False,
          detail: str = '') -> dict:
    """One named condition: passed when value <= limit (or >= limit with `at_least`). NaN does not pass."""
    passed = value >= limit if at_least else value <= limit
    return {'name': name, 'passed': bool(passed), 'value': float(value), 'limit': float(limit), 'unit': unit,
            'detail': detail}


def judged(checks: list[dict], *, done: str = 'done') -> dict:
    """"success" when every check passed, else "not_yet" with the first that did not in the reason."""
    for entry in checks:
        if not entry['passed']:
            unit = f' {entry["unit"]}' if entry['unit'] else ''
            return {'outcome': 'not_yet', 'checks': checks,
                    'reason': entry['detail'] or f'{entry["name"]} is {entry["value"]:.4g}{unit}, '
                                                 f'limit {entry["limit"]:.4g}{unit}'}
    return {'outcome': 'success', 'checks': checks, 'reason': done}


def abstain(reason: str, checks: list[dict] | None = None) -> dict:
    """Not to be judged now."""
    return {'outcome': 'abstain', 'checks': checks or [], 'reason': reason}
