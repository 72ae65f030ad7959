"""Random crop and flip of a whole batch on its device, drawn from the images' seeds."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.noise import uniform


def augment(images: Tensor, seeds: Tensor, *, crop_padding: int = 4, flip: bool = True) -> Tensor:
    """uint8 (B, C, H, W) -> float32 in [0, 1]: a crop of the zero-padded image, mirrored half of the time if `flip`.

    Shifts are uniform in -crop_padding..crop_padding, each axis on its own. An image's draws depend on its seed alone
    (int64 (B,)), so they are the same in any batch and on any worker. One gather; no host synchronisation.
    """
    batch, channels, height, width = images.shape
    u = uniform(seeds, 0, (3,))
    shift = (u[:, :2] * (2 * crop_padding + 1)).long() - crop_padding
    rows = torch.arange(height, device=images.device) + shift[:, :1]
    columns = torch.arange(width, device=images.device) + shift[:, 1:]
    if flip:
        columns = torch.where(u[:, 2:] < 0.5, columns.flip(1), columns)
    inside = _inside(rows, height)[:, :, None] & _inside(columns, width)[:, None, :]
    places = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    flat = images.reshape(batch, channels, -1)
    moved = flat.gather(2, places.reshape(batch, 1, -1).expand(-1, channels, -1)).reshape(images.shape)
    return moved * inside[:, None] / 255


def _inside(places: Tensor, length: int) -> Tensor:
    return (places >= 0) & (places < length)
