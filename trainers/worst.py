"""The images that an attack broke worst: those of the highest loss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from trainers.data import ImageSet

KEPT = 3


@dataclass(frozen=True, eq=False)
class Broken:
    """An image that was right when clean: its id and class, the class and the cross entropy of the attacked image, and
    both images, uint8 (C, H, W) on the CPU. What decided was the attacked image before it was rounded to 8 bits."""

    image: int
    label: int
    predicted: int
    loss: float
    clean: Tensor
    attacked: Tensor


def worst(found: Iterable[Broken]) -> tuple[Broken, ...]:
    """The KEPT of the highest loss, that first; the lowest id among equals. A loss that is no number is the highest."""
    return tuple(sorted(found, key=lambda one: (-_order(one.loss), one.image))[:KEPT])


def of_batch(
    images: ImageSet, rows: Tensor, x: Tensor, broken: Tensor, loss: Tensor, predicted: Tensor
) -> tuple[Broken, ...]:
    """The worst of a batch: what its images became (B, C, H, W), which of them are broken (B,), their losses and the
    classes they were given."""
    by_id = images.ids[rows].argsort()
    losses = loss.nan_to_num(nan=math.inf).masked_fill(~broken, -math.inf)
    order = by_id[losses[by_id].argsort(descending=True, stable=True)][:KEPT].tolist()
    return tuple(_broken(images, int(rows[i]), x[i], loss[i], predicted[i]) for i in order if bool(broken[i]))


def _broken(images: ImageSet, row: int, x: Tensor, loss: Tensor, predicted: Tensor) -> Broken:
    about = int(images.ids[row]), int(images.labels[row]), int(predicted), float(loss)
    return Broken(*about, images.images[row].cpu(), (x * 255).round().byte().cpu())


def _order(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
