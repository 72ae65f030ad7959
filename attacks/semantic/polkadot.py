"""Polkadot: coloured dots, larger and denser the stronger they are, softly laid over the image."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import noise
from attacks.base import ATTACKS
from attacks.geometry import project_l2
from attacks.latent import LatentAttack, Scene

_DOTS = 20
_SHARPNESS = 5.0  # of the softmax
_POWER = 5
_IMAGE = 0.5  # the image's own score


@ATTACKS.register("polkadot")
@dataclass(frozen=True, kw_only=True)
class Polkadot(LatentAttack):
    """Latent: (B, 20) strengths >= 0 of the dots, l2 norm at most epsilon; l2-normalised steps.

    x' = w_0 x + sum_k w_k colour_k with w the softmax of 5 [0.5, q_k latent_k]; q_k = (1 - distance to dot k)^5, in
    units of the image's side, negative beyond 1. Scene: the scores per unit of strength, (B, 21, H * W), and uniform
    colours, (B, 20, C). Epsilon bounds the dots, not the image: most of the change is there at the start.

    Source: adversarial-corruptions@772509b, polkadot. It starts at U[0, 1) whatever epsilon is, so often outside the
    budget: as_published=True does too, the default projects that. Its dots have the same places in all images of a
    batch; here they are drawn per image, also as_published, as an image's draws may not depend on its batch.
    """

    name: ClassVar[str] = "polkadot"
    family: ClassVar[str] = "semantic"
    direction = "l2"

    as_published: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        draws = noise.uniform(seeds, 0, (_DOTS, 3 + x.shape[1]))
        latent, scene = draws[:, :, 0], (_scores(draws[:, :, 1:3], *x.shape[2:]), draws[:, :, 3:])
        return latent if self.as_published else self.project(latent, scene), scene

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        scores, colours = scene
        weights = (scores * F.pad(latent, (1, 0), value=1.0)[:, :, None]).softmax(1)
        image = x.flatten(2) * weights[:, :1]
        return torch.baddbmm(image, colours.mT, weights[:, 1:]).reshape(x.shape)

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return project_l2(latent, self.epsilon).abs()


def _scores(centres: Tensor, height: int, width: int) -> Tensor:
    """(B, 20, 2) centres as (row, column) in [0, 1) to (B, 21, H * W), the first plane being the image's."""
    place = _places(height, width, centres.device)
    distance = torch.hypot(place[0] - centres[:, :, :1], place[1] - centres[:, :, 1:])
    return F.pad(_SHARPNESS * (1 - distance) ** _POWER, (0, 0, 1, 0), value=_SHARPNESS * _IMAGE)


@functools.lru_cache(maxsize=16)
def _places(height: int, width: int, device: torch.device) -> Tensor:
    """(2, H * W): row / H and column / W of each pixel."""
    rows, columns = (torch.arange(size) / size for size in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1).to(device)
