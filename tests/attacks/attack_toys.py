"""Toys for the attacks: a small network with everything that an attack must leave alone, and images for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def small_net(channels: int = 3, classes: int = 5, seed: int = 0) -> nn.Module:
    """Convolution, batch normalisation, dropout: any size of image, eval and train mode differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Softplus(),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(96, classes),
        )
        net[1].running_mean.normal_(0, 0.1)
        net[6].weight.data.mul_(8)
    return net.eval()


class Features(nn.Module):
    """A network by whose layers ppgd measures distances, for images of any size and up to three channels. Sums are
    taken image by image: convolutions round differently in another batch."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(6, 3, 1, 1, generator=torch.Generator().manual_seed(7)))

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        early = nn.functional.softplus((x[:, None] * self.mix[:, : x.shape[1]]).sum(2))
        return early, (early[..., 1:, :] - early[..., :-1, :]).square()


def images(batch: int, channels: int = 3, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """Smooth in places and noisy in others, 0 and 1 included."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, channels, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noise = torch.rand(batch, channels, height, width, generator=generator) - 0.5
    return (1.4 * smooth - 0.2 + 0.2 * noise).clamp(0, 1)


@dataclass
class Toy:
    net: nn.Module
    x: Tensor
    y: Tensor
    seeds: Tensor
