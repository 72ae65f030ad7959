"""Batches of one pixel and of the toys, and one-step attacks, for what is worked by hand about inners."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trainer_toys import toy_images

from attacks import Attack
from attacks.lp import PGDL1, PGDL2, PGDLinf
from trainers.parts import Batch


def pixel_batch(*pixels: float, y: int | list[int] = 0) -> Batch:
    """Images of one pixel each."""
    labels = torch.tensor(y if isinstance(y, list) else [y] * len(pixels))
    return Batch(torch.arange(len(pixels)), slice(None), torch.tensor(pixels).view(-1, 1, 1, 1), labels, 0, 0, False)


def toy_batch(n: int = 4) -> tuple[Batch, Tensor]:
    images = toy_images(n)
    return Batch(torch.arange(n), slice(0, n), images.images / 255, images.labels, 0, 0, False), torch.arange(n) + 7


def seeds_of(batch: Batch) -> Tensor:
    return torch.arange(len(batch.y)) + 7


def pixel_attacks(**settings: Any) -> list[Attack]:
    """One step to the edge of the ball: 0.1 up under linf, 0.2 under l2, 0.6 under l1."""
    return [
        PGDLinf(epsilon=0.1, num_steps=1, step_size=10.0, **settings),
        PGDL2(epsilon=0.2, num_steps=1, step_size=10.0, **settings),
        PGDL1(epsilon=0.6, num_steps=1, step_size=1000.0, **settings),
    ]
