"""Optuna as an adviser: an in-memory study, rebuilt from the sweep's folder whenever a driver starts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from sweep.distributions import Floats, Values

optuna.logging.set_verbosity(optuna.logging.WARNING)

STATES = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAILED": TrialState.FAIL}


@dataclass
class Study:
    """Proposes values for the searched addresses, one numbered trial after the other, and hears how they fared.

    Trial 0 is the defaults, each moved to the nearest value that is searched. Trial n is asked from a sampler
    seeded by (seed, n), so that a rebuilt study goes on as an undisturbed one would; with one trial at a time the
    proposals are therefore the same whatever was killed in between.
    """

    search: Mapping[str, Floats | Values]
    defaults: Mapping[str, Any]
    seed: int
    searcher: str = "tpe"
    _study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        self._study = optuna.create_study(direction="maximize")
        self._space = {address: _distribution(d) for address, d in self.search.items()}

    def ask(self, number: int) -> dict[str, Any]:
        """The values of trial `number`; numbers come in order, each after `ask` or `replay` of the one before."""
        self._study.sampler = self._sampler(number)
        if number == 0:
            self._study.enqueue_trial({a: self.search[a].nearest(v) for a, v in self.defaults.items()})
        trial = self._study.ask(self._space)
        assert trial.number == number, f"asked for trial {number}, Optuna is at {trial.number}"
        return dict(trial.params)

    def replay(self, number: int, params: Mapping[str, Any]) -> None:
        """Adds a trial that an earlier driver asked for, as running; `tell` says how it ended."""
        assert number == len(self._study.trials), "trials are replayed in the order of their numbers"
        trial = optuna.create_trial(
            state=TrialState.RUNNING, params=dict(params), distributions={a: self._space[a] for a in params}
        )
        self._study.add_trial(trial)

    def tell(self, number: int, state: str, value: float | None) -> None:
        """Ends a trial: COMPLETE with its value, PRUNED or FAILED. Telling twice is harmless."""
        usable = state == "COMPLETE" and value is not None and math.isfinite(value)
        outcome = STATES[state] if usable or state != "COMPLETE" else TrialState.FAIL
        self._study.tell(number, value if usable else None, state=outcome, skip_if_finished=True)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{number}".encode()).digest()[:4], "little")
        if self.searcher == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)


def _distribution(d: Floats | Values) -> BaseDistribution:
    if isinstance(d, Values):
        return CategoricalDistribution(d.values)
    if d.integer:
        return IntDistribution(int(d.low), int(d.high), log=d.log, step=int(d.step or 1))
    return FloatDistribution(d.low, d.high, log=d.log, step=d.step)
