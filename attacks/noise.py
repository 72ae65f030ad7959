"""Counter-based noise: every number is a pure function of (image's seed, draw, element).

So an image's draws are the same in any batch, on any worker and device, and no global random state is read or moved.
The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood 2014), in int64 arithmetic that wraps around.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_M1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_M2 = 0x94D049BB133111EB - (1 << 64)


def _wrap(n: int) -> int:
    """A Python integer as the int64 that two's complement makes of it."""
    return (n + (1 << 63)) % (1 << 64) - (1 << 63)


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _M1
    z = (z ^ _shift(z, 27)) * _M2
    return z ^ _shift(z, 31)


def derive(seeds: Tensor, *salts: int) -> Tensor:
    """New int64 seeds (B,) from seeds (B,) and integers: one stream for each purpose, epoch, draw."""
    for salt in salts:
        seeds = _mix(seeds + _wrap((salt + 1) * _GOLDEN))
    return seeds


def uniform(seeds: Tensor, draw: int, shape: tuple[int, ...]) -> Tensor:
    """U[0, 1) in fp32, (B, *shape), 24 random bits each. `draw` numbers the calls within one use of the seeds."""
    counter = torch.arange(1, math.prod(shape) + 1, device=seeds.device) * _GOLDEN
    bits = _mix(derive(seeds, draw)[:, None] + counter)
    return (_shift(bits, 40).float() * 2.0**-24).reshape(len(seeds), *shape)


def normal(seeds: Tensor, draw: int, shape: tuple[int, ...]) -> Tensor:
    """N(0, 1) in fp32, (B, *shape), by Box and Muller's transform of two uniforms each."""
    u, v = uniform(seeds, draw, (2, *shape)).unbind(1)
    return (-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()
