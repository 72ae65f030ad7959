"""Class-stratified choices that depend on nothing but the images' ids, their labels and a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.noise import derive


def stratified(ids: Tensor, labels: Tensor, size: int, *, seed: int, purpose: int) -> Tensor:
    """`size` of the ids (N,), every class in its share, ordered as in `ids`.

    Within a class the ids with the smallest hash of (id, purpose, seed) are taken, so that a larger choice holds a
    smaller one but for rounding. `purpose` numbers independent uses of one seed. 0 <= size <= N.
    """
    order = torch.argsort(derive(ids, purpose, seed), stable=True)
    classes = labels[order]
    chosen = [order[classes == label][:quota] for label, quota in enumerate(_quotas(labels, size))]
    return ids[torch.cat(chosen).sort().values]


def _quotas(labels: Tensor, size: int) -> list[int]:
    """How many of each class: the shares rounded down, the rest to the largest remainders (the first on a tie)."""
    counts = torch.bincount(labels).tolist()
    shares = [divmod(size * count, len(labels)) for count in counts]
    quotas = [whole for whole, _ in shares]
    by_remainder = sorted(range(len(shares)), key=lambda label: -shares[label][1])
    for label in by_remainder[: size - sum(quotas)]:
        quotas[label] += 1
    return quotas
