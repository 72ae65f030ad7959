"""TRADES: clean cross entropy, and the divergence of the adversarial prediction from the clean one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from attacks import View
from attacks.errors import InputError
from trainers.parts import Loss, objectives


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(softmax(p) || softmax(q)) of each image, (B,), from two logits (B, K)."""
    return kl_div(q.log_softmax(1), p.log_softmax(1), reduction="none", log_target=True).sum(1)


@objectives.register("trades")
@dataclass
class Trades:
    """CE(f(x), y) + beta * KL(p(x) || p(x_adv)) (Zhang et al. 2019; vir, Eq. 9, whose 1 / lambda is beta), with a
    gradient through both predictions; a weighting scales the divergence (vir, Eq. 10). Several views: its mean.

    The attack maximises the divergence from the eval-mode clean prediction, which costs a forward. At x_adv = x its
    gradient is round-off, so an attack has to start elsewhere: `random_start` asks the method to set the field of that
    name, which APGD and PGD have; most semantic latents do not start at the clean image anyway.
    Deviations from TRADES@6e8e11b: that start is a random point of the ball, not x + 0.001 N(0, 1); one clean
    train-mode forward, not two, so batch-norm statistics move twice a step, not three times.
    """

    beta: float = 6.0
    clean: ClassVar[bool] = True
    attack_clean: ClassVar[bool] = True
    random_start: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.beta < float("inf"):
            raise InputError(f"expected beta >= 0, got {self.beta}")

    def attack_loss(self, clean_logits: Tensor | None) -> Loss | None:
        assert clean_logits is not None, "`attack_clean` asked for them"
        target = clean_logits.detach()

        def divergence(logits: Tensor, y: Tensor) -> Tensor:
            if logits.shape != target.shape:
                raise InputError(
                    f"expected an attack that evaluates all {len(target)} images of the batch together under trades, "
                    f"got {len(logits)}"
                )
            return kl(target, logits)

        return divergence

    def terms(
        self, clean: Tensor | None, advs: Sequence[Tensor], views: Sequence[View], y: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert clean is not None, "`clean` asked for it"
        robust = torch.stack([kl(clean, z) for z in advs]).mean(0)
        return cross_entropy(clean, y, reduction="none"), self.beta * robust
