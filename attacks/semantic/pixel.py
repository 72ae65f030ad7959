"""Pixel: blocks of 4x4 pixels are drawn towards the colour of their top-left pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import noise
from attacks.base import ATTACKS
from attacks.geometry import l2_norm, per_image, project_l2
from attacks.latent import LatentAttack, Scene

_SIDE = 4


@ATTACKS.register("pixel")
@dataclass(frozen=True, kw_only=True)
class Pixel(LatentAttack):
    """Latent: (B, C, H/4, W/4) strengths in [0, 1] of l2 norm at most epsilon; l2-normalised steps.

    Started at epsilon * s * u / |u| with u uniform and s ~ U[0, 1), clamped to 1. x' = x + strength (top-left - x).
    Source: adversarial-corruptions@772509b, pixel; there s is one number for the whole batch, and sides that 4 does
    not divide are resized and cropped, where here the blocks at the right and bottom are cut.
    """

    name: ClassVar[str] = "pixel"
    family: ClassVar[str] = "semantic"
    direction = "l2"

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        channels, height, width = x.shape[1:]
        latent = noise.uniform(seeds, 0, (channels, math.ceil(height / _SIDE), math.ceil(width / _SIDE)))
        scale = self.epsilon * noise.uniform(seeds, 1, ()) / l2_norm(latent).clamp_min(1e-12)
        corner = _enlarge(x[..., ::_SIDE, ::_SIDE], height, width)
        return (latent * per_image(scale, latent)).clamp(0, 1), (corner - x,)

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        return torch.addcmul(x, _enlarge(latent, *x.shape[2:]), scene[0])

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return project_l2(latent, self.epsilon).clamp(0, 1)


def _enlarge(blocks: Tensor, height: int, width: int) -> Tensor:
    """(B, C, h, w) to (B, C, height, width): every entry fills its block."""
    batch, channels, down, across = blocks.shape
    wide = blocks[:, :, :, None, :, None].expand(-1, -1, -1, _SIDE, -1, _SIDE)
    return wide.reshape(batch, channels, down * _SIDE, across * _SIDE)[..., :height, :width]
