"""Wood: dark annual rings around the image's centre, whose radii the latent shifts."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import noise
from attacks.base import ATTACKS
from attacks.latent import LatentAttack, Scene

_SIDE, _RINGS, _ROOT, _FLOOR = 16, 5, 8, 1e-6


@ATTACKS.register("wood")
@dataclass(frozen=True, kw_only=True)
class Wood(LatentAttack):
    """Latent: (B, 1, 16, 16) shifts of the radius in +-epsilon, started at 0 or at epsilon * U[0, 1); sign steps.

    x' = x (|sin(5 pi (r + shift))| + 1e-6)^(1/8): r is the distance from the centre in half images, the shift is the
    latent enlarged bilinearly. Source: adversarial-corruptions@772509b, wood. There the 1e-6 is missing, so that in
    the centre, where r is 0, the slope is NaN and the latents around it stay 0 for ever; as_published=True does that.
    """

    name: ClassVar[str] = "wood"
    family: ClassVar[str] = "semantic"

    random_start: bool = False
    as_published: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        shape = (1, _SIDE, _SIDE)
        latent = self.epsilon * noise.uniform(seeds, 0, shape) if self.random_start else x.new_zeros(len(x), *shape)
        return latent, ()

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        height, width = x.shape[2:]
        radius = _radius(height, width, x.device, x.dtype)
        wave = torch.sin(math.pi * _RINGS * (radius + self._enlarge(latent, height, width))).abs()
        return x * (wave if self.as_published else wave + _FLOOR) ** (1 / _ROOT)

    def _enlarge(self, latent: Tensor, height: int, width: int) -> Tensor:
        if self.as_published:  # through matrices one NaN would reach every latent
            return F.interpolate(latent, size=(height, width), mode="bilinear", align_corners=False)
        rows, columns = (_bilinear(size, latent.device, latent.dtype) for size in (height, width))
        return rows @ latent @ columns.T

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(-self.epsilon, self.epsilon)


@functools.lru_cache(maxsize=16)
def _radius(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(H, W): 0 at pixel (H / 2, W / 2), 1 at the middle of the left and upper borders."""
    y, x = (2 * torch.arange(n, dtype=torch.float64) / n - 1 for n in (height, width))
    return torch.hypot(y[:, None], x).to(device, dtype)


@functools.lru_cache(maxsize=16)
def _bilinear(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(size, 16): bilinear resizing from 16, pixels being areas (align_corners=False)."""
    rows = torch.eye(_SIDE, dtype=torch.float64)[None, None]
    matrix = F.interpolate(rows, size=(size, _SIDE), mode="bilinear", align_corners=False)
    return matrix[0, 0].to(device, dtype)
