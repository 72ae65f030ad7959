"""GAIRAT: an image counts the more, the fewer attack steps it withstands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import Attack, View
from attacks.errors import InputError, unknown
from trainers.parts import weightings

FUNCTIONS = ("tanh", "sigmoid", "discrete")


def burn_in_epochs(share: float, epochs: int) -> int:
    """How many whole epochs a share of the training is, so that of two epochs and a share below 1 the last is left."""
    if not 0 <= share <= 1:
        raise InputError(f"expected burn_in between 0 and 1, got {share}")
    return math.floor(share * epochs + 1e-9)


@weightings.register("gairat")
@dataclass
class Gairat:
    """w = (1 + tanh(z)) / 2, z = lam + 5 (1 - 2 kappa / K) (Zhang et al. 2021; vir, Eq. 2), scaled so that the weights
    of the batch, with several workers those of this worker's share, sum to its size (GAIRAT@16813b5). kappa counts the
    iterates from which a step was taken that were still right, K is the attack's number of steps over all restarts.

    `function` "sigmoid": w = 1 / (1 + exp(-z)), our reading of its argument; "discrete": w = (K + 1 - kappa) / (K + 1).
    All weights are 1 in the first `burn_in` share of the epochs, 60 of 120 there.
    Ours: of a view that several attacks made, K is the least of theirs and kappa / K at most 1.
    """

    function: str = "tanh"
    lam: float = -1.0
    burn_in: float = 0.5
    clean: ClassVar[bool] = False
    weighs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise unknown("function of gairat", self.function, FUNCTIONS)
        if not -20 <= self.lam <= 20:  # fp32 rounds all weights to 0 far below
            raise InputError(f"expected lam between -20 and 20, got {self.lam}")
        burn_in_epochs(self.burn_in, 1)

    def start(self, attacks: Sequence[Attack], epochs: int) -> None:
        self._begin = burn_in_epochs(self.burn_in, epochs)
        self._steps = {attack.name: attack.num_steps * attack.num_restarts for attack in attacks}

    def __call__(self, p_clean: Tensor | None, p_adv: Tensor, view: View, y: Tensor, epoch: int) -> Tensor:
        if epoch < self._begin:
            return torch.ones(len(y), device=y.device)
        w = self.raw(view.steps_correct, self._steps.get(view.attack, min(self._steps.values())))
        return w * (len(w) / w.sum())

    def raw(self, kappa: Tensor, steps: int) -> Tensor:
        """The weights before they are scaled, each above 0."""
        share = (kappa / steps).clamp(max=1)
        if self.function == "discrete":
            return 1 - share * steps / (steps + 1)
        z = self.lam + 5 * (1 - 2 * share)
        return (2 * z if self.function == "tanh" else z).sigmoid()  # (1 + tanh(z)) / 2 = sigmoid(2 z)
