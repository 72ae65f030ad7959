"""SAT: one attack a batch, drawn with fixed probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from trainers.parts import Batch, Record, Seen, State, samplers

if TYPE_CHECKING:
    from trainers.tradeoff import Prior


def draw(probabilities: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    """One name, drawn with these probabilities."""
    names, p = list(probabilities), np.array(list(probabilities.values()))
    return [names[int(rng.choice(len(names), p=p / p.sum()))]]


@samplers.register("sat")
@dataclass
class Sat:
    """Stochastic adversarial training (Madaan et al. 2021, as cas-bandit Sec. 5 reads it): p[j] ∝ weight[j]."""

    needs_prior: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False

    def start(self, attacks: Sequence[str], weights: Mapping[str, float], prior: Prior | None) -> None:
        total = sum(weights[a] for a in attacks)
        self._p = {a: weights[a] / total for a in attacks}

    def probabilities(self, batch: Batch | None) -> Mapping[str, float]:
        return self._p

    def choose(self, batch: Batch, rng: np.random.Generator) -> list[str]:
        return draw(self._p, rng)

    def observe(self, batch: Batch, seen: Sequence[Seen]) -> None:
        pass

    def record(self) -> Record:
        return {}

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass
