"""Pieces of the renders that move pixels: the sampling grid that they share, and blocks."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.lru_cache(maxsize=16)
def grid(height: int, width: int, pixel_centred: bool, device: torch.device) -> Tensor:
    """(H, W, 2): where each pixel samples, as (x, y) for grid_sample without align_corners, [-1, 1] being the image.

    The published grid, 2 j / W - 1, is half a pixel to the left of and above the pixels' centres: sampled on it, an
    image is the mean of each pixel and its three neighbours there. pixel_centred=True samples the pixels themselves.
    """
    x, y = ((2 * torch.arange(n, dtype=torch.float64) + pixel_centred) / n - 1 for n in (width, height))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).float().to(device)


@functools.lru_cache(maxsize=32)
def blocks(size: int, count: int, device: torch.device) -> Tensor:
    """(size, count) of 0 and 1: line i belongs to block i * count // size, also where count does not divide size."""
    block = torch.arange(size) * count // size
    return (block[:, None] == torch.arange(count)).float().to(device)
