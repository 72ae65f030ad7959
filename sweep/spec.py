"""What a sweep is: the document behind `run`, validated whole before anything starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)
from torch import nn

import attacks
from attacks.base import ATTACKS, Attack
from attacks.errors import InputError, unknown
from sweep.settings import (
    SEPARATOR,
    Count,
    Document,
    Strict,
    Whole,
    complain,
    distinct,
    faults,
    section,
)
from trainers import evaluate, methods, sources
from trainers.models import default_width, io, models
from trainers.models.foreign import load_robustbench
from trainers.models.layers import activation_of
from trainers.parts import PARTS
from trainers.pretrain import NORMS, Pretraining
from trainers.recipe import Recipe


def _one_of(check: Callable[[str], Any]) -> AfterValidator:
    """A validator of a name: what raises for an unknown one says so."""

    def known(name: str) -> str:
        check(name)
        return name

    return AfterValidator(known)


RELU = "relu"
Seed = Annotated[Whole, Field(ge=0, lt=2**31)]
AttackName = Annotated[str, _one_of(ATTACKS.get)]


class Model(Strict):
    """`width` is the network's own where none is given. `activation` is that of a model made here; it is
    written, and so part of a trial's key, where it is not relu."""

    name: Annotated[str, _one_of(models.get)] = "preact-resnet-18"
    width: Count = 64
    activation: Annotated[str, _one_of(activation_of)] = RELU

    @model_validator(mode="before")
    @classmethod
    def _own_width(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("width") is not None or given.get("name") not in models.names():
            return given
        return {**given, "width": default_width(given["name"])}

    @model_serializer(mode="wrap")
    def _without_default(self, dump: SerializerFunctionWrapHandler) -> Document:
        document: Document = dump(self)
        if self.activation == RELU:
            del document["activation"]
        return document


class Evaluation(Strict):
    """`protocol` and `num_steps`: trainers.evaluate. Images are judged `batch_size` at a time. `every`: a trial judges
    the validation images after every so many epochs too, 0: at its end only. It decides nothing: a document leaves out
    0, a key leaves it out."""

    protocol: Annotated[str, _one_of(evaluate.protocol)] = "quick"
    num_steps: Count | None = None
    batch_size: Count = 128
    every: Annotated[Whole, Field(ge=0)] = 0

    @model_serializer(mode="wrap")
    def _said(self, usual: SerializerFunctionWrapHandler) -> Document:
        document: Document = usual(self)
        return document if self.every else {key: value for key, value in document.items() if key != "every"}

    def resolved(self) -> evaluate.Protocol:
        return evaluate.protocol(self.protocol, self.num_steps)


class TrialBase(Strict):
    """Everything that decides a trial's result, but the data and the starting model themselves. The sections of the
    five parts are added for the method at hand. `eval_size` images of val and of test are judged, all where it is None;
    `test_size` says otherwise for test. In training an attack takes `attack_steps` steps, its own number where that is
    None. `budgets` override what the data set's file says of an attack, `epsilons` both. `features`: where perceptual
    distances are measured: in the starting model, in the model under attack ("self"), or in an AlexNet of these
    weights."""

    method: str
    dataset: Annotated[str, _one_of(sources.source)] = "digits-photo"
    split_seed: Whole = 0
    train_size: Count | None = None
    eval_size: Count | None = None
    test_size: Count | None = None
    model: Model = Model()
    init: Annotated[str, _one_of(lambda init: _expect_start(init))] = "pretrain:linf"
    attacks: Annotated[tuple[AttackName, ...], AfterValidator(distinct)]
    train_attacks: Annotated[tuple[AttackName, ...], AfterValidator(distinct)] | None = None
    attack_steps: Count | None = 10
    epsilons: dict[AttackName, Any] = Field(default_factory=dict)
    budgets: dict[AttackName, dict[str, Any]] = Field(default_factory=dict)
    features: Annotated[str, _one_of(lambda features: _expect_features(features))] = "start"
    importance: Annotated[Any, AfterValidator(lambda reading: _expect_importance(reading))] = "balanced"
    evaluation: Evaluation = Evaluation()
    seed: Seed = 0
    workers: Count = 1

    @field_validator("epsilons", "budgets")
    @classmethod
    def _budgeted(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        dataset, knob = info.data.get("dataset"), {"epsilons": "epsilon", "budgets": "budget"}[str(info.field_name)]
        checks = [partial(attacks.get, name, dataset, **{knob: own}) for name, own in given.items() if dataset]
        if found := [fault for check in checks for fault in fault_of(check)]:
            raise InputError(SEPARATOR.join(found))
        return given

    @model_validator(mode="after")
    def _consistent(self) -> TrialBase:
        """What only several keys together can get wrong."""
        names = dict.fromkeys([*self.attacks, *self.trained()])
        found = [fault for name in names for fault in fault_of(partial(self.attack, name), "attacks")]
        found = found or fault_of(lambda: methods.importance(self.importance, self.families()), "importance")
        if not found and all(hasattr(self, kind) for kind in PARTS):
            found = fault_of(self.compose) or fault_of(self._expect_attacks, "train_attacks")
        if found:
            raise InputError(SEPARATOR.join(found))
        return self

    def attack(self, name: str, start: nn.Module | None = None) -> Attack:
        """The attack with this trial's budget and its own number of steps; with the starting model, also bound to what
        measures its distances."""
        attack = attacks.get(name, self.dataset, self.epsilons.get(name), self.budgets.get(name))
        if start is None or self.features == SELF or attack.family != "perceptual":
            return attack
        if self.features == START:
            return attack.bind(start)
        return attack.bind(load_features(self.features).to(next(start.parameters()).device))

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

    def adapts(self) -> bool:
        """Whether its sampler's probabilities follow what it sees."""
        return bool(self.compose().sampler.adaptive)

    def replaying(self, probabilities: Mapping[str, float]) -> TrialBase:
        """This trial with a sampler of fixed probabilities."""
        parts = tuple((kind, "sat" if kind == "sampler" else str(self.part(kind)["name"])) for kind in PARTS)
        document = {**self.model_dump(mode="json"), "sampler": {}, "importance": dict(probabilities)}
        return trial_class(parts).model_validate(document)

    def _expect_attacks(self) -> None:
        methods.expect_attacks({kind: str(self.part(kind)["name"]) for kind in PARTS}, self.families())

    def recipe(self) -> Recipe:
        return Recipe(**self.optimizer.model_dump())  # type: ignore[attr-defined]

    def pretrain_recipe(self) -> Pretraining:
        return Pretraining(**self.pretraining.model_dump())  # type: ignore[attr-defined]

    def key(self, *, init: str, fingerprint: str) -> str:
        """The name of this work: equal work, on equal data from an equal starting model, has an equal key."""
        decides = self.model_dump(mode="json", exclude={"evaluation": {"every"}})
        return digest({"trial": decides, "init": init, "data": fingerprint})


S = TypeVar("S", bound=BaseModel)


def validated(model: type[S], document: Any, known: list[str], found: list[str]) -> S | None:
    """The validated model, or None with its faults added to `found`."""
    try:
        return model.model_validate(document)
    except ValidationError as e:
        found += faults(e, known)
        return None


def known_addresses(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every address in a document of this class, and its type."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from known_addresses(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


Parts = tuple[tuple[str, str], ...]
"""(kind, name) of each of the five parts."""


@cache
def trial_class(parts: Parts) -> type[TrialBase]:
    """The document of a trial whose five parts are these."""
    sections = {kind: section(PARTS[kind].get(name), name=name) for kind, name in parts}
    sections |= {"optimizer": section(Recipe), "pretraining": section(Pretraining)}
    keys: dict[str, Any] = {name: (model, Field(default_factory=model)) for name, model in sections.items()}
    return create_model("Trial", __base__=TrialBase, **keys)


def digest(document: Any) -> str:
    """16 hex digits that name a JSON document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def fault_of(check: Callable[[], Any], address: str = "") -> list[str]:
    """The fault that a check raises, at its address; none where it passes."""
    try:
        check()
    except InputError as e:
        return [f"{address}: {e}" if address else str(e)]
    return []


def _expect_importance(reading: Any) -> Any:
    if isinstance(reading, str) and reading not in methods.IMPORTANCE:
        raise unknown("importance", reading, methods.IMPORTANCE)
    weights = reading.values() if isinstance(reading, Mapping) else [] if isinstance(reading, str) else [reading, None]
    if not all(isinstance(w, int | float) and not isinstance(w, bool) for w in weights):
        readings = ", ".join(methods.IMPORTANCE)
        raise InputError(f"expected {readings}, or attacks with a number each, got {reading!r}")
    return reading


def evaluation_base(document: Document) -> TrialBase:
    """The document of an evaluation without training: a trial's, but for its five parts."""
    found: list[str] = []
    base = validated(TrialBase, {**document, "method": "none"}, [a for a, _ in known_addresses(TrialBase)], found)
    if base is None:
        raise complain("evaluation", found)
    return base


START, SELF = "start", "self"


def _expect_features(features: str) -> None:
    if features not in (START, SELF):
        load_features(features)


def load_features(path: str) -> nn.Module:
    """An AlexNet for perceptual distances, from a file of weights."""
    from attacks.perceptual.alexnet import AlexNetFeatures

    return AlexNetFeatures.load(path)


FRESH, PRETRAINED, ROBUSTBENCH = "none", "pretrain", "robustbench"


def _expect_start(init: str) -> None:
    kind, colon, norm = init.partition(":")
    if colon and kind == PRETRAINED and norm not in NORMS:
        ours = ", ".join(f"{PRETRAINED}:{n}" for n in NORMS)
        raise InputError(f"expected {ours}, {ROBUSTBENCH}:NAME, a file or {FRESH}, got {init!r}")


def is_made_here(init: str) -> bool:
    """Whether a starting model is trained or drawn here, not read."""
    return init == FRESH or init.startswith(f"{PRETRAINED}:")


def read_start(init: str, dataset: str) -> nn.Module:
    """A starting model that is not made here: a file's, or one of RobustBench's; InputError where there is none."""
    kind, _, name = init.partition(":")
    return load_robustbench(name, dataset) if kind == ROBUSTBENCH else io.load(init)
