"""Order: one attack a batch, in a fixed cycle in which each comes as often as it weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from attacks.errors import InputError
from trainers.parts import Batch, Seen, State, samplers

if TYPE_CHECKING:
    from trainers.tradeoff import Prior

SPACINGS = ("even", "blocks")


@samplers.register("order")
@dataclass
class Order:
    """The baseline of cas-bandit, Sec. 5.1: it "cycles through attack types in a fixed, weight-based order". Nothing is
    drawn. With whole weights a cycle has sum(weight) batches, and attack j weight[j] of them; other weights need no
    rounding, the cycle is then only longer. It goes on through the epochs.

    The paper is silent on the order in a cycle. "even" (our reading): next is the attack that is furthest behind its
    share, so that a weight of 6 is spread over the cycle; "blocks": all turns of the first attack, then all of the
    second. Ties go to the attack that the trial lists first.
    """

    spacing: str = "even"
    needs_prior: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise InputError(f"expected spacing even or blocks, got {self.spacing!r}")

    def start(self, attacks: Sequence[str], weights: Mapping[str, float], prior: Prior | None) -> None:
        self._attacks = list(attacks)
        self._weights = torch.tensor([weights[a] for a in attacks], dtype=torch.float64)
        self._turns = torch.zeros(len(attacks), dtype=torch.int64)

    def probabilities(self, batch: Batch | None) -> Mapping[str, float]:
        """1 for the attack whose turn the batch is; with None, each attack's share of a cycle."""
        if batch is None:
            return dict(zip(self._attacks, (self._weights / self._weights.sum()).tolist(), strict=True))
        turn = self._next()
        return {a: float(j == turn) for j, a in enumerate(self._attacks)}

    def choose(self, batch: Batch, rng: np.random.Generator) -> list[str]:
        return [self._attacks[self._next()]]

    def _next(self) -> int:
        if self.spacing == "blocks":
            return int(((self._turns + 0.5) / self._weights).floor().argmin())  # the cycle that its next turn is of
        behind = (self._turns.sum() + 1) * self._weights / self._weights.sum() - self._turns
        return int(behind.round(decimals=9).argmax())  # rounded, so that a tie is one in every cycle

    def observe(self, batch: Batch, seen: Sequence[Seen]) -> None:
        self._turns[self._next()] += 1

    def record(self) -> dict[str, Any]:
        return {}

    def state_dict(self) -> State:
        return {"turns": self._turns}

    def load_state_dict(self, state: State) -> None:
        self._turns = state["turns"].clone()
