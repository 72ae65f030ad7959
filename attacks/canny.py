"""The edge mask that the edge and texture attacks share. Shifts and comparisons only: an image's mask is its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_THRESHOLD = 0.1
_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1))  # (down, right): E, NE, N, NW; opposite them W, SW, S, SE
_HALF_LOST = (2, 3)


def canny(x: Tensor, as_published: bool = False) -> Tensor:
    """(B, C, H, W) to (B, 1, H, W) bool: where the gradient of the blurred image peaks along its direction.

    Kept are peaks above 0.1 of the image's highest: no hysteresis. A gradient is compared with both neighbours along
    the axis round(8 atan(gy / gx) / pi) mod 4 of E, NE, N, NW. The image is surrounded by 0, so that the left and right
    borders of bright images are edges; an image without gradient (a black one) has none. About 45 kernels.

    Source: adversarial-corruptions@772509b, whose axis is kept, although it is twice the gradient's angle. The source's
    neighbour kernels come from rotated images and those of S and SE have lost their -1, so that peaks along the axes N
    and NW are compared on one side only: as_published=True does so too, the default compares on both.
    """
    down, right = _gradient(_blur(x.mean(1, keepdim=True)))
    size = torch.hypot(down, right)
    axis = (torch.atan(down / right) * (8 / math.pi)).round().remainder(4)
    around = F.pad(size, (1, 1, 1, 1))
    peaks = size
    for index, (i, j) in enumerate(_NEIGHBOURS):
        rival = _shifted(around, i, j)
        if not (as_published and index in _HALF_LOST):
            rival = torch.maximum(rival, _shifted(around, -i, -j))
        peaks = torch.where((axis == index) & (size <= rival), 0, peaks)
    return peaks / peaks.amax((1, 2, 3), keepdim=True) > _THRESHOLD  # False for 0 / 0


def _blur(image: Tensor) -> Tensor:
    """By a 3x3 Gaussian of sigma 1."""
    side = math.exp(-0.5)
    weight = 1 / (1 + 2 * side)
    up_down = F.pad(image, (1, 1, 1, 1))
    wide = torch.add(up_down[..., 1:-1, :], up_down[..., 2:, :] + up_down[..., :-2, :], alpha=side)
    return torch.add(wide[..., 1:-1], wide[..., 2:] + wide[..., :-2], alpha=side) * weight**2


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Downwards and to the right: a difference over two pixels times weights 0.5, 1, 0.5 across it."""
    around = F.pad(image, (1, 1, 1, 1))
    wide = torch.add(around[..., 1:-1], around[..., 2:] + around[..., :-2], alpha=0.5)
    tall = torch.add(around[..., 1:-1, :], around[..., 2:, :] + around[..., :-2, :], alpha=0.5)
    return wide[..., 2:, :] - wide[..., :-2, :], tall[..., 2:] - tall[..., :-2]


def _shifted(around: Tensor, i: int, j: int) -> Tensor:
    """The neighbour i down and j to the right, of a map padded by 1."""
    height, width = around.shape[2] - 2, around.shape[3] - 2
    return around[..., 1 + i : 1 + i + height, 1 + j : 1 + j + width]
