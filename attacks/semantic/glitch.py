"""Glitch: horizontal bands of each colour channel slide sideways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import noise
from attacks.base import ATTACKS
from attacks.latent import LatentAttack, Scene
from attacks.warp import blocks, grid

_BANDS = 16


@ATTACKS.register("glitch")
@dataclass(frozen=True, kw_only=True)
class Glitch(LatentAttack):
    """Latent: (B, C, 16) shifts in half images, in +-epsilon, started at epsilon * U[0, 1), sign steps.

    Row i is in band i * 16 // H, so that any height will do (the source refuses those that 16 does not divide).
    Sampled bilinearly, the border reflected. Source: adversarial-corruptions@772509b, glitch, without its grey, which
    its CIFAR-10 configuration turns off. Its grid is half a pixel off, so that no shift still blurs the image, and
    published numbers depend on that: pixel_centred=True makes no shift the identity.
    """

    name: ClassVar[str] = "glitch"
    family: ClassVar[str] = "semantic"

    pixel_centred: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        return self.epsilon * noise.uniform(seeds, 0, (x.shape[1], _BANDS)), ()

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        height, width = x.shape[2:]
        shift = latent.flatten(0, 1) @ blocks(height, _BANDS, x.device).to(x.dtype).T
        across, down = grid(height, width, self.pixel_centred, x.device).to(x.dtype).unbind(-1)
        across = across + shift[:, :, None]
        place = torch.stack([across, down.expand_as(across)], -1)
        rows = x.flatten(0, 1)[:, None]
        moved = F.grid_sample(rows, place, mode="bilinear", padding_mode="reflection", align_corners=False)
        return moved.reshape(x.shape)

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(-self.epsilon, self.epsilon)
