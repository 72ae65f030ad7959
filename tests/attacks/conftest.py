"""The toy that most tests of attacks use."""

from __future__ import annotations

import pytest
import torch
from attack_toys import Toy, images, small_net


@pytest.fixture
def toy() -> Toy:
    """Four 3x32x32 images with the labels that the network gives them."""
    net, x = small_net(), images(4)
    with torch.no_grad():
        return Toy(net, x, net(x).argmax(1), torch.arange(4) * 7919 + 1)
