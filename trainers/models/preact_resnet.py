"""PreActResNet-18 for small images.

Source: He et al. 2016 (arXiv:1603.05027) as CIFAR code has it: a 3x3 stem, no pooling before the last stage. Parameter
names, convolutions without bias and shortcuts without batch norm are those of robust-finetuning's pretr_L* checkpoints,
which use softplus(beta=1) for the activation.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from trainers.models.catalogue import models
from trainers.models.layers import Normalise, activation_of


class _Block(nn.Module):
    """x + conv(act(bn(conv(act(bn(x)))))); where the shape changes, the shortcut is a 1x1 conv of act(bn(x))."""

    def __init__(self, in_planes: int, planes: int, stride: int, activation: str) -> None:
        super().__init__()
        self.act = activation_of(activation)
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(out)
        residual: Tensor = self.conv2(self.act(self.bn2(self.conv1(out))))
        return residual + kept


@models.register("preact-resnet-18")
class PreActResNet18(nn.Module):
    """Stages of `width` x (1, 2, 4, 8) planes, two blocks each; 11.17 M parameters at width 64. Any H, W >= 8."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        width: int = 64,
        mean: Sequence[float],
        std: Sequence[float],
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.act = activation_of(activation)
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(_Block(width, width, 1, activation), _Block(width, width, 1, activation))
        self.layer2 = _stage(width, 2 * width, activation)
        self.layer3 = _stage(2 * width, 4 * width, activation)
        self.layer4 = _stage(4 * width, 8 * width, activation)
        self.bn = nn.BatchNorm2d(8 * width)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, K)."""
        out = self.conv1(self.normalise(x))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = stage(out)
        logits: Tensor = self.linear(self.act(self.bn(out)).mean((2, 3)))
        return logits

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the four stages after the activation, the last one's after batch norm as well; not pooled."""
        first = self.layer1(self.conv1(self.normalise(x)))
        second = self.layer2(first)
        third = self.layer3(second)
        last = self.bn(self.layer4(third))
        return self.act(first), self.act(second), self.act(third), self.act(last)


def _stage(in_planes: int, planes: int, activation: str) -> nn.Sequential:
    return nn.Sequential(_Block(in_planes, planes, 2, activation), _Block(planes, planes, 1, activation))
