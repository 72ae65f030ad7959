"""The perceptual distance: LPIPS without its learned weights, on the features of any network.

Source: perceptual-advex@65c1bc3. phi(x) is the concatenation, over layers, of the activations divided by their norm
over the channels and by sqrt(H_l W_l); d(x, y) = |phi(x) - phi(y)|_2, the square root of unweighted LPIPS.
"""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from attacks.base import Model, _frozen
from attacks.errors import InputError
from attacks.geometry import l2_norm
from attacks.precision import exact_fp32


@runtime_checkable
class Featured(Protocol):
    """A network that shows its layers: images (B, C, H, W) in [0, 1] to activations (B, C_l, H_l, W_l), one each."""

    def features(self, x: Tensor) -> tuple[Tensor, ...]: ...


def embed(network: Featured, x: Tensor) -> Tensor:
    """phi(x), (B, D). One forward, under the caller's modes."""
    layers = network.features(x)
    if isinstance(layers, Tensor):
        wanted = "a tuple of activations, one for each layer"
        raise InputError(f"expected features(x) of {type(network).__name__} to be {wanted}, got one tensor")
    return torch.cat([_unit(layer).flatten(1) for layer in layers], 1)


def lpips(reference: Featured, x: Tensor, y: Tensor) -> Tensor:
    """d(x, y), (B,), by the reference in eval mode and fp32; it is left as it was found. Two forwards.

    Differentiable in x and y; where they are equal the gradient is taken to be 0.
    """
    with _frozen(cast(Model, reference)), exact_fp32(), torch.autocast(x.device.type, enabled=False):
        return l2_norm(embed(reference, x) - embed(reference, y))


def _unit(layer: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(layer, dim=1, keepdim=True)
    root: float = (layer.shape[2] * layer.shape[3]) ** 0.5
    return layer / ((norm + 1e-10) * root)
