"""Who proposes configurations: Optuna as an adviser, in an in-memory study that is rebuilt from the sweep's folder
whenever a driver starts; or a grid."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import optuna
import optuna.importance
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseGASampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from sweep.alternatives import GP, GRID, NSGA2, RANDOM, TPE, Sweep
from sweep.distributions import Floats, Values
from sweep.settings import METHOD

optuna.logging.set_verbosity(optuna.logging.WARNING)

WARM_START = "warm_start"
"""The key of sweep.json under which a sweep keeps what its search begins with."""
STATES = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAILED": TrialState.FAIL}

NOTHING: Mapping[Any, float] = MappingProxyType({})

POPULATION = 10
"""Trials of a generation of NSGA-II: sweeps have tens of trials, most of which Optuna's 50 would leave to chance."""
SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    TPE: lambda seed: optuna.samplers.TPESampler(seed=seed),
    RANDOM: lambda seed: optuna.samplers.RandomSampler(seed=seed),
    GP: lambda seed: optuna.samplers.GPSampler(seed=seed),
    NSGA2: lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION),
}
"""Each from a seed."""

FANOVA, PED_ANOVA = "fanova", "ped-anova"
EVALUATORS: dict[str, Callable[[int], optuna.importance.BaseImportanceEvaluator]] = {
    FANOVA: lambda seed: optuna.importance.FanovaImportanceEvaluator(seed=seed),
    PED_ANOVA: lambda seed: optuna.importance.PedAnovaImportanceEvaluator(),
}
"""Of the importance of parameters; each from a seed."""


class Searcher(Protocol):
    """Proposes configurations, one numbered trial after the other, and hears how they fared. Numbers come in order,
    each after `ask` or, for one that an earlier driver asked for, `replay` of the one before.

    `tell` ends a trial: COMPLETE with a value for each objective, PRUNED or FAILED. `intermediate`: epoch -> the first
    objective's value on the way. `constraints`: constraint -> by how much it is violated, 0 or less where it is kept.
    Telling twice is harmless.
    """

    def ask(self, number: int) -> dict[str, Any]: ...
    def replay(self, number: int, params: Mapping[str, Any]) -> None: ...
    def tell(
        self,
        number: int,
        state: str,
        values: Sequence[float] | None,
        intermediate: Mapping[int, float] = NOTHING,
        constraints: Mapping[str, float] = NOTHING,
    ) -> None: ...


def searcher(sweep: Sweep, earlier: Iterable[Mapping[str, Any]] = ()) -> Searcher:
    """`earlier`: configurations that the search begins with, each with `params`, `state` and `metrics`."""
    if sweep.searcher == GRID:
        return Grid(sweep)
    made, goal = study(sweep), sweep.goal
    for one in earlier:
        reached = one["metrics"]
        made.recall(one["params"], one["state"], goal.values(reached), goal.violations(reached))
    return made


def study(sweep: Sweep) -> Study:
    """The search as Optuna sees it, without trials."""
    spaces = {name: (one.search, one.defaults()) for name, one in sweep.alternatives.items()}
    return Study(spaces, sweep.trial.seed, sweep.searcher, len(sweep.objectives))


@dataclass
class Grid:
    """Cell after cell, whatever became of the others."""

    sweep: Sweep

    def ask(self, number: int) -> dict[str, Any]:
        return self.sweep.cell(number)

    def replay(self, number: int, params: Mapping[str, Any]) -> None:
        pass

    def tell(
        self,
        number: int,
        state: str,
        values: Sequence[float] | None,
        intermediate: Mapping[int, float] = NOTHING,
        constraints: Mapping[str, float] = NOTHING,
    ) -> None:
        pass


@dataclass
class Study:
    """Optuna. The first trials are the alternatives' defaults, each moved to the nearest value that is searched.
    Trial n is asked from a sampler seeded by (seed, n), so that a rebuilt study goes on as an undisturbed one would;
    with one trial at a time the proposals are therefore the same whatever was killed in between. Where there are
    several alternatives, which one is searched too, and each has parameters of its own.
    """

    spaces: Mapping[str, tuple[Mapping[str, Floats | Values], Mapping[str, Any]]]
    """Alternative -> what is searched and its defaults."""
    seed: int
    searcher: str = TPE
    objectives: int = 1
    _study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        self._before = 0  # trials of the study that have no number: what it begins with
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage, directions=["maximize"] * self.objectives)
        self._names = list(self.spaces)
        self._methods = {METHOD: CategoricalDistribution(self._names)} if len(self._names) > 1 else {}

    def ask(self, number: int) -> dict[str, Any]:
        self._study.sampler = self._sampler(number)
        if number < len(self._names):
            self._study.enqueue_trial(self._defaults(self._names[number]))
        trial = self._study.ask(dict(self._methods))
        assert trial.number == self._before + number, f"asked for trial {number}, Optuna is at {trial.number}"
        self._place(number)
        chosen = dict(trial.params)
        name = self._name(chosen)
        return chosen | {a: _suggest(trial, self._key(name, a), d) for a, d in self.spaces[name][0].items()}

    def _defaults(self, name: str) -> dict[str, Any]:
        search, defaults = self.spaces[name]
        nearest = {self._key(name, address): d.nearest(defaults[address]) for address, d in search.items()}
        return nearest | dict.fromkeys(self._methods, name)

    def replay(self, number: int, params: Mapping[str, Any]) -> None:
        held = len(self._study.get_trials(deepcopy=False))
        assert self._before + number == held, "trials are replayed in the order of their numbers"
        self._study.add_trial(optuna.create_trial(state=TrialState.RUNNING, **self.described(params)))
        self._place(number)

    def recall(
        self, params: Mapping[str, Any], state: str, values: Sequence[float] | None, constraints: Mapping[str, float]
    ) -> None:
        """Adds a configuration that ended before trial 0, in another sweep; it has no number."""
        self.replay(0, params)
        self.tell(0, state, values, constraints=constraints)
        self._before += 1

    def _place(self, number: int) -> None:
        """Notes in the study, where the sampler breeds, the generation that a trial begun is of and its parents: Optuna
        does so while it proposes parameters, but not of the first trial, nor of one that is replayed."""
        if isinstance(sampler := self._sampler(number), BaseGASampler):
            trial = self._study.get_trials(deepcopy=False)[self._before + number]
            sampler.get_parent_population(self._study, sampler.get_trial_generation(self._study, trial))

    def described(self, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """A configuration as Optuna's `params` and `distributions`."""
        name = self._name(params)
        space = self._methods | {a: _distribution(d) for a, d in self.spaces[name][0].items()}
        return {
            "params": {self._key(name, address): value for address, value in params.items()},
            "distributions": {self._key(name, address): space[address] for address in params},
        }

    def _name(self, params: Mapping[str, Any]) -> str:
        return str(params.get(METHOD, self._names[0]))

    def tell(
        self,
        number: int,
        state: str,
        values: Sequence[float] | None,
        intermediate: Mapping[int, float] = NOTHING,
        constraints: Mapping[str, float] = NOTHING,
    ) -> None:
        told = self._study.get_trials(deepcopy=False)[self._before + number]
        if told.state.is_finished():
            return
        known = [*(values or ()), *constraints.values()]
        usable = state != "COMPLETE" or (values is not None and all(map(math.isfinite, known)))
        outcome = STATES[state] if usable else TrialState.FAIL
        if outcome != TrialState.FAIL:
            self._note(told, intermediate, constraints)
        self._study.tell(told.number, values if outcome == TrialState.COMPLETE else None, state=outcome)

    def _note(self, trial: FrozenTrial, intermediate: Mapping[int, float], constraints: Mapping[str, float]) -> None:
        """Puts what is known of a trial beside its values to it. Optuna has no values on the way with several
        objectives."""
        noted = optuna.create_trial(state=TrialState.RUNNING, constraints=dict(constraints)).system_attrs
        for key, held in noted.items():
            self._storage.set_trial_system_attr(trial._trial_id, key, held)
        for epoch, value in intermediate.items() if self.objectives == 1 else ():
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)

    def importances(self, evaluator: str) -> dict[str, float] | None:
        """Parameter -> how important it is among all, by Optuna, over the COMPLETE trials; the shares add to 1, but for
        an evaluator that finds no parameter to matter. Those of several alternatives are `NAME: ADDRESS`, and METHOD
        is the choice between them.

        `ped-anova` takes each parameter over the trials that have it (conditional PED-ANOVA, arXiv 2601.20800).
        `fanova` needs all parameters in all trials: those of the alternatives that a trial is not of stand at their
        defaults. None where all values are equal.
        """
        complete = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if len({trial.value for trial in complete}) < 2:
            return None
        space = self._distributions()
        defaults: dict[str, Any] = {}
        for name in self._names if evaluator == FANOVA else ():
            defaults |= self._defaults(name)
        made = optuna.create_study(direction="maximize")
        for trial in complete:
            params = defaults | trial.params
            distributions = {key: space[key] for key in params}
            made.add_trial(optuna.create_trial(params=params, distributions=distributions, value=trial.value))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few trials: whoever asks is told how many there are
            found = EVALUATORS[evaluator](self.seed).evaluate(made)
        total = sum(found.values())
        return {name: float(share / total) if total else 0.0 for name, share in found.items()}

    def _distributions(self) -> dict[str, BaseDistribution]:
        """Of all parameters of all alternatives."""
        return dict(self._methods) | {
            self._key(name, address): _distribution(d)
            for name, (search, _) in self.spaces.items()
            for address, d in search.items()
        }

    def _key(self, name: str, address: str) -> str:
        """An alternative's address among Optuna's parameters: two may search the same one differently."""
        return f"{name}: {address}" if self._methods and address != METHOD else address

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{number}".encode()).digest()[:4], "little")
        return SAMPLERS[self.searcher](seed)


def _suggest(trial: optuna.Trial, name: str, d: Floats | Values) -> Any:
    if isinstance(d, Values):
        return trial.suggest_categorical(name, d.values)
    if d.integer:
        return trial.suggest_int(name, int(d.low), int(d.high), log=d.log, step=int(d.step or 1))
    return trial.suggest_float(name, d.low, d.high, log=d.log, step=d.step)


def _distribution(d: Floats | Values) -> BaseDistribution:
    if isinstance(d, Values):
        return CategoricalDistribution(d.values)
    if d.integer:
        return IntDistribution(int(d.low), int(d.high), log=d.log, step=int(d.step or 1))
    return FloatDistribution(d.low, d.high, log=d.log, step=d.step)
