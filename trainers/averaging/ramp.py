"""RAMP's gradient projection: each epoch merges the adversarial weights with those of an epoch of clean training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from attacks.errors import InputError
from trainers.companion import CLEAN
from trainers.parts import Gain, State, averagings


@averagings.register("ramp")
@dataclass
class RampProjection:
    """With theta the weights at the epoch's start, g_a = theta_a - theta of the epoch's training and g_n = theta_n -
    theta of an epoch of clean training from the same start: theta + beta * max(0, cos(g_a, g_n)) * g_n + (1 - beta) *
    g_a, tensor by tensor, is what the next epoch goes on from and what is reported (RAMP@be4971f, `--gp`, used from
    scratch; our reading of which part beta multiplies). Batch-norm statistics are merged like weights; scalars, the
    number of batches, are theta_a's. Costs an epoch of clean training each epoch, and its forwards and backwards.

    The momentum of the adversarial training is kept across the merge (ours: the source does not say).
    """

    beta: float = 0.5
    companions: ClassVar[Sequence[str]] = (CLEAN,)

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise InputError(f"expected beta between 0 and 1, got {self.beta}")

    @property
    def wants_gain(self) -> str | None:
        return None

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> None:
        self._cosine = float("nan")

    def after_step(self, model: nn.Module) -> None:
        pass

    def after_epoch(
        self, old: State, live: State, companions: Mapping[str, State], gain: Gain | None, warm_up: bool
    ) -> State | None:
        clean, cosines = companions[CLEAN], []
        merged = dict(live)
        for name in (name for name, value in live.items() if value.ndim and value.is_floating_point()):
            merged[name], cosine = self.merge(old[name], live[name], clean[name])
            cosines.append(cosine)
        self._cosine = float(torch.stack(cosines).mean())
        return merged

    def merge(self, old: Tensor, adversarial: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """One tensor merged, and cos(g_a, g_n), 0 where one of them is 0."""
        g_a, g_n = adversarial - old, clean - old
        cosine = cosine_similarity(g_a.flatten(), g_n.flatten(), dim=0)
        return old + self.beta * cosine.clamp(min=0) * g_n + (1 - self.beta) * g_a, cosine

    def weights(self) -> State | None:
        return None

    def record(self) -> dict[str, float]:
        return {"cosine": self._cosine}

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass
