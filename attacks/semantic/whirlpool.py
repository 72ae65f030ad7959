"""Whirlpool: the image is stirred around eight centres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import noise
from attacks.base import ATTACKS
from attacks.geometry import l2_norm, per_image, project_l2
from attacks.latent import LatentAttack, Scene
from attacks.warp import grid

_CENTRES, _LEAST = 8, 0.5
_REACH = 0.5 / 5 * math.log(2)  # in half images: 1.1 pixels of 32


@ATTACKS.register("whirlpool")
@dataclass(frozen=True, kw_only=True)
class Whirlpool(LatentAttack):
    """Latent: (B, 8) strengths, in radians, of l2 norm at most epsilon; l2-normalised steps.

    Started at epsilon * s * u / |u| with u uniform and s ~ U[0, 1). At distance r from a centre, drawn uniformly in
    the image, a pixel samples where a turn by (|strength| + 0.5) exp(-r / 0.0693) takes it: bilinearly, with zeros
    outside. Of the eight displacements it takes the longest.
    Source: adversarial-corruptions@772509b, whirlpool. There s is one number for the whole batch, and x and y each
    take the greatest displacement by sign, so that those to the left and upwards are lost: as_published=True does
    that. Its grid is half a pixel off and published numbers depend on that: pixel_centred=True puts it right.
    """

    name: ClassVar[str] = "whirlpool"
    family: ClassVar[str] = "semantic"
    direction = "l2"

    as_published: bool = False
    pixel_centred: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        """Scene: the pixels' places as seen from each centre, (B, 8, 2, H, W); r and exp(-r / 0.0693) with 1 for 2."""
        drawn = noise.uniform(seeds, 0, (_CENTRES, 3))
        latent, centre = drawn[..., 0], 2 * drawn[..., 1:, None, None] - 1
        offset = grid(*x.shape[2:], self.pixel_centred, x.device).permute(2, 0, 1) - centre
        distance: Tensor = torch.linalg.vector_norm(offset, dim=2, keepdim=True)
        scale = self.epsilon * noise.uniform(seeds, 1, ()) / l2_norm(latent).clamp_min(1e-12)
        return latent * per_image(scale, latent), (offset, distance, torch.exp(-distance / _REACH))

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        offset, distance, reach = scene
        turn = (latent.abs() + _LEAST)[:, :, None, None, None] * reach
        if not self.as_published:
            length = distance * (turn.detach() / 2).sin().abs()
            longest = length.max(1, keepdim=True).indices  # argmax takes six times as long on a CPU
            turn, offset = turn.gather(1, longest), offset.gather(1, longest.expand(-1, -1, 2, -1, -1))
        normal = torch.stack([-offset[:, :, 1], offset[:, :, 0]], 2)
        moves = torch.addcmul(normal * turn.sin(), offset, turn.cos() - 1)
        move = moves.amax(1) if self.as_published else moves.squeeze(1)
        place = grid(*x.shape[2:], self.pixel_centred, x.device).to(x.dtype) + move.permute(0, 2, 3, 1)
        return F.grid_sample(x, place, mode="bilinear", padding_mode="zeros", align_corners=False)

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return project_l2(latent, self.epsilon)
