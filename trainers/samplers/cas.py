"""The sampler of three-phase CAS: attacks drawn by accuracy in the warm-up, then by accuracy, loss and trade-off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks.errors import InputError
from trainers.parts import Batch, Record, Seen, State, samplers
from trainers.samplers.sat import draw

if TYPE_CHECKING:
    from trainers.tradeoff import Prior


@samplers.register("cas")
@dataclass
class Cas:
    """Calibrated adversarial sampling (cas-three-phase, Sec. 4, Alg. 1), phases II and III.

    Warm-up (Eq. 5): p[j] ∝ weight[j] * exp(1 - acc[j]).
    After it (Eq. 9): p[j] ∝ weight[j] * exp(w1 (1 - acc[j]) + w2 loss[i][j] + w3 sum_k TR[j][k]).
    weight[j] is Eq. 6's factor; which reading of it is the trial's `importance`. Phase I is the Prior.

    Where the paper is silent (SPEC G.3, G.5): acc[j] is a running mean, `accuracy_decay` of it kept at each batch that
    attack j trains; loss[i][j] is kept per image and averaged over the batch, so that batches may be reshuffled (with
    `optimizer.fixed_batches` it is the paper's loss[i][j]). w1 = 0, w2 = 0 or w3 = 0 drop the AC, LO or TR term.
    """

    w1: float = 10.0
    w2: float = 1.0
    w3: float = 0.5
    accuracy_decay: float = 0.9
    needs_prior: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("w1", "w2", "w3"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"expected {name} >= 0, got {getattr(self, name)}")
        if not 0 <= self.accuracy_decay < 1:
            raise InputError(f"expected 0 <= accuracy_decay < 1, got {self.accuracy_decay}")

    def start(self, attacks: Sequence[str], weights: Mapping[str, float], prior: Prior | None) -> None:
        if prior is None or list(prior.attacks) != list(attacks):
            raise InputError(f"expected a prior over the attacks {list(attacks)}, got {prior and list(prior.attacks)}")
        self._attacks = list(attacks)
        self._log_weights = torch.tensor([weights[a] for a in attacks], dtype=torch.float64).log()
        self._accuracy = prior.accuracy.double().clone()
        self._loss = prior.loss.clone()
        self._externality = prior.tradeoff.double().sum(1)

    def probabilities(self, batch: Batch | None) -> Mapping[str, float]:
        """Of the batch given, or, with None, of the average batch of the phase after the warm-up."""
        p = torch.softmax(self._log_weights + self._exponent(batch), 0)
        return dict(zip(self._attacks, p.tolist(), strict=True))

    def _exponent(self, batch: Batch | None) -> Tensor:
        if batch is not None and batch.warm_up:
            return 1 - self._accuracy
        loss = (self._loss if batch is None else self._loss[batch.index]).double().mean(0)
        return self.w1 * (1 - self._accuracy) + self.w2 * loss + self.w3 * self._externality

    def choose(self, batch: Batch, rng: np.random.Generator) -> list[str]:
        return draw(self.probabilities(batch), rng)

    def observe(self, batch: Batch, seen: Sequence[Seen]) -> None:
        for s in seen:
            j = self._attacks.index(s.attack)
            kept = self.accuracy_decay
            self._accuracy[j] = kept * self._accuracy[j] + (1 - kept) * s.correct.double().mean()
            self._loss[batch.index, j] = s.ce.to(self._loss.dtype)

    def record(self) -> Record:
        return {}

    def state_dict(self) -> State:
        return {"accuracy": self._accuracy, "loss": self._loss}

    def load_state_dict(self, state: State) -> None:
        self._accuracy, self._loss = state["accuracy"].clone(), state["loss"].clone()
