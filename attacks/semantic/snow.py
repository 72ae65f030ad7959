"""Snow: five layers of flakes, short diagonal strokes whose brightness is the latent, over a bleached image."""

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
from attacks.filters import unit
from attacks.geometry import project_l2
from attacks.latent import LatentAttack, Scene

_LAYERS, _DENSITY, _THIN = 5, 0.01, 0.6
_THIN_SIDE = math.sqrt(2) / 4  # what a line of width 1 leaves in the pixels beside the diagonal
_LUMA = (0.2126, 0.7152, 0.0722)


@ATTACKS.register("snow")
@dataclass(frozen=True, kw_only=True)
class Snow(LatentAttack):
    """Latent: (B, 5, H, W) flakes, 1 % of them live, of l2 norm at most epsilon; sign steps.

    Started at exp(-U[0, 1) / 5) projected, then masked: as published, so that the norm at the start is a tenth of
    epsilon, inside the budget. The fourth power of the latent is spread by a stroke of 3x3 pixels: thin (probability
    0.6) or thick by image and layer, falling to the right or to the left by image. The image is bleached:
    0.85 x + 0.15 max(x, 1.5 luminance + 0.5); a grey image is its own luminance.
    Source: adversarial-corruptions@772509b, snow, with its flakes of 3 pixels and its blur of 1 pixel, which is none.
    """

    name: ClassVar[str] = "snow"
    family: ClassVar[str] = "semantic"

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        channels, height, width = x.shape[1:]
        if channels not in (1, 3):
            raise self.refuse(f"1 or 3 channels, got {channels}")
        chance, size = noise.uniform(seeds, 0, (2, _LAYERS, height, width)).unbind(1)
        mask = (chance < _DENSITY).to(x.dtype)
        latent = project_l2(torch.exp(-size / 5), self.epsilon) * mask
        return latent, (mask, _strokes(noise.uniform(seeds, 1, (_LAYERS + 1,))), _bleach(x))

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        mask, strokes, bleached = scene
        flakes = (latent * mask).square().square()
        lines = (strokes @ flakes.flatten(2)).reshape(-1, 3, *x.shape[2:])
        return unit(bleached + F.conv2d(lines, _kernel(x.device).to(x.dtype), padding=1))

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return project_l2(latent, self.epsilon)


def _bleach(x: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA if x.shape[1] == 3 else (1.0,), device=x.device)[:, None, None]
    light = 1.5 * (x * weights).sum(1, keepdim=True) + 0.5
    return 0.85 * x + 0.15 * torch.maximum(x, light)


def _strokes(draws: Tensor) -> Tensor:
    """(B, 6) uniform to (B, 3, 5): how much each layer gives to the diagonal, to its mirror image, to the sides."""
    sides = torch.where(draws[:, :_LAYERS] < _THIN, _THIN_SIDE, 1.0)
    mirrored = (draws[:, _LAYERS:] < 0.5).float().expand_as(sides)
    return torch.stack([1 - mirrored, mirrored, sides], 1)


@functools.lru_cache(maxsize=8)
def _kernel(device: torch.device) -> Tensor:
    """(1, 3, 3, 3): the falling diagonal, the rising one, and the four pixels beside either."""
    falling, centre = torch.eye(3), torch.zeros(3, 3)
    centre[1, 1] = 1
    cross = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])
    return torch.stack([falling, falling.flip(1), cross - centre])[None].to(device)
