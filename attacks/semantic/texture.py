"""Texture: the image's edges turn black, every other pixel whiter by at most epsilon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import noise
from attacks.base import ATTACKS
from attacks.canny import canny
from attacks.latent import LatentAttack, Scene


@ATTACKS.register("texture")
@dataclass(frozen=True, kw_only=True)
class Texture(LatentAttack):
    """Latent: (B, 1, H, W) in +-epsilon, started at epsilon * U[0, 1), sign steps; its sign does not matter.

    x' = 0 on the edges and x + |latent| (1 - x) elsewhere. Epsilon bounds what is optimised: most of the change is the
    fixed black. Scene: the rest of the image and its distance to white, 0 on the edges. Source:
    adversarial-corruptions@772509b, texture; its edge detector lost two comparisons (attacks/canny.py), which
    as_published=True leaves out too.
    """

    name: ClassVar[str] = "texture"
    family: ClassVar[str] = "semantic"
    max_epsilon: ClassVar[float] = 1.0

    as_published: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        rest = ~canny(x, self.as_published)
        latent = self.epsilon * noise.uniform(seeds, 0, (1, *x.shape[2:]))
        return latent, (x * rest, (1 - x) * rest)

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        return torch.addcmul(scene[0], latent.abs(), scene[1])

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(-self.epsilon, self.epsilon)
