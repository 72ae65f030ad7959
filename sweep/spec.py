"""What a sweep is: the document behind `run`, validated whole before anything starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    PositiveInt,
    SerializeAsAny,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)

import attacks
from attacks.errors import InputError, unknown
from sweep import spaces
from sweep.settings import (
    RANGE,
    SEPARATOR,
    VALUES,
    Document,
    Strict,
    at,
    complain,
    faults,
    merge,
    nest,
    read_yaml,
    section,
)
from trainers import evaluate, methods, sources
from trainers.models import models
from trainers.parts import PARTS
from trainers.pretrain import NORMS, Pretraining
from trainers.recipe import Recipe


class Model(Strict):
    name: str = "preact-resnet-18"
    width: PositiveInt = 64

    @model_validator(mode="after")
    def _known(self) -> Model:
        models.get(self.name)
        return self


class Evaluation(Strict):
    """`protocol` and `num_steps`: trainers.evaluate. `test_size` images of the test split judge the models reported."""

    protocol: str = "quick"
    num_steps: PositiveInt | None = None
    batch_size: PositiveInt = 128

    @model_validator(mode="after")
    def _known(self) -> Evaluation:
        self.resolved()
        return self

    def resolved(self) -> evaluate.Protocol:
        return evaluate.protocol(self.protocol, self.num_steps)


class TrialBase(Strict):
    """Everything that decides a trial's result, but the data and the starting model themselves. The sections of the five
    parts are added for the method at hand."""

    method: str
    dataset: str = "digits-photo"
    split_seed: int = 0
    train_size: PositiveInt | None = None
    eval_size: PositiveInt | None = None
    model: Model = Model()
    init: str = "pretrain:linf"
    attacks: Annotated[tuple[str, ...], Field(min_length=1)] = ()
    train_attacks: tuple[str, ...] | None = None
    attack_steps: PositiveInt = 10
    epsilons: dict[str, float | str] = {}
    importance: str | dict[str, float] = "balanced"
    evaluation: Evaluation = Evaluation()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    workers: PositiveInt = 1

    @model_validator(mode="after")
    def _consistent(self) -> TrialBase:
        found = _fault_of(lambda: sources.source(self.dataset), "dataset") or self._attacks()
        found = found or _fault_of(lambda: methods.importance(self.importance, self.families()), "importance")
        found += self._start()
        if found:
            raise InputError(SEPARATOR.join(found))
        return self

    def _attacks(self) -> list[str]:
        names = dict.fromkeys([*self.attacks, *(self.train_attacks or ()), *self.epsilons])
        found = [fault for name in names for fault in _fault_of(lambda name=name: self.attack(name), "attacks")]
        if twice := {name for name in self.attacks if self.attacks.count(name) > 1}:
            found.append(f"attacks: {', '.join(sorted(twice))} is given twice")
        return found

    def _start(self) -> list[str]:
        kind, colon, norm = self.init.partition(":")
        if colon and kind == "pretrain" and norm not in NORMS:
            return [f"init: expected pretrain:linf, pretrain:l2, pretrain:l1, a file or none, got {self.init!r}"]
        return []

    def attack(self, name: str) -> attacks.Attack:
        """The attack with this trial's budget and its own number of steps."""
        return attacks.get(name, dataset=self.dataset, epsilon=self.epsilons.get(name))

    def families(self) -> dict[str, str]:
        """Name -> family of the attacks that it trains on."""
        return {name: self.attack(name).family for name in self.trained()}

    def trained(self) -> tuple[str, ...]:
        return self.train_attacks or self.attacks

    def part(self, kind: str) -> Document:
        """The settings of one of the five parts, with its `name`."""
        settings: Document = getattr(self, kind).model_dump()
        return settings

    def compose(self) -> Any:
        return methods.compose({kind: self.part(kind) for kind in PARTS})

    def recipe(self) -> Recipe:
        return Recipe(**self.optimizer.model_dump())  # type: ignore[attr-defined]

    def pretrain_recipe(self) -> Pretraining:
        return Pretraining(**self.pretraining.model_dump())  # type: ignore[attr-defined]

    def key(self, *, init: str, fingerprint: str) -> str:
        """The name of this work: equal work, on equal data from an equal starting model, has an equal key."""
        return digest({"trial": self.model_dump(mode="json"), "init": init, "data": fingerprint})


class Floats(Strict):
    """A number between `low` and `high`, uniformly or, with `log`, uniformly in its logarithm; with `step`, on a grid."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Floats:
        if not self.low < self.high:
            raise InputError(f"expected low < high, got {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise InputError(f"expected low > 0 and no step with log: true, got low {self.low} and step {self.step}")
        return self

    def ends(self) -> list[Any]:
        return [int(v) if self.integer else v for v in (self.low, self.high)]


class Values(Strict):
    """One of the values given."""

    values: Annotated[tuple[str | bool | int | float, ...], Field(min_length=1)]

    def ends(self) -> list[Any]:
        return list(self.values)


def _kind(given: Any) -> str:
    listed = isinstance(given, Values) or (isinstance(given, Mapping) and "values" in given)
    return VALUES if listed else RANGE


Distribution = Annotated[
    Annotated[Floats, Tag(RANGE)] | Annotated[Values, Tag(VALUES)],
    Discriminator(_kind),
]


class Sweep(Strict):
    """A base trial, what is searched around it, and how many trials there are to be, those run already included."""

    space: str
    trial: SerializeAsAny[TrialBase]
    search: dict[str, Distribution] = {}
    searcher: Literal["tpe", "random"] = "tpe"
    trials: PositiveInt = 6

    def configure(self, params: Mapping[str, Any]) -> TrialBase:
        """The trial at these values of the searched addresses; InputError where they make none."""
        document = merge(self.trial.model_dump(mode="json"), nest(params))
        found: list[str] = []
        made = _validated(type(self.trial), document, [], found)
        if made is None:
            raise complain("these values", found)
        return made

    def defaults(self) -> dict[str, Any]:
        """The base trial's values at the searched addresses: trial 0."""
        document = self.trial.model_dump(mode="json")
        return {address: at(document, address) for address in self.search}


SWEEP_KEYS = ("search", "searcher", "trials")


def resolve(space: str, overrides: Mapping[str, Any]) -> Sweep:
    """The sweep of a search space (a name in search_spaces/ or a YAML file) under overrides (a nested document).

    Each layer overrides the one before: the methods' own defaults, what the method's paper states, the profile of the
    data set, the space's file, `overrides`. Every fault is reported, in one InputError.
    """
    said = merge(read_yaml(spaces.read(space), space), overrides)
    entry = methods.entry(str(said.get("method", "cas")))
    profile = read_yaml(spaces.profile(str(said.get("dataset", "digits-photo"))), "data set profile")
    paper: Document = {"train_attacks": list(entry.train)} if entry.train else {}
    document = merge(merge(merge(paper, nest(entry.settings)), profile), said)
    document = merge({"attacks": spaces.default_attacks()}, document)
    names = tuple((kind, _part_name(document.get(kind), name)) for kind, name in entry.parts().items())
    own = {key: document.pop(key) for key in SWEEP_KEYS if key in document}
    own |= {"space": space}
    return load_sweep({**own, "trial": document}, names, space)


def load_sweep(document: Document, parts: tuple[tuple[str, str], ...], source: str) -> Sweep:
    """A validated Sweep from its document, as `resolve` made it or sweep.json kept it; every fault in one InputError."""
    trial = trial_class(parts)
    known = [*known_addresses(trial), *SWEEP_KEYS]
    found: list[str] = []
    base = _validated(trial, document["trial"], known, found)
    own = _validated(Sweep, {**document, "trial": base or TrialBase(method="cas", attacks=("linf",))}, known, found)
    searched = document.get("search")
    for address in searched if isinstance(searched, Mapping) else ():
        found += [] if address in known else [f"search: {unknown('address', address, known)}"]
        if base is not None and own is not None and address in known:
            found += _end_faults(own, address)
    if found or own is None:
        raise complain(source, list(dict.fromkeys(found)))
    return own


def _end_faults(sweep: Sweep, address: str) -> list[str]:
    """What is wrong with the trials at the ends of a searched range, or at its listed values."""
    ends = sweep.search[address].ends()
    return [fault for value in ends for fault in _fault_of(lambda v=value: sweep.configure({address: v}), f"search: {address} = {value}")]


def reload(document: Document) -> Sweep:
    """The Sweep that `model_dump(mode="json")` gave this document for."""
    return load_sweep(document, tuple((kind, document["trial"][kind]["name"]) for kind in PARTS), "sweep.json")


def _part_name(section: Any, default: str) -> str:
    return str(section["name"]) if isinstance(section, Mapping) and "name" in section else default


S = TypeVar("S", bound=BaseModel)


def _validated(model: type[S], document: Any, known: list[str], found: list[str]) -> S | None:
    """The validated model, or None with its faults added to `found`."""
    try:
        return model.model_validate(document)
    except ValidationError as e:
        found += faults(e, known)
        return None


def known_addresses(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every address in a document of this class."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from known_addresses(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@cache
def trial_class(parts: tuple[tuple[str, str], ...]) -> type[TrialBase]:
    """The document of a trial whose five parts are these: (kind, name) pairs."""
    sections = {kind: section(PARTS[kind].get(name), name=name) for kind, name in parts}
    sections |= {"optimizer": section(Recipe), "pretraining": section(Pretraining)}
    keys: dict[str, Any] = {name: (model, Field(default_factory=model)) for name, model in sections.items()}
    return create_model("Trial", __base__=TrialBase, **keys)


def digest(document: Any) -> str:
    """16 hex digits that name a JSON document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _fault_of(check: Any, address: str) -> list[str]:
    try:
        check()
    except InputError as e:
        return [f"{address}: {e}"]
    return []
