"""The lp balls: projections, steepest steps, random starts. Pure functions of (B, ...) tensors, each image by itself.

Nothing here waits for a GPU. Cost on one CPU core for 32 images of 3x32x32: 0.1 ms, the l1 projections 0.7 and 3 ms.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from attacks import noise


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, ..., 1), to multiply with `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def l2_norm(delta: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return norm


def project_linf(delta: Tensor, epsilon: float) -> Tensor:
    return delta.clamp(-epsilon, epsilon)


def project_l2(delta: Tensor, epsilon: float) -> Tensor:
    return delta / per_image((l2_norm(delta) / epsilon).clamp_min(1), delta)


def project_l1(delta: Tensor, epsilon: float) -> Tensor:
    """The nearest point of the l1 ball: shrink by theta = max(0, max_k (sum of the k largest - epsilon) / k).

    Source: Duchi et al. 2008, figure 1. theta is never negative, so that a point inside stays where it is.
    """
    size = delta.abs()
    total = descending(size.flatten(1)).cumsum(1)
    count = torch.arange(1, total.shape[1] + 1, device=delta.device, dtype=delta.dtype)
    theta = ((total - epsilon) / count).amax(1).clamp_min(0)
    return torch.copysign((size - per_image(theta, delta)).clamp_min(0), delta)


def project_l1_box(x: Tensor, delta: Tensor, epsilon: float) -> Tensor:
    """The nearest d to delta with |d|_1 <= epsilon and x + d in [0, 1], for x in [0, 1].

    d = sign(delta) * clamp(|delta| - theta, 0, room), room being the way to the box; |d|_1 falls with theta, linearly
    between the breakpoints |delta| (slope begins) and |delta| - room (slope ends), which are sorted to solve for theta.
    Source: Croce and Hein 2021 ("Mind the box"), where the same equation is bisected.
    """
    size = delta.abs()
    room = torch.where(delta > 0, 1 - x, x)
    begins, ends = size.flatten(1), (size - room).clamp_min(0).flatten(1)
    # A float's last bit tells the two apart, so that only values are sorted; then it becomes the sign.
    code = descending(torch.cat([begins.view(torch.int32) & -2, ends.view(torch.int32) | 1], 1))
    kink, signed = code.view(torch.float32), (code ^ (code << 31)).view(torch.float32)
    slope, offset = signed.sign().cumsum(1), signed.cumsum(1)  # |d|_1 = offset - slope * theta below a breakpoint
    reached = torch.addcmul(offset, slope, kink, value=-1) <= epsilon  # at the first breakpoint it is 0
    last = reached[:, 1:].sum(1, keepdim=True)
    theta = ((offset.gather(1, last) - epsilon) / slope.gather(1, last).clamp_min(1)).clamp_min(0)
    return torch.copysign(torch.minimum((size - per_image(theta, delta)).clamp_min(0), room), delta)


def steepest_l2(grad: Tensor) -> Tensor:
    """g / |g|_2 whatever the scale of g, even where its squares would underflow; 0 for g = 0 and where g is NaN."""
    grad = grad.nan_to_num(0)
    largest = torch.linalg.vector_norm(grad.flatten(1), ord=torch.inf, dim=1)
    grad = grad / per_image(largest.clamp_min(torch.finfo(grad.dtype).tiny), grad)
    return grad / per_image(l2_norm(grad).clamp_min(1), grad)


def steepest_l1(grad: Tensor, count: Tensor, at_most: int) -> Tensor:
    """sgn(g) / count on the `count` (B,) int64 largest |g|, 1 <= count <= at_most; 0 elsewhere and where g is 0."""
    size = grad.abs().flatten(1)
    largest = size.topk(min(at_most, size.shape[1]), 1).values
    least = largest.gather(1, (count[:, None] - 1).clamp_max(largest.shape[1] - 1))
    return grad.sign() * (grad.abs() >= per_image(least, grad)) / per_image(count, grad)


def random_linf(seeds: Tensor, shape: tuple[int, ...], epsilon: float) -> Tensor:
    """Uniform in the ball."""
    return noise.uniform(seeds, 0, shape) * (2 * epsilon) - epsilon


def random_l2(seeds: Tensor, shape: tuple[int, ...], epsilon: float) -> Tensor:
    """Uniform on the sphere."""
    return steepest_l2(noise.normal(seeds, 0, shape)) * epsilon


def random_l1(seeds: Tensor, shape: tuple[int, ...], epsilon: float) -> Tensor:
    """A normal draw projected on the ball: sparse where epsilon is small, as AutoAttack starts."""
    return project_l1(noise.normal(seeds, 0, shape), epsilon)


def descending(values: Tensor) -> Tensor:
    """Each row of (B, n) sorted. NumPy sorts (32, 3072) floats in 0.2 ms on AVX-512, torch's CPU kernel in 4.6 ms."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1)[:, ::-1].copy())
    return values.sort(1, descending=True).values
