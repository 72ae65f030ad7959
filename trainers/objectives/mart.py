"""MART: boosted cross entropy, and a divergence that counts most where the clean image is misclassified."""

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


def others(values: Tensor, y: Tensor) -> Tensor:
    """The largest of values (B, K) but the label's, (B,)."""
    return values.scatter(1, y[:, None], -torch.inf).amax(1)


def of_label(values: Tensor, y: Tensor) -> Tensor:
    """The label's of values (B, K), (B,)."""
    return values.gather(1, y[:, None])[:, 0]


@objectives.register("mart")
@dataclass
class Mart:
    """BCE(x_adv, y) + beta * KL(p(x) || p(x_adv)) * (1 - p_y(x)), where BCE = CE(f(x_adv), y) - log(1.0001 - max of
    p_k(x_adv), k != y) (Wang et al. 2020; MART@2d83e17), with a gradient through everything. A weighting scales BCE,
    as MAIL-MART does. Several views: the mean.

    The attack maximises cross entropy, whose gradient at x is no round-off: it starts where it likes, the authors'
    at x + 0.001 N(0, 1). beta is 5 for their ResNet-18, 6 for their WideResNet.
    Deviations: without the guards 1e-12 and 1e-7, for 1.0001 already keeps the logarithm finite; one clean train-mode
    forward.
    """

    beta: float = 5.0
    clean: ClassVar[bool] = True
    attack_clean: ClassVar[bool] = False
    random_start: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.beta < float("inf"):
            raise InputError(f"expected beta >= 0, got {self.beta}")

    def attack_loss(self, clean_logits: Tensor | None) -> Loss | None:
        return None

    def terms(
        self, clean: Tensor | None, advs: Sequence[Tensor], views: Sequence[View], y: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert clean is not None, "`clean` asked for it"
        doubt = 1 - of_label(clean.softmax(1), y)
        plain = torch.stack([kl(clean, z) * doubt for z in advs]).mean(0)
        boosted = [cross_entropy(z, y, reduction="none") - (1.0001 - others(z.softmax(1), y)).log() for z in advs]
        return self.beta * plain, torch.stack(boosted).mean(0)
