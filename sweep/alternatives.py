"""What a sweep is: alternatives, each a base trial with what is searched around it, and how trials are drawn."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from attacks.errors import InputError, unknown
from sweep import goals
from sweep.distributions import Distribution, is_listed
from sweep.goals import Constraint, Goal
from sweep.settings import (
    METHOD,
    SEARCH,
    SEPARATOR,
    Count,
    Document,
    Strict,
    Whole,
    at,
    complain,
    distinct,
    merge,
    nest,
    takes_numbers,
    takes_whole,
)
from sweep.spec import Parts, Seed, TrialBase, known_addresses, trial_class, validated
from sweep.stopping import NONE, Stopping
from trainers.parts import PARTS

TPE, RANDOM, GRID, GP, NSGA2 = "tpe", "random", "grid", "gp", "nsga2"
ONE_METHOD = {
    GP: "a Gaussian process needs every parameter in every trial",
    NSGA2: "a crossover needs every parameter in both parents",
}
"""Searchers that propose for one method only, and why."""
FREE = (*PARTS, "optimizer", "attack_steps", "importance")
"""What may be searched."""
OWN = (*FREE, METHOD, "train_attacks")
"""What the alternatives of a sweep may differ in: what else there is (data, starting model, judges) they share."""


class Alternative(Strict):
    """A base trial and what is searched around it."""

    trial: SerializeAsAny[TrialBase]
    search: dict[str, Distribution] = Field(default_factory=dict)

    def configure(self, params: Mapping[str, Any]) -> TrialBase:
        """The trial at these values of the searched addresses; InputError where they make none."""
        found: list[str] = []
        made = self._made(params, found)
        if made is None:
            raise complain("these values", found)
        return made

    def _made(self, params: Mapping[str, Any], found: list[str]) -> TrialBase | None:
        document = merge(self.trial.model_dump(mode="json"), nest(params))
        return validated(type(self.trial), document, [], found)

    def defaults(self) -> dict[str, Any]:
        """The base trial's values at the searched addresses."""
        document = self.trial.model_dump(mode="json")
        return {address: at(document, address) for address in self.search}

    def epochs(self) -> list[int]:
        """How many its trials take: the base trial's, or those at the ends of what is searched."""
        searched = self.search.get("optimizer.epochs")
        return [int(end) for end in searched.ends()] if searched else [self.trial.recipe().epochs]

    def faults_at_ends(self) -> list[str]:
        """What is wrong with the trials at the ends of the searched ranges, or at the listed values."""
        return [
            f"{SEARCH}.{address} = {value}: {fault.removeprefix(f'{address}: ')}"
            for address, distribution in self.search.items()
            for value in distribution.ends()
            for fault in self._faults_at({address: value})
        ]

    def _faults_at(self, params: Mapping[str, Any]) -> list[str]:
        found: list[str] = []
        self._made(params, found)
        return found

    def cells(self) -> int:
        """How many configurations its grid has; InputError where a range has no step."""
        return math.prod(len(self._points(address)) for address in self.search)

    def cell(self, number: int) -> dict[str, Any]:
        """The configuration of a place in its grid; the last address changes first."""
        params = {}
        for address in reversed(self.search):
            points = self._points(address)
            number, place = divmod(number, len(points))
            params[address] = points[place]
        return {address: params[address] for address in self.search}

    def _points(self, address: str) -> list[Any]:
        points = self.search[address].points()
        if points is None:
            raise InputError(f"{SEARCH}.{address}: expected values, or a range with a step, in a grid")
        return points


def _distinct_if_any(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return distinct(given) if given else given


def _constraints(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(Constraint.of(text)) for text in given))


class Sweep(Strict):
    """The alternatives by name, all trained and judged on the same data from the same starting model, and how many
    configurations of them there are to be, those run already included, each once with every seed; a "grid" has at most
    its cells. `test`: whose models meet the test split, the best configuration's or, where nothing is selected, `all`.
    With `controls`, each run with a sampler that adapts is followed by a replay of its average probabilities. Once the
    search is over, its `confirm` best configurations are run with each of `confirm_seeds` too.
    `objectives`, all maximised, and `constraints`: goals.Goal."""

    space: str
    alternatives: dict[str, Alternative]
    searcher: Literal["tpe", "random", "grid", "gp", "nsga2"] = "tpe"
    objectives: Annotated[tuple[str, ...], AfterValidator(distinct)] = (goals.VALUE,)
    constraints: Annotated[tuple[str, ...], AfterValidator(_constraints)] = ()
    trials: Count = 6
    seeds: Annotated[tuple[Seed, ...], AfterValidator(distinct)]
    test: Literal["best", "all"] = "best"
    controls: bool = False
    stopping: Stopping = Stopping()
    confirm: Annotated[Whole, Field(ge=0)] = 0
    confirm_seeds: Annotated[tuple[Seed, ...], AfterValidator(_distinct_if_any)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Sweep:
        """What only several keys together can get wrong."""
        found = list(self._stopping_faults())
        if bool(self.confirm) != bool(self.confirm_seeds):
            found.append(
                "confirm: expected how many configurations and confirm_seeds (--confirm-top K --seeds 0..4), got "
                f"{self.confirm} and {len(self.confirm_seeds)} seeds"
            )
        elif self.confirm and not self.unseen(self.seeds):
            found.append("confirm_seeds: expected one at least that the search does not run, got none")
        if found:
            raise InputError(SEPARATOR.join(found))
        return self

    def _stopping_faults(self) -> Iterator[str]:
        if self.stopping.name == NONE:
            return
        if not self.trial.evaluation.every:
            yield f"stopping.name: expected evaluation.every of at least 1 with {self.stopping.name}, got 0"
        if self.stopping.grace >= (epochs := self.most_epochs()):
            yield f"stopping.grace: expected less than optimizer.epochs, {epochs}, got {self.stopping.grace}"

    def most_epochs(self) -> int:
        """Of any of its trials."""
        return max(most for one in self.alternatives.values() for most in one.epochs())

    def unseen(self, seen: Collection[int]) -> list[int]:
        """The seeds with which the best configurations are run after the search, but for those seen."""
        return [seed for seed in self.confirm_seeds if seed not in seen]

    @property
    def goal(self) -> Goal:
        return Goal(self.objectives, self.constraints)

    @property
    def trial(self) -> TrialBase:
        """The first alternative's base trial, for what all of them share."""
        return next(iter(self.alternatives.values())).trial

    def name(self, params: Mapping[str, Any]) -> str:
        """Of the alternative that a configuration is one of."""
        return str(params.get(METHOD, next(iter(self.alternatives))))

    def configure(self, params: Mapping[str, Any], seed: int | None = None) -> TrialBase:
        """The trial of a configuration, with a seed other than its own where one is given."""
        if (name := self.name(params)) not in self.alternatives:
            raise unknown(METHOD, name, self.alternatives)
        values = {address: value for address, value in params.items() if address != METHOD}
        return self.alternatives[name].configure(values | ({} if seed is None else {"seed": seed}))

    def cell(self, number: int) -> dict[str, Any]:
        """The configuration of a place in the grid, alternative after alternative."""
        for name, alternative in self.alternatives.items():
            if number < alternative.cells():
                return self.named(name, alternative.cell(number))
            number -= alternative.cells()
        raise IndexError(number)

    def grown(self, trials: int) -> Sweep:
        """This sweep with so many trials, or as many as its grid has."""
        if self.searcher == GRID:
            trials = min(trials, sum(alternative.cells() for alternative in self.alternatives.values()))
        return self.model_copy(update={"trials": trials})

    def reached(self) -> list[str]:
        """The alternatives that its trials can be of: a search begins with each one's defaults."""
        if self.searcher != GRID:
            return list(self.alternatives)[: self.trials]
        return list(dict.fromkeys(self.name(self.cell(number)) for number in range(self.trials)))

    def named(self, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """An alternative's values as a configuration of the sweep."""
        return ({METHOD: name} if len(self.alternatives) > 1 else {}) | dict(params)


SWEEP_KEYS = tuple(Sweep.model_fields.keys() - {"space", "alternatives"})
_ADDRESSES = (*SWEEP_KEYS, *(f"stopping.{key}" for key in Stopping.model_fields))


def load_sweep(
    own: Document, documents: Mapping[str, tuple[Parts, Document]], source: str, found: Iterable[str] = ()
) -> Sweep:
    """A validated Sweep from the keys of its own and, by name, its alternatives' parts and documents; every fault, and
    those `found` before, in one InputError that names the source."""
    faults: dict[str, list[str]] = {name: [] for name in documents}
    implied = _implied(own)
    loaded = {
        name: _alternative(parts, merge(implied, stated), faults[name]) for name, (parts, stated) in documents.items()
    }
    alternatives = {name: one for name, one in loaded.items() if one is not None}
    problems = [*found, *told_once(faults), *_apart(alternatives)]
    if not problems:
        own = _counted(own, alternatives, problems)
    stand_in = alternatives or {"": Alternative(trial=TrialBase(method="cas", attacks=("linf",)))}
    document = {"seeds": [next(iter(stand_in.values())).trial.seed], **own, "alternatives": stand_in}
    made = validated(Sweep, document, list(_ADDRESSES), problems)
    if made is not None and alternatives:
        problems += [*_unjudged(made), *_unfit(made)]
    if problems or made is None:
        raise complain(source, list(dict.fromkeys(problems)))
    return made


def _implied(own: Document) -> Document:
    """Early stopping goes by values on the way."""
    stopping = own.get("stopping")
    stops = isinstance(stopping, Mapping) and stopping.get("name", NONE) != NONE
    return {"evaluation": {"every": 1}} if stops else {}


def told_once(faults: Mapping[str, list[str]]) -> list[str]:
    """The faults of alternatives, by name, each with whose it is, but for those that all of them have."""
    shared = set.intersection(*map(set, faults.values()))
    return [fault if fault in shared else f"{name}: {fault}" for name, own in faults.items() for fault in own]


def _counted(own: Document, alternatives: Mapping[str, Alternative], found: list[str]) -> Document:
    """A grid has all of its cells, or the first of them."""
    if own.get("searcher") != GRID:
        return own
    try:
        cells = sum(alternative.cells() for alternative in alternatives.values())
    except InputError as e:
        found.append(str(e))
        return own
    trials = own.get("trials", cells)
    return {**own, "trials": min(trials, cells) if isinstance(trials, int) else trials}


def _alternative(parts: Parts, document: Document, found: list[str]) -> Alternative | None:
    trial = trial_class(parts)
    addresses = dict(known_addresses(trial))
    searched = document.get(SEARCH, {})
    if isinstance(searched, Mapping):
        kept = {str(address): _searched(str(address), given, addresses, found) for address, given in searched.items()}
        searched = {address: kept[address] for address in sorted(kept) if kept[address] is not None}
    stated = {key: value for key, value in document.items() if key != SEARCH}
    base = validated(trial, stated, [*addresses, *SWEEP_KEYS, SEARCH], found)
    stand_in = base or TrialBase(method="cas", attacks=("linf",))
    made = validated(Alternative, {"trial": stand_in, SEARCH: searched}, list(addresses), found)
    if base is None or made is None:
        return None
    found += made.faults_at_ends()
    return made


def _searched(address: str, given: Any, addresses: Mapping[str, Any], found: list[str]) -> Any:
    """What is to be searched at an address, whole numbers where it takes only those; None where nothing can be."""
    searchable = {a: t for a, t in addresses.items() if a.split(".")[0] in FREE and not a.endswith(".name")}
    fault = None
    if address not in searchable:
        known = {a.split(".")[0] for a in addresses.keys() - searchable.keys()} - set(PARTS)
        shared = address in addresses or address.split(".")[0] in known
        why = "all trials of a sweep share it: give it one value, beside search"
        fault = f".{address}: {why}" if shared else f": {unknown('address', address, searchable)}"
    elif isinstance(given, Mapping) and not is_listed(given) and not takes_numbers(searchable[address]):
        fault = f".{address}: expected a list of values, got a range of numbers"
    if fault:
        found.append(SEARCH + fault)
        return None
    if not isinstance(given, Mapping) or is_listed(given):
        return given
    return {**given, "integer": takes_whole(searchable[address]) or given.get("integer", False)}


def _apart(alternatives: Mapping[str, Alternative]) -> list[str]:
    """What alternatives have of their own and must share."""
    first, *others = alternatives or [""]
    return [
        f"{name}: {key}: all trials of a sweep share it, got {getattr(alternatives[name].trial, key)} beside {shared}"
        for name in others
        for key in TrialBase.model_fields.keys() - set(OWN)
        if getattr(alternatives[name].trial, key) != (shared := getattr(alternatives[first].trial, key))
    ]


def _unjudged(sweep: Sweep) -> list[str]:
    """The metrics of its goal that its trials will not have."""
    asked = dict.fromkeys(sweep.objectives, "objectives")
    asked |= {Constraint.of(text).metric: "constraints" for text in sweep.constraints}
    known = [goals.VALUE, goals.CLEAN, goals.WORST]
    if not asked.keys() - set(known):
        return []
    judged = sweep.trial.evaluation.resolved().names(sweep.trial.attacks)
    families = {sweep.trial.attack(name).family for name in judged}
    averages = {goals.LP: {"lp"}, goals.SEMANTIC: {"semantic", "perceptual"}}
    known += [*judged, *(name for name, members in averages.items() if families & members)]
    return [f"{key}: {unknown('metric', name, known)}" for name, key in asked.items() if name not in known]


def _unfit(sweep: Sweep) -> list[str]:
    """Why its searcher cannot search its space."""
    searched = [name for name, one in sweep.alternatives.items() if one.search]
    if sweep.searcher not in ONE_METHOD or len(sweep.alternatives) == 1 or not searched:
        return []
    why = ONE_METHOD[sweep.searcher]
    return [f"searcher: {sweep.searcher} takes one method, got {len(sweep.alternatives)}: {why}; use {TPE}"]


def reload(document: Any) -> Sweep:
    """The Sweep that `model_dump(mode="json")` gave this document for; InputError for anything else."""
    try:
        own = {key: value for key, value in document.items() if key != "alternatives"}
        found = {
            str(name): (
                tuple((kind, str(stated["trial"][kind]["name"])) for kind in PARTS),
                {**stated["trial"], SEARCH: stated[SEARCH]},
            )
            for name, stated in document["alternatives"].items()
        }
    except (AttributeError, KeyError, TypeError) as e:
        raise InputError(f"sweep.json holds no sweep's spec: {type(e).__name__} {e}") from e
    return load_sweep(own, found, "sweep.json")
