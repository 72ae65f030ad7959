"""Fog: a plasma fractal, whose increments are at most epsilon, is laid over the image."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import noise
from attacks.base import ATTACKS
from attacks.latent import LatentAttack, Scene

_DECAY = 3.0
_COLOUR = (0.485, 0.45, 0.406)


@ATTACKS.register("fog")
@dataclass(frozen=True, kw_only=True)
class Fog(LatentAttack):
    """Latent: (B, P * P - 1) increments in +-epsilon, P the next power of 2, started at epsilon * U[0, 1), sign steps.

    Diamond-square on a P x P torus; the map, linear in the latent, is one matrix product: x' = x + |map| (fog - x),
    |map| cut at 1. Source: adversarial-corruptions@772509b, fog. Grey images get grey fog of the mean colour.
    Memory: the matrix, (P * P - 1) * H * W floats: 4 MB for 32x32, 67 MB for 64x64.
    """

    name: ClassVar[str] = "fog"
    family: ClassVar[str] = "semantic"

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        channels, height, width = x.shape[1:]
        if channels not in (1, 3) or not 2 <= max(height, width) <= 64:
            raise self.refuse(f"1 or 3 channels of at most 64x64, got {channels} of {height}x{width}")
        colour = torch.tensor(_COLOUR if channels == 3 else [sum(_COLOUR) / 3], device=x.device)
        latent = self.epsilon * noise.uniform(seeds, 0, (_torus(height, width) ** 2 - 1,))
        return latent, (colour[:, None, None] - x,)

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        height, width = x.shape[2:]
        fog = (latent @ _fractal(height, width, x.device).to(x.dtype)).abs().clamp_max(1)
        return torch.addcmul(x, fog.reshape(-1, 1, height, width), scene[0])

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(-self.epsilon, self.epsilon)


def _torus(height: int, width: int) -> int:
    return 1 << (max(height, width) - 1).bit_length()


@functools.lru_cache(maxsize=4)
def _fractal(height: int, width: int, device: torch.device) -> Tensor:
    """(P * P - 1, H * W): the map of each unit latent, cut from the torus's centre.

    On a torus the map of a latent is that of the first one of its level and kind, rolled.
    """
    size = _torus(height, width)
    rows, columns = ((size - n) // 2 + torch.arange(n) for n in (height, width))
    maps, count = [], 1
    while count < size:
        first = torch.zeros(3, size * size - 1, dtype=torch.float64)
        first[range(3), count**2 - 1 + torch.arange(3) * count**2] = 1
        corner = torch.arange(count)[:, None] * (size // count)
        down, across = (rows - corner) % size, (columns - corner) % size
        rolled = _diamond_square(first, size)[:, down[:, None, :, None], across[None, :, None, :]]
        maps.append(rolled.reshape(3 * count**2, height * width).float())
        count *= 2
    return torch.cat(maps).to(device)


def _diamond_square(latent: Tensor, size: int) -> Tensor:
    """(n, P * P - 1) to (n, P, P). At each level come the squares, the diamonds beside them, the diamonds below."""
    maps = latent.new_zeros(len(latent), size, size)
    step, weight, used = size, 1.0, 0
    while step >= 2:
        half, count = step // 2, (size // step) ** 2
        parts = latent[:, used : used + 3 * count].reshape(len(latent), 3, size // step, size // step) * weight
        corner = maps[:, ::step, ::step]
        beside = corner + corner.roll(-1, 2)
        middle = (beside + beside.roll(-1, 1)) / 4 + parts[:, 0]
        maps[:, half::step, half::step] = middle
        maps[:, ::step, half::step] = (beside + middle + middle.roll(1, 1)) / 4 + parts[:, 1]
        below = corner + corner.roll(-1, 1)
        maps[:, half::step, ::step] = (below + middle + middle.roll(1, 2)) / 4 + parts[:, 2]
        step, weight, used = half, weight / _DECAY, used + 3 * count
    return maps
