"""Adversarial and clean cross entropy, mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks import View
from attacks.errors import InputError
from trainers.parts import Loss, objectives


@objectives.register("hybrid")
@dataclass
class Hybrid:
    """beta * CE(f(x_adv), y) + (1 - beta) * CE(f(x), y) (cas-bandit, Eq. 8), the former its mean over the views; a
    weighting scales the adversarial part. One train-mode forward more than `ce`."""

    beta: float = 8 / 9
    clean: ClassVar[bool] = True
    attack_clean: ClassVar[bool] = False
    random_start: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise InputError(f"expected beta between 0 and 1, got {self.beta}")

    def attack_loss(self, clean_logits: Tensor | None) -> Loss | None:
        return None

    def terms(
        self, clean: Tensor | None, advs: Sequence[Tensor], views: Sequence[View], y: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert clean is not None, "`clean` asked for it"
        robust = torch.stack([cross_entropy(z, y, reduction="none") for z in advs]).mean(0)
        return (1 - self.beta) * cross_entropy(clean, y, reduction="none"), self.beta * robust
