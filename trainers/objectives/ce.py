"""Cross entropy on the adversarial images, nothing on the clean ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks import View
from trainers.parts import Loss, objectives


@objectives.register("ce")
@dataclass
class CrossEntropy:
    """The mean over the views of CE(f(x_adv), y) (Madry et al. 2018)."""

    clean: ClassVar[bool] = False
    attack_clean: ClassVar[bool] = False
    random_start: ClassVar[bool] = False

    def attack_loss(self, clean_logits: Tensor | None) -> Loss | None:
        return None

    def terms(
        self, clean: Tensor | None, advs: Sequence[Tensor], views: Sequence[View], y: Tensor
    ) -> tuple[Tensor, Tensor]:
        robust = torch.stack([cross_entropy(z, y, reduction="none") for z in advs]).mean(0)
        return torch.zeros_like(robust), robust
