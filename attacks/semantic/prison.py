"""Prison: grey bars before the image, each value of them lighter by at most epsilon."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import noise
from attacks.base import ATTACKS
from attacks.latent import LatentAttack, Scene

_GREY = 0.5


@ATTACKS.register("prison")
@dataclass(frozen=True, kw_only=True)
class Prison(LatentAttack):
    """Latent: (B, C, H, W) in [0, epsilon], live on the bars, started at 0, sign steps.

    x' = 0.5 + latent on the bars, x elsewhere. Bars are a pixel wide, W // 8 apart, the first in column (W // 8) // 2,
    the last before W - 2: 7 at a width of 32, 9 at 28, 8 at 64. Most of the change is the fixed grey. random_start:
    begin at epsilon * U[0, 1) instead, so that restarts differ. Source: adversarial-corruptions@772509b, prison.
    """

    name: ClassVar[str] = "prison"
    family: ClassVar[str] = "semantic"
    max_epsilon: ClassVar[float] = 0.5

    random_start: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        if x.shape[3] < 8:
            raise self.refuse(f"images at least 8 wide, got {x.shape[2]}x{x.shape[3]}")
        latent = torch.zeros_like(x)
        if self.random_start:
            latent = self.epsilon * noise.uniform(seeds, 0, tuple(x.shape[1:]))
        return latent, ()

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        return torch.where(_bars(x.shape[3], x.device), _GREY + latent, x)

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(0, self.epsilon)


@functools.lru_cache(maxsize=16)
def _bars(width: int, device: torch.device) -> Tensor:
    """(W,) bool: the columns that are bars."""
    spacing = width // 8
    bars = torch.zeros(width, dtype=torch.bool)
    bars[spacing // 2 : width - 2 : spacing] = True
    return bars.to(device)
