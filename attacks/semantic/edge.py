"""Edge: the image's edges turn grey, each value of them lighter or darker by at most epsilon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import noise
from attacks.base import ATTACKS
from attacks.canny import canny
from attacks.filters import unit
from attacks.latent import LatentAttack, Scene

_GREY = 0.5


@ATTACKS.register("edge")
@dataclass(frozen=True, kw_only=True)
class Edge(LatentAttack):
    """Latent: (B, C, H, W) in +-epsilon, live on the edges (a fifth of CIFAR-10); sign steps.

    x' = 0.5 + latent on the edges, x elsewhere. Scene: the edges, found once. Epsilon bounds what is optimised: most of
    the change is the fixed grey. Source: adversarial-corruptions@772509b, edge. It starts at U[0, 1) whatever epsilon
    is, so outside the budget, and its edge detector lost two comparisons (attacks/canny.py): as_published=True does
    both, but shows the network 0.5 + latent cut at 1. The default starts where the source's first projection leads:
    min(U[0, 1), epsilon), so nearly everywhere at +epsilon; and compares everything.
    """

    name: ClassVar[str] = "edge"
    family: ClassVar[str] = "semantic"
    max_epsilon: ClassVar[float] = 0.5

    as_published: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        edges = canny(x, self.as_published)
        latent = noise.uniform(seeds, 0, tuple(x.shape[1:])) * edges
        scene = (edges,)
        return latent if self.as_published else self.project(latent, scene), scene

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        return torch.where(scene[0], unit(_GREY + latent), x)

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(-self.epsilon, self.epsilon)
