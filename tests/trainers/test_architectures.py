"""The networks against the literature: their sizes, and blocks worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainers import models


@pytest.mark.parametrize(
    ("name", "channels", "million"),
    [
        ("preact-resnet-18", 3, 11.17),
        ("resnet-18", 3, 11.17),
        ("wide-resnet-28-10", 3, 36.48),
        ("wide-resnet-34-10", 3, 46.16),
        ("mnist-cnn", 1, 3.27),
    ],
)
def test_the_literatures_sizes_at_the_width_of_the_name(name: str, channels: int, million: float) -> None:
    with torch.device("meta"):
        model = models.create(name, num_classes=10, in_channels=channels)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(million, abs=0.005)


def constant(model: nn.Module, weight: float) -> nn.Module:
    """Convolutions and linear layers of one weight, batch norms that pass everything through."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.fill_(weight)
                if module.bias is not None:
                    module.bias.zero_()
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    return model.eval()


def test_where_the_activation_stands_by_hand() -> None:
    """All weights -1, a 1x1 image of 1 after one channel: a post-activation block gives relu(x + conv(relu(conv(x)))),
    a pre-activation one x + conv(relu(conv(relu(x)))); the stem has made x = -1, which the former's relu takes away."""
    image = torch.ones(1, 1, 1, 1)
    post = constant(models.create("resnet-18", num_classes=2, in_channels=1, width=1), -1.0)
    pre = constant(models.create("wide-resnet-28-10", num_classes=2, in_channels=1, width=16), -1.0)
    assert post.features(image)[0].tolist() == [[[[0.0]]]]  # type: ignore[operator]
    # relu(-1) = 0 in each block: nothing is added, and what goes on is -1; the activation of the features makes it 0
    assert pre.features(image)[0].unique().tolist() == [0.0]  # type: ignore[operator]
    assert pre.block1(pre.conv1(image)).unique().tolist() == [-1.0]  # type: ignore[operator]
    post, pre = constant(post, 1.0), constant(pre, 1.0)
    # post: 1 -> relu(1 + 1) = 2 -> 4. pre, 16 channels: 1 -> 1 + 16 * 16 -> ... in each of 4 blocks
    assert post.features(image)[0].tolist() == [[[[4.0]]]]  # type: ignore[operator]
    assert pre.block1(pre.conv1(image)).unique().tolist() == pytest.approx([257**4])  # type: ignore[operator]


def test_the_mnist_network_by_hand() -> None:
    """All weights 1 on an image of ones, 28 x 28, width 1: inside, a 5x5 convolution of one channel gives 25."""
    model = constant(models.create("mnist-cnn", num_classes=2, in_channels=1, width=1), 1.0)
    first, second = model.features(torch.ones(1, 1, 28, 28))  # type: ignore[operator]
    assert first.shape == (1, 1, 28, 28)
    assert second.shape == (1, 2, 14, 14)
    assert first[0, 0, 14, 14] == 25
    assert second[0, 0, 7, 7] == 25 * 25
    assert model(torch.ones(1, 1, 28, 28)).shape == (1, 2)


def test_the_mnist_network_takes_other_sizes() -> None:
    model = models.create("mnist-cnn", num_classes=2, in_channels=3, width=1)
    assert {tuple(model(torch.rand(2, 3, side, side)).shape) for side in (8, 28, 32)} == {(2, 2)}
