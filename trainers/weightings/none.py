"""Every image counts the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import Attack, View
from trainers.parts import weightings


@weightings.register("none")
@dataclass
class Equal:
    clean: ClassVar[bool] = False
    weighs: ClassVar[bool] = False

    def start(self, attacks: Sequence[Attack], epochs: int) -> None:
        pass

    def __call__(self, p_clean: Tensor | None, p_adv: Tensor, view: View, y: Tensor, epoch: int) -> Tensor:
        return torch.ones(len(y), device=y.device)
