"""Gabor: sparse impulses, each drawn as a patch of waves, are added to the image."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import noise
from attacks.base import ATTACKS
from attacks.filters import unit
from attacks.latent import LatentAttack, Scene

_TAPS, _SIGMA, _LIVE = 23, 3.0 + 1e-3, 0.1
_WEIGHTS = (1.0, 1 / 3, 1 / 3)  # of the waves at theta, theta + pi / 3 and theta + 2 pi / 3


@ATTACKS.register("gabor")
@dataclass(frozen=True, kw_only=True)
class Gabor(LatentAttack):
    """Latent: (B, C, H, W) impulses in +-epsilon, 10 % of them live, those started at epsilon * s, s ~ U[0, 1).

    Sign steps. x' = clamp(x + impulses * kernel), with zeros outside; the kernel, 23x23, is three plane waves of lambda
    cycles, lambda ~ U[3, 5.75), the first at theta ~ U[0, pi), under a wide Gaussian. A wave is a sum of products of
    sines in x and in y, so the convolution is six pairs of matrix products (2 ms on one CPU core for 32 images of
    3x32x32 with the backward, where a grouped convolution takes 38).
    Source: adversarial-corruptions@772509b, gabor. There theta, lambda and s are drawn once for the whole batch, here
    per image; there the live 10 % are counted over the whole batch, here in each image; and there theta and lambda are
    drawn again for every render, so that the result is not what was optimised: as_published=True does that.
    """

    name: ClassVar[str] = "gabor"
    family: ClassVar[str] = "semantic"

    as_published: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        """Scene: live entries, the waves along rows and columns, and the draws of theta and lambda, (B, renders, 2)."""
        channels, height, width = x.shape[1:]
        ranks = noise.uniform(seeds, 0, (channels * height * width,))
        chosen = ranks.topk(round(_LIVE * ranks.shape[1])).indices
        live = torch.zeros_like(ranks).scatter_(1, chosen, 1).reshape(x.shape)
        draws = noise.uniform(seeds, 1, (2 + self.num_steps if self.as_published else 2, 2))
        scale, waves = draws[:, 0, 0], draws[:, 1:]
        return self.epsilon * scale[:, None, None, None] * live, (live, *_sines(waves[:, 0], height, width), waves)

    def ascend(self, latent: Tensor, grad: Tensor, x: Tensor, scene: Scene, step: int) -> Tensor:
        """As published, the scene's waves are overwritten by those of the next render."""
        if self.as_published:
            for part, redrawn in zip(scene[1:3], _sines(scene[3][:, step + 1], *x.shape[2:]), strict=True):
                part.copy_(redrawn)
        return super().ascend(latent, grad, x, scene, step)

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        batch, channels, height, width = x.shape
        live, rows, columns, _ = scene
        across = (latent * live).reshape(batch, channels * height, width) @ columns
        across = across.reshape(batch, channels, height, -1, width).permute(0, 3, 2, 1, 4)
        waves = rows @ across.reshape(batch, -1, channels * width)
        return unit(x + waves.reshape(batch, height, channels, width).transpose(1, 2))

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(-self.epsilon, self.epsilon)


def _sines(draws: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Uniform (B, 2) to (B, H, 6 H) and (B, W, 6 W), by cos(a x + b y) = cos(a x) cos(b y) - sin(a x) sin(b y)."""
    weights, sides = _sides(draws.device)
    angle = math.pi * (draws[:, :1] + sides)
    turns = 2 * math.pi * (3 + (_TAPS / 4 - 3) * draws[:, 1:])
    rows = _sine(turns * angle.sin(), height) * weights
    columns = _sine(turns * angle.cos(), width)
    return rows.permute(0, 3, 1, 2).flatten(2), columns.permute(0, 2, 1, 3).flatten(2)


def _sine(rate: Tensor, size: int) -> Tensor:
    """Three rates, (B, 3), to (B, 6, from, to): cosines, then sines, of the offset between two places."""
    offset, envelope = _window(size, rate.device)
    phase = rate[..., None, None] * offset
    return torch.cat([phase.cos(), phase.sin()], 1) * envelope


@functools.lru_cache(maxsize=16)
def _window(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(from, to) each: the offset, 1 being the kernel's extent, and the Gaussian, 0 outside the kernel."""
    place = torch.arange(size, dtype=torch.float64)
    offset = (place[:, None] - place) / (_TAPS - 1)
    envelope = torch.exp(-0.5 * (offset / _SIGMA) ** 2) * (offset.abs() <= 0.5)
    return offset.float().to(device), envelope.float().to(device)


@functools.lru_cache(maxsize=8)
def _sides(device: torch.device) -> tuple[Tensor, Tensor]:
    """(6, 1, 1) the weights of cosines and sines, and (3,) the directions in half turns from theta."""
    weights = torch.tensor([*_WEIGHTS, *(-weight for weight in _WEIGHTS)], device=device)
    return weights[:, None, None], torch.arange(3, device=device) / 3
