"""The live weights are the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from trainers.parts import Gain, State, averagings


@averagings.register("none")
@dataclass
class Live:
    companions: ClassVar[Sequence[str]] = ()

    @property
    def wants_gain(self) -> str | None:
        return None

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> None:
        pass

    def after_step(self, model: nn.Module) -> None:
        pass

    def after_epoch(
        self, old: State, live: State, companions: Mapping[str, State], gain: Gain | None, warm_up: bool
    ) -> State | None:
        return None

    def weights(self) -> State | None:
        return None

    def record(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass
