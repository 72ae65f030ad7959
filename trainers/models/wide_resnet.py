"""Wide ResNets for small images: WRN-28-10 and WRN-34-10.

Source: Zagoruyko and Komodakis 2016 (arXiv:1605.07146), without dropout, as TRADES and RobustBench have it; parameter
names are those of their checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from trainers.models.catalogue import models
from trainers.models.layers import Normalise, activation_of

STEM = 16


class _Block(nn.Module):
    """x + conv(act(bn(conv(act(bn(x)))))); where the shape changes, the shortcut is a 1x1 conv of act(bn(x))."""

    def __init__(self, in_planes: int, planes: int, stride: int, activation: str) -> None:
        super().__init__()
        self.act = activation_of(activation)
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.convShortcut: nn.Conv2d | None = None
        if in_planes != planes or stride != 1:
            self.convShortcut = nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(x))
        kept = x if self.convShortcut is None else self.convShortcut(out)
        residual: Tensor = self.conv2(self.act(self.bn2(self.conv1(out))))
        return residual + kept


class _Group(nn.Module):
    def __init__(self, blocks: int, in_planes: int, planes: int, stride: int, activation: str) -> None:
        super().__init__()
        first = _Block(in_planes, planes, stride, activation)
        self.layer = nn.Sequential(first, *(_Block(planes, planes, 1, activation) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class _WideResNet(nn.Module):
    """Three groups of `width` x (1, 2, 4) planes behind a stem of 16. Any H, W >= 4."""

    def __init__(
        self,
        depth: int,
        *,
        num_classes: int,
        in_channels: int,
        width: int,
        mean: Sequence[float],
        std: Sequence[float],
        activation: str,
    ) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.normalise = Normalise(mean, std)
        self.act = activation_of(activation)
        self.conv1 = nn.Conv2d(in_channels, STEM, 3, padding=1, bias=False)
        self.block1 = _Group(blocks, STEM, width, 1, activation)
        self.block2 = _Group(blocks, width, 2 * width, 2, activation)
        self.block3 = _Group(blocks, 2 * width, 4 * width, 2, activation)
        self.bn1 = nn.BatchNorm2d(4 * width)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, K)."""
        out = self.block3(self.block2(self.block1(self.conv1(self.normalise(x)))))
        logits: Tensor = self.fc(self.act(self.bn1(out)).mean((2, 3)))
        return logits

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the three groups after the activation, the last one's after batch norm as well; not pooled."""
        first = self.block1(self.conv1(self.normalise(x)))
        second = self.block2(first)
        last = self.bn1(self.block3(second))
        return self.act(first), self.act(second), self.act(last)


@models.register("wide-resnet-28-10")
def wide_resnet_28(
    *,
    num_classes: int,
    in_channels: int,
    width: int = 160,
    mean: Sequence[float],
    std: Sequence[float],
    activation: str = "relu",
) -> nn.Module:
    """36.5 M parameters at width 160."""
    shape = {"num_classes": num_classes, "in_channels": in_channels, "width": width}
    return _WideResNet(28, **shape, mean=mean, std=std, activation=activation)


@models.register("wide-resnet-34-10")
def wide_resnet_34(
    *,
    num_classes: int,
    in_channels: int,
    width: int = 160,
    mean: Sequence[float],
    std: Sequence[float],
    activation: str = "relu",
) -> nn.Module:
    """46.2 M parameters at width 160."""
    shape = {"num_classes": num_classes, "in_channels": in_channels, "width": width}
    return _WideResNet(34, **shape, mean=mean, std=std, activation=activation)
