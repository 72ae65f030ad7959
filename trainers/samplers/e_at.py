"""E-AT: one attack a batch, the more often the more it still breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from attacks.errors import InputError
from trainers.parts import Batch, Record, Seen, State, samplers
from trainers.samplers.sat import draw

if TYPE_CHECKING:
    from trainers.tradeoff import Prior


@samplers.register("e-at")
@dataclass
class EAt:
    """p[j] ∝ weight[j] * (1 - robust[j] / seen[j]) over the whole run (Croce and Hein 2022; robust-finetuning@0201a49),
    uniform in the weights until every attack has been seen once, and where nothing breaks any more.

    An image counts as robust when it was right at every iterate of the attack. `forgetting` < 1 multiplies both
    counters before each batch that the attack trains (ours; the authors' never forget).
    """

    forgetting: float = 1.0
    needs_prior: ClassVar[bool] = False
    adaptive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.forgetting <= 1:
            raise InputError(f"expected 0 < forgetting <= 1, got {self.forgetting}")

    def start(self, attacks: Sequence[str], weights: Mapping[str, float], prior: Prior | None) -> None:
        self._attacks = list(attacks)
        self._weights = torch.tensor([weights[a] for a in attacks], dtype=torch.float64)
        self._robust = torch.zeros(len(attacks), dtype=torch.float64)
        self._seen = torch.zeros(len(attacks), dtype=torch.float64)

    def probabilities(self, batch: Batch | None) -> Mapping[str, float]:
        p = self._weights
        if bool(((self._seen > 0) | (p == 0)).all()):
            p = p * (1 - self._robust / self._seen.clamp(min=1))
        if float(p.sum()) <= 0:
            p = self._weights
        return dict(zip(self._attacks, (p / p.sum()).tolist(), strict=True))

    def choose(self, batch: Batch, rng: np.random.Generator) -> list[str]:
        return draw(self.probabilities(batch), rng)

    def observe(self, batch: Batch, seen: Sequence[Seen]) -> None:
        for s in seen:
            j = self._attacks.index(s.attack)
            self._robust[j] = self.forgetting * self._robust[j] + s.robust_all.sum()
            self._seen[j] = self.forgetting * self._seen[j] + len(s.robust_all)

    def record(self) -> Record:
        return {}

    def state_dict(self) -> State:
        return {"robust": self._robust, "seen": self._seen}

    def load_state_dict(self, state: State) -> None:
        self._robust, self._seen = state["robust"].clone(), state["seen"].clone()
