"""JPEG: every DCT coefficient of every 8x8 block in YCbCr moves by at most epsilon (1 = 255 grey levels)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import noise
from attacks.base import ATTACKS
from attacks.filters import unit
from attacks.latent import LatentAttack, Scene

_SIDE = 8
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))  # from Y, Cb, Cr: JFIF


@ATTACKS.register("jpeg")
@dataclass(frozen=True, kw_only=True)
class JPEG(LatentAttack):
    """Latent: (B, blocks, C * 64) coefficients, started at epsilon * U[0, 1), confined to +-epsilon, sign steps.

    Source: adversarial-corruptions@772509b, jpeg. It rounds nothing, so it is linear in the latent: the image's own
    transform cancels, and x' = clamp(x + coefficients @ basis). Grey images have the Y channel only. Sides that 8 does
    not divide (the source refuses them) have cut blocks at the right and bottom.
    """

    name: ClassVar[str] = "jpeg"
    family: ClassVar[str] = "semantic"

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        channels, height, width = x.shape[1:]
        if channels not in (1, 3):
            raise self.refuse(f"1 or 3 channels, got {channels}")
        blocks = math.ceil(height / _SIDE) * math.ceil(width / _SIDE)
        return self.epsilon * noise.uniform(seeds, 0, (blocks, channels * _SIDE**2)), ()

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        batch, channels, height, width = x.shape
        down, across = math.ceil(height / _SIDE), math.ceil(width / _SIDE)
        change = (latent @ _basis(channels, x.device).to(x.dtype)).reshape(batch, down, across, channels, _SIDE, _SIDE)
        change = change.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, down * _SIDE, across * _SIDE)
        return unit(x + change[..., :height, :width])

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(-self.epsilon, self.epsilon)


@functools.lru_cache(maxsize=16)
def _basis(channels: int, device: torch.device) -> Tensor:
    """(C * 64, C * 64): a block's coefficients (colour, frequencies) to its pixels (colour, row, column)."""
    frequency, place = torch.arange(_SIDE, dtype=torch.float64)[:, None], torch.arange(_SIDE, dtype=torch.float64)
    dct = torch.cos(math.pi * frequency * (2 * place + 1) / (2 * _SIDE)) * math.sqrt(2 / _SIDE)
    dct[0] /= math.sqrt(2)
    colour = torch.tensor(_TO_RGB if channels == 3 else ((1.0,),), dtype=torch.float64)
    size = channels * _SIDE**2
    return torch.einsum("dc,iu,jv->cijduv", colour, dct, dct).reshape(size, size).float().to(device)
