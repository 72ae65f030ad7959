"""Each render against a slow float64 reference, written pixel by pixel from the description of the published attack."""

from __future__ import annotations

import colorsys
import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import test_semantic_patterns
import test_semantic_warps
import torch
from attack_toys import images
from numpy.typing import NDArray
from torch import Tensor

import attacks
from attacks.latent import LatentAttack

Array = NDArray[np.float64]


def semantic(name: str) -> LatentAttack:
    attack = attacks.get(name)
    assert isinstance(attack, LatentAttack)
    return attack


def reflect(i: int, n: int) -> int:
    i = abs(i)
    return i if i < n else 2 * (n - 1) - i


def gaussian_blur(image: Array, taps: int, sigma: float) -> Array:
    """(H, W), two-dimensional window, border reflected."""
    half, (height, width) = taps // 2, image.shape
    window = np.array(
        [[math.exp(-(a * a + b * b) / (2 * sigma**2)) for b in range(-half, half + 1)] for a in range(-half, half + 1)]
    )
    window /= window.sum()
    out = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            for a in range(-half, half + 1):
                for b in range(-half, half + 1):
                    out[i, j] += window[a + half, b + half] * image[reflect(i + a, height), reflect(j + b, width)]
    return out


def slow_jpeg(x: Array, latent: Array) -> Array:
    """To YCbCr, DCT of each block, plus the latent, and all the way back. Latent (blocks, C * 64)."""
    channels, height, width = x.shape
    down, across = math.ceil(height / 8), math.ceil(width / 8)
    latent = latent.reshape(down, across, channels, 8, 8)
    to_ycc = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    to_rgb = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
    if channels == 1:
        to_ycc, to_rgb = np.eye(1), np.eye(1)
    scale = [math.sqrt(1 / 8)] + [math.sqrt(2 / 8)] * 7
    dct = np.array([[scale[k] * math.cos(math.pi * k * (2 * i + 1) / 16) for i in range(8)] for k in range(8)])
    padded = np.pad(255 * x, ((0, 0), (0, down * 8 - height), (0, across * 8 - width)), mode="reflect")
    ycc = np.einsum("dc,chw->dhw", to_ycc, padded)
    for i in range(down):
        for j in range(across):
            for c in range(channels):
                block = ycc[c, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                coefficients = dct @ block @ dct.T + 255 * latent[i, j, c]
                ycc[c, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = dct.T @ coefficients @ dct
    return np.clip(np.einsum("dc,chw->dhw", to_rgb, ycc)[:, :height, :width] / 255, 0, 1)


def slow_blur(x: Array, latent: Array) -> Array:
    mask = gaussian_blur(latent[0], 9, 18)
    blurred = np.stack([gaussian_blur(channel, 17, 25) for channel in x])
    return np.clip(mask * blurred + (1 - mask) * x, 0, 1)


def slow_hsv(x: Array, latent: Array) -> Array:
    change = np.stack([gaussian_blur(channel, 3, 3) for channel in latent])
    if len(x) == 1:
        return np.clip(x + change, 0, 1)
    out = np.empty_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            hsv = np.clip(np.array(colorsys.rgb_to_hsv(*x[:, i, j])) + change[:, i, j], 0, 1)
            out[:, i, j] = colorsys.hsv_to_rgb(*hsv)
    return out


def slow_pixel(x: Array, latent: Array) -> Array:
    out = np.empty_like(x)
    for c, i, j in np.ndindex(*x.shape):
        strength = latent[c, i // 4, j // 4]
        out[c, i, j] = x[c, i, j] * (1 - strength) + x[c, i // 4 * 4, j // 4 * 4] * strength
    return np.clip(out, 0, 1)


def slow_fog(x: Array, latent: Array) -> Array:
    """Diamond-square on a torus, a site at a time."""
    channels, height, width = x.shape
    size = 1
    while size < max(height, width):
        size *= 2
    plasma, draws = np.zeros((size, size)), iter(latent)
    step, weight = size, 1.0
    while step >= 2:
        half = step // 2
        corners = [(i, j) for i in range(0, size, step) for j in range(0, size, step)]
        for i, j in corners:
            around = [(i, j), (i + step, j), (i, j + step), (i + step, j + step)]
            plasma[i + half, j + half] = mean(plasma, around) + weight * next(draws)
        for i, j in corners:
            around = [(i, j), (i, j + step), (i + half, j + half), (i - half, j + half)]
            plasma[i, j + half] = mean(plasma, around) + weight * next(draws)
        for i, j in corners:
            around = [(i, j), (i + step, j), (i + half, j + half), (i + half, j - half)]
            plasma[i + half, j] = mean(plasma, around) + weight * next(draws)
        step, weight = half, weight / 3
    assert next(draws, None) is None
    top, left = (size - height) // 2, (size - width) // 2
    fog = np.clip(abs(plasma), 0, 1)[top : top + height, left : left + width]
    colour = np.array([0.485, 0.45, 0.406] if channels == 3 else [0.447])[:, None, None]
    return x * (1 - fog) + fog * colour


def mean(plasma: Array, sites: list[tuple[int, int]]) -> float:
    size = len(plasma)
    return float(np.mean([plasma[i % size, j % size] for i, j in sites]))


def cubic(t: float) -> float:
    """The convolution kernel of bicubic interpolation with a = -0.75."""
    t, a = abs(t), -0.75
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def enlarged(row: Array) -> Array:
    """Twice as long; the border is repeated."""
    out = np.zeros(2 * len(row))
    for i in range(len(out)):
        centre = (i + 0.5) / 2 - 0.5
        for k in range(math.floor(centre) - 1, math.floor(centre) + 3):
            out[i] += row[min(max(k, 0), len(row) - 1)] * cubic(centre - k)
    return out


def slow_elastic(x: Array, latent: Array, pixel_centred: bool = False) -> Array:
    _, height, width = x.shape
    flow = np.apply_along_axis(enlarged, 2, np.apply_along_axis(enlarged, 1, latent))
    out = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            u, v = 2 * j / (width - 1) - 1, 2 * i / (height - 1) - 1
            if pixel_centred:
                u, v = (2 * j + 1) / width - 1, (2 * i + 1) / height - 1
            u, v = u + flow[0, i, j], v + flow[1, i, j]
            column, row = ((u + 1) * width - 1) / 2, ((v + 1) * height - 1) / 2
            for r in (math.floor(row), math.floor(row) + 1):
                for c in (math.floor(column), math.floor(column) + 1):
                    if 0 <= r < height and 0 <= c < width:
                        out[:, i, j] += x[:, r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return out


SLOW: dict[str, Callable[[Array, Array], Array]] = {
    "jpeg": slow_jpeg,
    "blur": slow_blur,
    "hsv": slow_hsv,
    "pixel": slow_pixel,
    "fog": slow_fog,
    "elastic": slow_elastic,
}


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 12, 18), (1, 28, 28)])
def test_render(name: str, shape: tuple[int, int, int]) -> None:
    """From the start and from a wilder latent, whose sign and size differ from place to place."""
    attack = semantic(name)
    x, seeds = images(2, *shape), torch.tensor([3, 4])
    latent, scene = attack.start(x, seeds)
    wild = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)) * 2 * attack.epsilon
    for one in (latent, attack.project(wild, scene)):
        rendered = attack.render(x, one, scene)
        expected = [SLOW[name](a.double().numpy(), b.double().numpy()) for a, b in zip(x, one, strict=True)]
        torch.testing.assert_close(rendered.double(), torch.tensor(np.array(expected)), rtol=0, atol=4e-6)


def test_every_semantic_attack_has_a_reference() -> None:
    referenced = {*SLOW, *test_semantic_patterns.SLOW, *test_semantic_warps.SLOW}
    assert {name for name in attacks.names() if attacks.get(name).family == "semantic"} == referenced
    assert len(referenced) == 17


@pytest.mark.parametrize("name", SLOW)
def test_gradient(name: str) -> None:
    """In float64, from a generic point, where nothing is cut; along a few random directions of the latent."""
    attack = semantic(name)
    x, seeds = (0.3 + 0.4 * images(1, 3, 10, 10)).double(), torch.tensor([3])
    latent, scene = attack.start(x.float(), seeds)
    scene = tuple(part.double() for part in scene)
    ways = torch.randn(6, *latent.shape[1:], generator=torch.Generator().manual_seed(0)).double()

    def render(amounts: Tensor) -> Tensor:
        moved = latent.double() + 0.1 * attack.epsilon * torch.einsum("k,k...->...", amounts, ways)
        return attack.render(x, moved, scene)

    amounts = torch.linspace(-0.1, 0.1, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(render, (amounts,), eps=1e-7, atol=1e-6)


BUDGETS = {  # norm, least and most of the latent
    "jpeg": (torch.inf, -1, 1),
    "blur": (torch.inf, 0, 1),
    "fog": (torch.inf, -1, 1),
    "hsv": (torch.inf, -1, 1),
    "pixel": (2, 0, torch.inf),
    "elastic": (2, -torch.inf, torch.inf),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_latent_budget(name: str) -> None:
    """What start and project promise, in the units of the published attack."""
    attack, x = semantic(name), images(8)
    order, low, high = BUDGETS[name]
    latent, scene = attack.start(x, torch.arange(8))
    wild = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)) * 10 * attack.epsilon
    for one in (latent, attack.project(latent, scene), attack.project(wild, scene)):
        reached = torch.linalg.vector_norm(one.double().flatten(1), ord=order, dim=1)
        assert (reached <= attack.epsilon * (1 + 1e-6)).all()
        assert one.min() >= low * attack.epsilon * (1 + 1e-6)
        assert one.max() <= high * attack.epsilon * (1 + 1e-6)
    assert torch.equal(attack.project(latent * 0.5, scene), latent * 0.5)


def test_elastic_starts_on_the_sphere() -> None:
    latent, _ = semantic("elastic").start(images(8), torch.arange(8))
    torch.testing.assert_close(latent.flatten(1).norm(dim=1), torch.full((8,), 0.25))
    assert latent.mean().abs() < 0.05 * latent.std()


def test_elastic_without_displacement() -> None:
    """The published grid magnifies (.046 on average on CIFAR-10 by measurement); the centred one is the identity."""
    attack, x = semantic("elastic"), images(2)
    none = torch.zeros(2, 2, 16, 16)
    assert (attack.render(x, none, ()) - x).abs().mean() > 0.01
    centred = dataclasses.replace(attack, pixel_centred=True)
    torch.testing.assert_close(centred.render(x, none, ()), x, rtol=0, atol=1e-5)
    wild, one = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.05, images(1, 3, 16, 16)
    expected = slow_elastic(one[0].double().numpy(), wild.double().numpy(), pixel_centred=True)
    torch.testing.assert_close(
        centred.render(one, wild[None], ())[0].double(), torch.tensor(expected), rtol=0, atol=4e-6
    )


def test_pixel_start_scale_is_drawn_per_image() -> None:
    attack = semantic("pixel")
    latent, _ = attack.start(images(64), torch.arange(64))
    reached = latent.flatten(1).norm(dim=1) / attack.epsilon
    assert reached.max() <= 1
    assert reached.std() > 0.2
    assert 0.4 < reached.mean() < 0.6


def test_nothing_of_the_latent_nothing_changes() -> None:
    x = images(2)
    for name in ("jpeg", "blur", "fog", "hsv", "pixel"):
        attack = semantic(name)
        latent, scene = attack.start(x, torch.arange(2))
        torch.testing.assert_close(attack.render(x, latent * 0, scene), x, rtol=0, atol=1e-6)
