"""Blur: each pixel is mixed with a strongly blurred image, by a smooth mask of at most epsilon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import noise
from attacks.base import ATTACKS
from attacks.filters import gaussian
from attacks.latent import LatentAttack, Scene

_IMAGE_TAPS, _IMAGE_SIGMA = 17, 25.0
_MASK_TAPS, _MASK_SIGMA = 9, 18.0


@ATTACKS.register("blur")
@dataclass(frozen=True, kw_only=True)
class Blur(LatentAttack):
    """Latent: (B, 1, H, W) in [0, epsilon], started at epsilon * U[0, 1), sign steps; the mask is its Gaussian blur.

    Source: adversarial-corruptions@772509b, blur. x' = m z + (1 - m) x with z the blurred image, made once.
    """

    name: ClassVar[str] = "blur"
    family: ClassVar[str] = "semantic"
    max_epsilon: ClassVar[float] = 1.0

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        if min(x.shape[2:]) <= _IMAGE_TAPS // 2:
            raise self.refuse(f"images of at least 9x9, got {x.shape[2]}x{x.shape[3]}")
        latent = self.epsilon * noise.uniform(seeds, 0, (1, *x.shape[2:]))
        return latent, (_blur(x, _IMAGE_TAPS, _IMAGE_SIGMA) - x,)

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        return torch.addcmul(x, _blur(latent, _MASK_TAPS, _MASK_SIGMA), scene[0])

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(0, self.epsilon)


def _blur(image: Tensor, taps: int, sigma: float) -> Tensor:
    height, width = image.shape[2:]
    rows, columns = (gaussian(size, taps, sigma, image.device).to(image.dtype) for size in (height, width))
    return rows @ image @ columns.T
