"""VIR: vulnerable images count more, the more so the further the attack moved their prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import Attack, View
from attacks.errors import InputError, unknown
from trainers.objectives.mart import of_label
from trainers.parts import weightings
from trainers.weightings.gairat import burn_in_epochs

SCORES = ("both", "s_v", "s_d")


@weightings.register("vir")
@dataclass
class Vir:
    """w = S_v * S_d + beta (vir, Eq. 7), S_v = alpha * exp(-gamma * p_y(x)) (Eq. 5), S_d = KL(p(x) || p(x_adv))
    (Eq. 6), from the train-mode predictions: with `ce` one train-mode forward more. `score` "s_v" or "s_d" weighs by
    that alone, without beta (the ablations, Tables 6 and 7). The defaults are VIR-AT's; VIR-TRADES has alpha 8,
    gamma 3, beta 1.6. The first `burn_in` share of the epochs weighs all images 1: 76 of 115, as Alg. 1 has it; the
    text starts an epoch earlier.

    The weights are not normalised, as printed: their mean scales the learning rate. Eq. 8 and 10 sum over the batch;
    here, as everywhere, the loss is the mean. A probability that fp32 rounds to 0 counts as its smallest number.
    The attack starts where it likes, not at x + 0.001 N(0, 1) as in line 5 of Alg. 1.
    """

    alpha: float = 7.0
    gamma: float = 10.0
    beta: float = 0.007
    score: str = "both"
    burn_in: float = 76 / 115
    clean: ClassVar[bool] = True
    weighs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("alpha", "gamma", "beta"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"expected {name} >= 0, got {getattr(self, name)}")
        if self.score not in SCORES:
            raise unknown("score of vir", self.score, SCORES)
        burn_in_epochs(self.burn_in, 1)

    def start(self, attacks: Sequence[Attack], epochs: int) -> None:
        self._begin = burn_in_epochs(self.burn_in, epochs)

    def __call__(self, p_clean: Tensor | None, p_adv: Tensor, view: View, y: Tensor, epoch: int) -> Tensor:
        if epoch < self._begin:
            return torch.ones(len(y), device=y.device)
        assert p_clean is not None, "`clean` asked for it"
        s_v = self.alpha * torch.exp(-self.gamma * of_label(p_clean, y))
        s_d = self.discrepancy(p_clean, p_adv)
        return {"both": s_v * s_d + self.beta, "s_v": s_v, "s_d": s_d}[self.score]

    def discrepancy(self, p: Tensor, q: Tensor) -> Tensor:
        """KL(p || q) of each image, from probabilities; at least 0, which round-off would miss."""
        tiny = torch.finfo(p.dtype).tiny
        return (torch.xlogy(p, p) - p * q.clamp(min=tiny).log()).sum(1).clamp(min=0)
