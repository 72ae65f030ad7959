"""Every attack for each batch: the sampler of AVG, MAX and MSD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trainers.parts import Batch, Seen, State, samplers

if TYPE_CHECKING:
    from trainers.tradeoff import Prior


@samplers.register("every")
@dataclass
class Every:
    """All attacks, in the order of the trial, but those of importance 0: how they become training batches is the
    inner's choice. Nothing is drawn: the probabilities are each attack's share of the generated batches, all alike. An
    importance other than 0 does not change it: weights of the losses are not a sampler's to give."""

    needs_prior: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False

    def start(self, attacks: Sequence[str], weights: Mapping[str, float], prior: Prior | None) -> None:
        self._chosen = [a for a in attacks if weights[a] > 0]
        self._p = {a: 1 / len(self._chosen) if weights[a] > 0 else 0.0 for a in attacks}

    def probabilities(self, batch: Batch | None) -> Mapping[str, float]:
        return self._p

    def choose(self, batch: Batch, rng: np.random.Generator) -> list[str]:
        return list(self._chosen)

    def observe(self, batch: Batch, seen: Sequence[Seen]) -> None:
        pass

    def record(self) -> dict[str, Any]:
        return {}

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass
