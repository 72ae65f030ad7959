"""What an attack maximises: (logits (B, K), labels (B,)) -> (B,), each image by itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The largest other logit minus the label's: above 0 where the image is misclassified (Carlini and Wagner 2017)."""
    label = y[:, None]
    others = logits.scatter(1, label, -torch.inf)
    return others.amax(1) - logits.gather(1, label)[:, 0]
