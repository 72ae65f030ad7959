"""The five parts of a method and what passes between them. A part is a dataclass: its fields are its hyper-parameters,
checked in `__post_init__`; what it must remember goes through `state_dict`, as tensors, or resume is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

from attacks import Attack, View
from attacks.registry import Registry

if TYPE_CHECKING:
    from trainers.tradeoff import Prior

State = dict[str, Tensor]
Record = dict[str, dict[str, float]]
"""What a part adds to an epoch's row since it was last asked: column -> name -> number."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K), labels (B,)) -> loss (B,), to be maximised by an attack."""


@dataclass(frozen=True)
class Batch:
    """One batch. `index` (B,), on the CPU, is each image's place in the training set, for the whole batch; `x` and `y`
    are this worker's share of it, `index[share]`."""

    index: Tensor
    share: slice
    x: Tensor
    y: Tensor
    epoch: int
    step: int
    warm_up: bool


@dataclass(frozen=True)
class Seen:
    """What one attack did to a whole batch, on the CPU, gathered from all workers: cross entropy (B,) and correctness
    (B,) of the train-mode forward on x_adv, and the attack's own record (View) from the eval-mode model."""

    attack: str
    ce: Tensor
    correct: Tensor
    robust_all: Tensor
    steps_correct: Tensor


class Stateful(Protocol):
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...


class Sampler(Stateful, Protocol):
    """`start` comes once, before the first batch and before `load_state_dict`. `weights` are the importance weights of
    the attacks (SPEC G.4), `prior` is None unless `needs_prior`. Every worker holds the same state: `observe` gets the
    whole batch, and `rng` is the same everywhere. The names in `state_dict` do not change after `start`."""

    needs_prior: ClassVar[bool]
    adaptive: ClassVar[bool]  # its probabilities follow what it sees

    def start(self, attacks: Sequence[str], weights: Mapping[str, float], prior: Prior | None) -> None: ...
    def probabilities(self, batch: Batch | None) -> Mapping[str, float]: ...
    def choose(self, batch: Batch, rng: np.random.Generator) -> list[str]: ...
    def observe(self, batch: Batch, seen: Sequence[Seen]) -> None: ...
    def record(self) -> Record: ...


class Inner(Protocol):
    """Runs the chosen attacks on this worker's share of the batch; one View becomes one training batch. A view that
    several attacks made together has a name of its own."""

    def views(
        self, model: nn.Module, batch: Batch, attacks: Sequence[Attack], loss: Loss | None, seeds: Tensor
    ) -> list[View]: ...
    def record(self) -> Record: ...


class Objective(Protocol):
    """`terms` gets the logits of the clean batch (None unless `clean`) and of each view, and returns two losses per
    image: one that is never weighted and one that the weighting scales. `attack_loss` is what the attack maximises,
    None for cross entropy; with `attack_clean` it is told the eval-mode logits of the clean batch. With `random_start`
    the attacks that can start at random do."""

    clean: ClassVar[bool]
    attack_clean: ClassVar[bool]
    random_start: ClassVar[bool]

    def attack_loss(self, clean_logits: Tensor | None) -> Loss | None: ...
    def terms(
        self, clean: Tensor | None, advs: Sequence[Tensor], views: Sequence[View], y: Tensor
    ) -> tuple[Tensor, Tensor]: ...


class Weighting(Protocol):
    """Weights (B,), detached, from the probabilities on the clean batch (None unless `clean`) and on the first view.
    `start` comes once, before the first batch."""

    clean: ClassVar[bool]
    weighs: ClassVar[bool]  # False where all images count the same throughout

    def start(self, attacks: Sequence[Attack], epochs: int) -> None: ...
    def __call__(self, p_clean: Tensor | None, p_adv: Tensor, view: View, y: Tensor, epoch: int) -> Tensor: ...


@dataclass(frozen=True)
class Gain:
    """The mean change of robust accuracy over the attacks in one epoch, with its standard error."""

    mean: float
    stderr: float


class Averaging(Stateful, Protocol):
    """`wants_gain` is None, "probe" or "train". What `after_epoch` returns, if anything, replaces the live weights.
    `weights` and `state_dict` give the state itself, not a copy; its names do not change after `start`.
    `old` and `live` are the state dicts at the epoch's start and end, `companions` those of the runs that
    `companions` asked for ("clean": one epoch of clean training from the same start)."""

    companions: ClassVar[Sequence[str]]

    @property
    def wants_gain(self) -> str | None: ...
    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> None: ...
    def after_step(self, model: nn.Module) -> None: ...
    def after_epoch(
        self, old: State, live: State, companions: Mapping[str, State], gain: Gain | None, warm_up: bool
    ) -> State | None: ...
    def weights(self) -> State | None: ...
    def record(self) -> dict[str, float]: ...


samplers: Registry[type[Sampler]] = Registry("sampler", "trainers.samplers")
inners: Registry[type[Inner]] = Registry("inner", "trainers.inner")
objectives: Registry[type[Objective]] = Registry("objective", "trainers.objectives")
weightings: Registry[type[Weighting]] = Registry("weighting", "trainers.weightings")
averagings: Registry[type[Averaging]] = Registry("averaging", "trainers.averaging")

PARTS: dict[str, Registry[type]] = {
    "sampler": samplers,
    "inner": inners,
    "objective": objectives,
    "weighting": weightings,
    "averaging": averagings,
}


@dataclass
class Method:
    sampler: Sampler
    inner: Inner
    objective: Objective
    weighting: Weighting
    averaging: Averaging
