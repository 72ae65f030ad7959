"""EMA of the weights, once a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from attacks.errors import InputError
from trainers.parts import Gain, State, averagings

CIFAR_STEPS_PER_EPOCH = 391


def snapshot(model: nn.Module) -> State:
    """A detached copy of the parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def blend(mean: State, live: State, decay: float) -> None:
    """mean <- decay * mean + (1 - decay) * live, in place (Eq. 7), batch-norm statistics too; integers are copied."""
    for name, value in live.items():
        if value.is_floating_point():
            mean[name].lerp_(value, 1 - decay)
        else:
            mean[name].copy_(value)


@averagings.register("ema")
@dataclass
class Ema:
    """theta_bar <- decay * theta_bar + (1 - decay) * theta after every step (cas-three-phase, Eq. 7), from the starting
    weights. `decay` is stated for CIFAR's 391 steps an epoch; elsewhere it is decay ** (391 / steps per epoch), or a
    small data set would keep mostly its starting weights (SPEC E, G.5). The average is reported, never trained from.
    """

    decay: float = 0.995
    companions: ClassVar[Sequence[str]] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise InputError(f"expected 0 <= decay < 1, got {self.decay}")

    @property
    def wants_gain(self) -> str | None:
        return None

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> None:
        self._decay = self.decay ** (CIFAR_STEPS_PER_EPOCH / steps_per_epoch)
        self._mean = snapshot(model)

    def after_step(self, model: nn.Module) -> None:
        blend(self._mean, model.state_dict(), self._decay)

    def after_epoch(
        self, old: State, live: State, companions: Mapping[str, State], gain: Gain | None, warm_up: bool
    ) -> State | None:
        return None

    def weights(self) -> State | None:
        return self._mean

    def record(self) -> dict[str, float]:
        return {"decay": self._decay}

    def state_dict(self) -> State:
        return self._mean

    def load_state_dict(self, state: State) -> None:
        self._mean = {name: value.clone() for name, value in state.items()}
