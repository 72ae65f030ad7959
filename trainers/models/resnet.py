"""ResNet-18 for small images.

Source: He et al. 2016 (arXiv:1512.03385) as the adversarial literature has it on CIFAR: a 3x3 stem, no pooling before
the last stage, shortcuts with batch norm. Parameter names are those of its checkpoints (MART, GAIRAT, RobustBench).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from trainers.models.catalogue import models
from trainers.models.layers import Normalise, activation_of


class _Block(nn.Module):
    """act(bn(conv(act(bn(conv(x))))) + x); where the shape changes, the shortcut is bn of a 1x1 conv."""

    def __init__(self, in_planes: int, planes: int, stride: int, activation: str) -> None:
        super().__init__()
        self.act = activation_of(activation)
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            conv = nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return self.act(out + self.shortcut(x))


@models.register("resnet-18")
class ResNet18(nn.Module):
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
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1, activation)
        self.layer2 = _stage(width, 2 * width, 2, activation)
        self.layer3 = _stage(2 * width, 4 * width, 2, activation)
        self.layer4 = _stage(4 * width, 8 * width, 2, activation)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, K)."""
        logits: Tensor = self.linear(self.features(x)[-1].mean((2, 3)))
        return logits

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the four stages, not pooled."""
        out = self.act(self.bn1(self.conv1(self.normalise(x))))
        found = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = stage(out)
            found.append(out)
        return tuple(found)


def _stage(in_planes: int, planes: int, stride: int, activation: str) -> nn.Sequential:
    return nn.Sequential(_Block(in_planes, planes, stride, activation), _Block(planes, planes, 1, activation))
