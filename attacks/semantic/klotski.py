"""Klotski: an 8x8 board of blocks, each of which slides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from attacks import noise
from attacks.base import ATTACKS
from attacks.latent import LatentAttack, Scene
from attacks.warp import blocks, grid

_BLOCKS = 8


@ATTACKS.register("klotski")
@dataclass(frozen=True, kw_only=True)
class Klotski(LatentAttack):
    """Latent: (B, 2, 8, 8) shifts (x, y) in half images, in +-epsilon, started at epsilon * U[0, 1), sign steps.

    Line i is in block i * 8 // H, so that any size will do (the source refuses those that 8 does not divide). Sampled
    bilinearly with zeros outside. Source: adversarial-corruptions@772509b, klotski. Its grid is half a pixel off, so
    that no shift still blurs the image, and published numbers depend on that: pixel_centred=True makes no shift the
    identity.
    """

    name: ClassVar[str] = "klotski"
    family: ClassVar[str] = "semantic"

    pixel_centred: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        return self.epsilon * noise.uniform(seeds, 0, (2, _BLOCKS, _BLOCKS)), ()

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        height, width = x.shape[2:]
        rows, columns = (blocks(size, _BLOCKS, x.device).to(x.dtype) for size in (height, width))
        shift = (rows @ latent @ columns.T).permute(0, 2, 3, 1)
        place = grid(height, width, self.pixel_centred, x.device).to(x.dtype) + shift
        return F.grid_sample(x, place, mode="bilinear", padding_mode="zeros", align_corners=False)

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(-self.epsilon, self.epsilon)
