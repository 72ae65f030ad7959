"""RAMP: cross entropy on the worse of two attacks, and the pairing of their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks import View
from attacks.errors import InputError
from trainers.objectives.trades import kl
from trainers.parts import Loss, objectives


@objectives.register("ramp")
@dataclass
class Ramp:
    """CE(f(x_max), y) + lam / n * (sum over the n images with f(x_q) right of KL(p(x_q) || p(x_r))), none if n = 0;
    a gradient through both predictions (Jiang and Singh 2024; RAMP@be4971f). Of the two views the first is the source
    q, linf in the paper, the second the target r, l1; x_max is the one on which its attack left the larger loss, q
    where they tie: attack losses are the View's, so both should return an evaluated iterate, as APGD does. A weighting
    scales the cross entropy. lam is 1.5 for fine-tuning, 5 from scratch.

    Deviation: the prediction on x_max is that of q's or r's train-mode forward, two forwards and two moves of the
    batch-norm statistics a step, not three. With several workers n counts this worker's share of the batch.
    """

    lam: float = 1.5
    clean: ClassVar[bool] = False
    attack_clean: ClassVar[bool] = False
    random_start: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.lam < float("inf"):
            raise InputError(f"expected lam >= 0, got {self.lam}")

    def attack_loss(self, clean_logits: Tensor | None) -> Loss | None:
        return None

    def terms(
        self, clean: Tensor | None, advs: Sequence[Tensor], views: Sequence[View], y: Tensor
    ) -> tuple[Tensor, Tensor]:
        if len(views) != 2:
            raise InputError(f"expected two attacks on every batch under ramp, source and target, got {len(views)}")
        source, target = advs
        ce = [cross_entropy(z, y, reduction="none") for z in advs]
        worse = torch.where(views[1].loss > views[0].loss, ce[1], ce[0])
        right = source.argmax(1) == y
        share = right / right.sum().clamp(min=1)
        return self.lam * len(y) * share * kl(source, target), worse
