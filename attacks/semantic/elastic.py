"""Elastic: a smooth flow moves the pixels."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import noise
from attacks.base import ATTACKS
from attacks.filters import bicubic
from attacks.geometry import project_l2
from attacks.latent import LatentAttack, Scene


@ATTACKS.register("elastic")
@dataclass(frozen=True, kw_only=True)
class Elastic(LatentAttack):
    """Latent: (B, 2, H/2, W/2) displacements (x, y) in units of half the image, l2 norm at most epsilon; sign steps.

    Started at U(-1, 1) projected, so on the sphere. Enlarged bicubically, added to a grid, sampled bilinearly with
    zeros outside. Source: adversarial-corruptions@772509b, elastic. Its grid runs from -1 to 1 where pixel centres
    run to 1 - 1/W, so no displacement magnifies a little; pixel_centred=True makes that the identity.
    """

    name: ClassVar[str] = "elastic"
    family: ClassVar[str] = "semantic"

    pixel_centred: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            raise self.refuse(f"even height and width, got {height}x{width}")
        latent = 2 * noise.uniform(seeds, 0, (2, height // 2, width // 2)) - 1
        return project_l2(latent, self.epsilon), ()

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        height, width = x.shape[2:]
        rows, columns = (bicubic(size // 2, x.device).to(x.dtype) for size in (height, width))
        flow = rows @ latent @ columns.T
        grid = _grid(height, width, self.pixel_centred, x.device).to(x.dtype) + flow.permute(0, 2, 3, 1)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return project_l2(latent, self.epsilon)


@functools.lru_cache(maxsize=16)
def _grid(height: int, width: int, pixel_centred: bool, device: torch.device) -> Tensor:
    """(H, W, 2): where each pixel samples, as (x, y)."""
    x, y = (torch.linspace(-1, 1, n, dtype=torch.float64) * (1 - pixel_centred / n) for n in (width, height))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).float().to(device)
