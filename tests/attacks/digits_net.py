"""A small convolutional network trained in seconds on scikit-learn's 8x8 digits, for tests of strength."""

from __future__ import annotations

import functools

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = {"linf": 0.12, "l2": 0.7, "l1": 2.5}
"""Budgets that the network survives on a part of the images."""


@functools.cache
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """The network, in eval mode, and 400 images (400, 1, 8, 8) that it has not seen, with labels.

    Trained for 12 epochs, each image moved by one signed step, without which little survives.
    """
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(216, 10),
        )  # fmt: skip
        optimiser = torch.optim.Adam(net.parameters(), lr=4e-3)
        for rows in (batch for _ in range(12) for batch in torch.randperm(1397).split(64)):
            optimiser.zero_grad()
            F.cross_entropy(net(_moved(net, x[rows], y[rows])), y[rows]).backward()
            optimiser.step()
    return net.eval().requires_grad_(False), x[1397:], y[1397:]


def _moved(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    start = (x + torch.empty_like(x).uniform_(-0.1, 0.1)).clamp(0, 1).requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(net(start), y), start)
    return (x + (start.detach() - x + 0.12 * grad.sign()).clamp(-0.1, 0.1)).clamp(0, 1)
