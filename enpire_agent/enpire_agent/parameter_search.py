"""Values for recipe parameters that are searched for, by a tree-structured Parzen estimator (Optuna)."""

from __future__ import annotations

import zlib
from typing import Mapping, Sequence

from enpire_agent.idea_library import Range

_DIGITS = 3         # significant ones; more cannot be told apart by trials
_STARTUP = 3        # results before the estimator is trusted
_ASKS = 30


def suggest(name: str, ranges: Mapping[str, Range],
            results: Sequence[tuple[Mapping[str, object], float]]) -> dict[str, float] | None:
    """The setting to try next, or None when nothing new is left in the ranges.

    name: of the search; the same name and results give the same setting, so that a campaign that was restarted goes
    on as it would have. results: (setting, success rate) of those known, which are not tried again; one outside of the
    ranges teaches nothing.
    """
    # Costs 1 s and 40 MB, which only a search needs.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: optuna.distributions.IntDistribution(bounds.low, bounds.high) if bounds.whole
                     else optuna.distributions.FloatDistribution(bounds.low, bounds.high)
                     for key, bounds in ranges.items()}
    seed = zlib.crc32(f'{name}/{len(results)}'.encode())
    study = optuna.create_study(direction='maximize',
                                sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP))
    for setting, value in results:
        if all(bounds.holds(setting.get(key)) for key, bounds in ranges.items()):
            study.add_trial(optuna.trial.create_trial(
                params={key: setting[key] for key in ranges}, distributions=distributions, value=value))
    past = [dict(setting) for setting, _ in results]
    for _ in range(_ASKS):
        setting = {key: _rounded(value) for key, value in study.ask(distributions).params.items()}
        if setting not in past:
            return setting
    return None


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f'{value:.{_DIGITS}g}')
