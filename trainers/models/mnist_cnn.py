"""The MNIST network of adaptive-budget, Sec. 6.1, which is that of Madry et al. 2018 and robust_union."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.models.catalogue import models
from trainers.models.layers import Normalise, activation_of

SIDE = 7
"""Of the last feature maps, for images of 28 x 28; those of other sizes are averaged into as many."""


@models.register("mnist-cnn")
class MnistCNN(nn.Module):
    """5x5 convolutions of `width` and 2 `width` planes, each under an activation and 2x2 max-pooling, and 32 `width`
    hidden units; 3.27 M parameters at width 32. Any H, W >= 4."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        width: int = 32,
        mean: Sequence[float],
        std: Sequence[float],
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.act = activation_of(activation)
        self.conv1 = nn.Conv2d(in_channels, width, 5, padding=2)
        self.conv2 = nn.Conv2d(width, 2 * width, 5, padding=2)
        self.fc1 = nn.Linear(2 * width * SIDE * SIDE, 32 * width)
        self.fc2 = nn.Linear(32 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, K)."""
        maps = F.adaptive_avg_pool2d(F.max_pool2d(self.features(x)[-1], 2), SIDE)
        logits: Tensor = self.fc2(self.act(self.fc1(maps.flatten(1))))
        return logits

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the two convolutions after the activation, not pooled."""
        first = self.act(self.conv1(self.normalise(x)))
        return first, self.act(self.conv2(F.max_pool2d(first, 2)))
