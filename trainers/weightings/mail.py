"""MAIL: an image counts the more, the smaller its probability margin under attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from attacks import Attack, View
from attacks.errors import InputError
from trainers.objectives.mart import of_label, others
from trainers.parts import weightings
from trainers.weightings.gairat import burn_in_epochs


@weightings.register("mail")
@dataclass
class Mail:
    """w = factor * sigmoid(-gamma (PM - beta)), PM = p_y(x_adv) - max of p_k(x_adv), k != y, from the train-mode
    prediction (Liu et al. 2021; vir, Eq. 3 and 4). MAIL@8367c64 calls gamma slope and beta bias: 10 and -0.5 for
    MAIL-AT, 2 and 0 for MAIL-TRADES; its `factor` is 3. With `normalise` the weights of the batch, with several
    workers those of this worker's share, sum to its size instead. The first `burn_in` share of the epochs, 76 of 120
    there, weigh all images 1."""

    gamma: float = 10.0
    beta: float = -0.5
    factor: float = 3.0
    normalise: bool = False
    burn_in: float = 76 / 120
    clean: ClassVar[bool] = False
    weighs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("gamma", "factor"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"expected {name} > 0, got {getattr(self, name)}")
        if not math.isfinite(self.beta):
            raise InputError(f"expected a finite beta, got {self.beta}")
        burn_in_epochs(self.burn_in, 1)

    def start(self, attacks: Sequence[Attack], epochs: int) -> None:
        self._begin = burn_in_epochs(self.burn_in, epochs)

    def __call__(self, p_clean: Tensor | None, p_adv: Tensor, view: View, y: Tensor, epoch: int) -> Tensor:
        if epoch < self._begin:
            return torch.ones(len(y), device=y.device)
        margin = of_label(p_adv, y) - others(p_adv, y)
        z = -self.gamma * (margin - self.beta)
        return len(y) * logsigmoid(z).softmax(0) if self.normalise else self.factor * z.sigmoid()
