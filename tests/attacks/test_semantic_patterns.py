"""Kaleidoscope, edge, texture, prison and polkadot against slow float64 references, written a pixel at a time."""

from __future__ import annotations

import colorsys
import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from attack_toys import images
from numpy.typing import NDArray
from torch import Tensor

import attacks
from attacks import noise
from attacks.canny import canny
from attacks.errors import InputError
from attacks.latent import LatentAttack
from attacks.semantic.kaleidoscope import shapes
from attacks.semantic.polkadot import _scores

Array = NDArray[np.float64]
Slow = Callable[[Array, Array, tuple[Array, ...]], Array]


def semantic(name: str, **knobs: bool) -> LatentAttack:
    attack = dataclasses.replace(attacks.get(name), **knobs)
    assert isinstance(attack, LatentAttack)
    return attack


def pixels(height: int, width: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(height) for j in range(width))


def filtered(image: Array, window: list[list[float]]) -> Array:
    """3x3 correlation, 0 outside."""
    height, width = image.shape
    out = np.zeros_like(image)
    for i, j in pixels(height, width):
        for a, b in pixels(3, 3):
            if 0 <= i + a - 1 < height and 0 <= j + b - 1 < width:
                out[i, j] += window[a][b] * image[i + a - 1, j + b - 1]
    return out


def slow_canny(x: Array, as_published: bool = False) -> NDArray[np.bool_]:
    """(H, W) bool: blur and gradient of each channel, their mean, thinning among two of eight neighbours, threshold."""
    gauss = [[math.exp(-(a * a + b * b) / 2) for b in (-1, 0, 1)] for a in (-1, 0, 1)]
    total = sum(map(sum, gauss))
    gauss = [[weight / total for weight in row] for row in gauss]
    sobel = [[-0.5, 0.0, 0.5], [-1.0, 0.0, 1.0], [-0.5, 0.0, 0.5]]
    turned = [[row[i] for row in sobel] for i in range(3)]
    assert np.allclose(gauss[0] + gauss[1][:2], [0.0751, 0.1238, 0.0751, 0.1238, 0.2042], atol=5e-5)
    blurred = [filtered(channel, gauss) for channel in x]
    across, down = (sum((filtered(channel, k) for channel in blurred), np.zeros(x.shape[1:])) for k in (sobel, turned))
    across, down = across / len(x), down / len(x)
    size = np.sqrt(across**2 + down**2)
    thin = np.zeros_like(size)
    for i, j in pixels(*size.shape):
        if size[i, j] > 0:
            slope = down[i, j] / across[i, j] if across[i, j] else math.copysign(math.inf, down[i, j])
            degrees = round((math.atan(slope) * 360 / math.pi + 180) / 45) * 45
            thin[i, j] = size[i, j] if is_peak(size, i, j, int(degrees // 45) % 8 % 4, as_published) else 0
    return np.array(thin > 0.1 * thin.max(), dtype=np.bool_)


def is_peak(size: Array, i: int, j: int, k: int, as_published: bool) -> bool:
    """Neighbours 0..7 are E, NE, N, NW, W, SW, S, SE; the published kernels of 6 and 7 subtract nothing."""
    around = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]
    responses = []
    for neighbour in (k, k + 4):
        a, b = i + around[neighbour][0], j + around[neighbour][1]
        inside = 0 <= a < size.shape[0] and 0 <= b < size.shape[1]
        lost = as_published and neighbour in (6, 7)
        responses.append(size[i, j] - (size[a, b] if inside and not lost else 0))
    return bool(min(responses) > 0)


def slow_edge(x: Array, latent: Array, scene: tuple[Array, ...]) -> Array:
    mask = slow_canny(x)
    out = x.copy()
    for c, i, j in np.ndindex(*x.shape):
        if mask[i, j]:
            out[c, i, j] = 0.5 + latent[c, i, j]
    return out


def slow_texture(x: Array, latent: Array, scene: tuple[Array, ...]) -> Array:
    edges = slow_canny(x)
    out = np.empty_like(x)
    for c, i, j in np.ndindex(*x.shape):
        without = 0 if edges[i, j] else x[c, i, j]
        white = abs(latent[0, i, j]) * (1 - edges[i, j])
        out[c, i, j] = white * 1 + (1 - white) * without
    return np.clip(out, 0, 1)


def slow_prison(x: Array, latent: Array, scene: tuple[Array, ...]) -> Array:
    width, out = x.shape[2], x.copy()
    column = (width // 8) // 2
    while column < width - 2:
        out[:, :, column] = 0.5 + latent[:, :, column]
        column += width // 8
    return out


def slow_polkadot(x: Array, latent: Array, scene: tuple[Array, ...]) -> Array:
    """The dots' places are in the scores of the scene, which test_scores_of_the_dots compares."""
    (channels, height, width), (scores, colours) = x.shape, scene
    out = np.empty_like(x)
    for i, j in pixels(height, width):
        quantities = [0.5] + [scores[k + 1, i * width + j] / 5 * latent[k] for k in range(20)]
        weights = [math.exp(5 * quantity) for quantity in quantities]
        for c in range(channels):
            mixed = weights[0] * x[c, i, j] + sum(weights[k + 1] * colours[k, c] for k in range(20))
            out[c, i, j] = mixed / sum(weights)
    return out


def near(mask: Array, i: int, j: int) -> bool:
    """In the 5x5 window around a pixel."""
    return bool(mask[max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3].any())


def slow_kaleidoscope(x: Array, latent: Array, scene: tuple[Array, ...]) -> Array:
    """The shapes are those of the scene, which test_shapes_are_those_of_their_corners compares."""
    channels, height, width = x.shape
    masks, colours = scene[0].reshape(5, height, width), scene[3]
    change, brightness = latent[: 5 * channels].reshape(5, channels), latent[5 * channels :].reshape(height, width)
    out = np.empty_like(x)
    for i, j in pixels(height, width):
        under = [s for s in range(5) if masks[s, i, j]]
        value = x[:, i, j] * (0.2 if under else 1)
        for s in under:
            value = value + colours[s] + change[s]
        outline = any(near(masks[s], i, j) and not masks[s, i, j] for s in range(5))
        out[:, i, j] = abs(brightness[i, j]) if outline else value
    return np.clip(out, 0, 1)


SLOW: dict[str, Slow] = {
    "kaleidoscope": slow_kaleidoscope,
    "edge": slow_edge,
    "texture": slow_texture,
    "prison": slow_prison,
    "polkadot": slow_polkadot,
}
every = pytest.mark.parametrize("name", SLOW)


def wild(latent: Tensor, scale: float) -> Tensor:
    return torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)) * scale


@every
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 16, 21), (1, 28, 28)])
def test_render(name: str, shape: tuple[int, int, int]) -> None:
    """From the start and from a wilder latent, whose sign and size differ from place to place."""
    attack = semantic(name)
    x, seeds = images(2, *shape), torch.tensor([3, 4])
    latent, scene = attack.start(x, seeds)
    for one in (latent, attack.project(wild(latent, 2 * attack.epsilon), scene)):
        rendered = attack.render(x, one, scene)
        for i in range(2):
            parts = tuple(part[i].double().numpy() for part in scene)
            expected = SLOW[name](x[i].double().numpy(), one[i].double().numpy(), parts)
            torch.testing.assert_close(rendered[i].double(), torch.tensor(expected), rtol=0, atol=4e-6)


@every
def test_gradient(name: str) -> None:
    """In float64, from a latent that no absolute value and no border of the budget is near."""
    attack = semantic(name)
    x = images(1, 3, 15, 15) if name == "kaleidoscope" else images(1, 3, 8, 9)
    latent, scene = attack.start(x, torch.tensor([3]))
    generic = (0.3 + 0.4 * torch.rand(latent.shape, generator=torch.Generator().manual_seed(0))) * attack.epsilon
    generic = (generic * wild(latent, 1).sign()).double().requires_grad_()
    doubles = tuple(part.double() if part.is_floating_point() else part for part in scene)
    moved = torch.autograd.grad(attack.render(x.double(), generic, doubles).sum(), generic)[0]
    assert (moved != 0).any()
    assert torch.autograd.gradcheck(lambda z: attack.render(x.double(), z, doubles), generic)


BUDGETS = {  # norm, least and most of the latent, in epsilons
    "kaleidoscope": (torch.inf, -1, 1),
    "edge": (torch.inf, -1, 1),
    "texture": (torch.inf, -1, 1),
    "prison": (torch.inf, 0, 1),
    "polkadot": (2, 0, 1),
}


@every
def test_latent_budget(name: str) -> None:
    attack, x = semantic(name), images(4)
    order, low, high = BUDGETS[name]
    latent, scene = attack.start(x, torch.arange(4))
    for one in (latent, attack.project(wild(latent, 10 * attack.epsilon), scene)):
        reached = torch.linalg.vector_norm(one.double().flatten(1), ord=order, dim=1)
        assert (reached <= attack.epsilon * (1 + 1e-6)).all()
        assert one.min() >= low * attack.epsilon * (1 + 1e-6)
        assert one.max() <= high * attack.epsilon * (1 + 1e-6)
    assert torch.equal(attack.project(latent * 0.5, scene), latent * 0.5)


@every
@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 5, 5)])
def test_refusals_name_the_rule(name: str, shape: tuple[int, int, int]) -> None:
    refused = {("kaleidoscope", 32), ("kaleidoscope", 5), ("prison", 5)}
    x, seeds = images(1, *shape), torch.arange(1)
    if (name, shape[1]) in refused:
        with pytest.raises(InputError, match=f"{shape[1]}x{shape[1]}.*attacks.{name}"):
            semantic(name).start(x, seeds)
    else:
        semantic(name).start(x, seeds)


# Canny's mask


@pytest.mark.parametrize("as_published", [False, True])
def test_canny(as_published: bool) -> None:
    for shape in ((3, 16, 21), (1, 28, 28)):
        x = images(3, *shape, seed=5)
        expected = [slow_canny(image.double().numpy(), as_published) for image in x]
        assert torch.equal(canny(x, as_published)[:, 0], torch.tensor(np.array(expected)))


def test_canny_without_its_lost_comparisons_keeps_more() -> None:
    """By measurement on CIFAR-10 a quarter of the pixels, against a fifth."""
    x = images(8)
    fewer, more = (canny(x, lost).float().mean((1, 2, 3)) for lost in (False, True))
    assert (more > 1.1 * fewer).all()
    assert ((fewer > 0.05) & (more < 0.45)).all()


@pytest.mark.parametrize("lost", [False, True])
def test_canny_of_flat_images(lost: bool) -> None:
    """Black has no gradient, 0 / 0 is no edge; bright has one at the left and right, where the black outside begins."""
    assert not canny(torch.zeros(2, 3, 16, 16), lost).any()
    flat = canny(torch.full((2, 3, 16, 16), 0.7), lost)
    assert not flat[..., 2:-2, 1:-1].any()
    assert flat[..., 2:-2, 0].all()
    assert flat[..., 2:-2, -1].all()


def test_canny_looks_at_no_other_image() -> None:
    x = images(5)
    assert torch.equal(canny(x), torch.cat([canny(x[i : i + 1]) for i in range(5)]))


# Edge and texture


def test_edge_start() -> None:
    """By default where the first projection of the published start leads; published, wherever U[0, 1) falls."""
    x, seeds = images(4), torch.arange(4)
    latent, (edges,) = semantic("edge").start(x, seeds)
    published, (more,) = semantic("edge", as_published=True).start(x, seeds)
    assert torch.equal(edges, canny(x))
    assert torch.equal(more, canny(x, as_published=True))
    assert not published[~more.expand_as(published)].any()
    assert not latent[~edges.expand_as(latent)].any()
    assert torch.equal(latent, published.clamp_max(0.1) * edges)
    live = published[more.expand_as(published)]
    assert live.max() > 0.95
    assert float(live.mean()) == pytest.approx(0.5, abs=0.03)


def test_edge_as_published_shows_an_image_and_comes_into_the_budget() -> None:
    seen: list[Tensor] = []

    def model(z: Tensor) -> Tensor:
        seen.append(z.detach())
        return z.flatten(1)[:, :5]

    x, seeds = images(2), torch.arange(2)
    attack = dataclasses.replace(semantic("edge", as_published=True), num_steps=2)
    attack(model, x, torch.zeros(2, dtype=torch.int64), seeds=seeds)
    assert seen[0].max() <= 1
    edges = canny(x, as_published=True).expand_as(x)
    assert seen[0][edges].max() > 0.9
    assert (seen[1][edges] - 0.5).abs().max() <= 0.1 + 1e-6


def test_texture_start_and_mask_as_published() -> None:
    x, seeds = images(4), torch.arange(4)
    latent, _ = semantic("texture").start(x, seeds)
    assert 0 <= latent.min() < 0.01
    assert 0.095 < latent.max() < 0.1
    assert latent.shape == (4, 1, 32, 32)
    for lost in (False, True):
        attack = semantic("texture", as_published=lost)
        rendered = attack.render(x, *attack.start(x, seeds))
        assert torch.equal((rendered == 0).all(1, keepdim=True), canny(x, lost))


def test_texture_ignores_the_sign() -> None:
    attack, x = semantic("texture"), images(2)
    latent, scene = attack.start(x, torch.arange(2))
    assert torch.equal(attack.render(x, -latent, scene), attack.render(x, latent, scene))


# Prison


@pytest.mark.parametrize(
    ("width", "columns"),
    [(32, [2, 6, 10, 14, 18, 22, 26]), (28, [1, 4, 7, 10, 13, 16, 19, 22, 25]), (64, list(range(4, 62, 8)))],
)
def test_prison_bars(width: int, columns: list[int]) -> None:
    attack = semantic("prison")
    x = torch.zeros(1, 3, 30, width)
    rendered = attack.render(x, *attack.start(x, torch.arange(1)))
    assert rendered[0, 0, 0].nonzero().flatten().tolist() == columns
    assert (rendered[..., columns] == 0.5).all()


def test_prison_starts_at_nothing_or_at_random() -> None:
    x, seeds = images(2), torch.arange(2)
    assert not semantic("prison").start(x, seeds)[0].any()
    latent, _ = semantic("prison", random_start=True).start(x, seeds)
    assert 0 <= latent.min() < 0.001
    assert 0.029 < latent.max() < 0.03


# Polkadot


def test_scores_of_the_dots() -> None:
    """5 (1 - distance)^5, which is negative beyond 1, and 2.5 for the image."""
    centres = torch.tensor([[[0.0, 0.0], [0.4, 0.9], [0.99, 0.98]]])
    scores = _scores(centres, 8, 10)[0].reshape(4, 8, 10)
    assert (scores[0] == 2.5).all()
    for k, (row, column) in enumerate(centres[0].tolist()):
        for i, j in pixels(8, 10):
            expected = 5 * (1 - math.dist((i / 8, j / 10), (row, column))) ** 5
            assert float(scores[k + 1, i, j]) == pytest.approx(expected, abs=4e-6)
    assert scores[1].min() < -0.002


def test_polkadot_draws() -> None:
    x, seeds = images(64), torch.arange(64)
    latent, (scores, colours) = semantic("polkadot").start(x, seeds)
    published, scene = semantic("polkadot", as_published=True).start(x, seeds)
    assert latent.shape == (64, 20)
    assert scores.shape == (64, 21, 1024)
    assert all(torch.equal(a, b) for a, b in zip(scene, (scores, colours), strict=True))
    assert torch.equal(latent, semantic("polkadot").project(published, scene))
    assert 2.3 < published.norm(dim=1).mean() < 2.8, "|U[0, 1)^20|, whatever epsilon"
    places = scores[:, 1:].argmax(2)
    assert len(set(places.flatten().tolist())) > 500, "every image has its own dots"
    for coordinate in (places // 32, places % 32):
        assert float(coordinate.float().mean()) == pytest.approx(16, abs=1)
    for each in (colours, published):
        assert float(each.mean()) == pytest.approx(0.5, abs=0.02)
        assert float(each.std()) == pytest.approx(1 / math.sqrt(12), abs=0.02)


# Kaleidoscope


def kaleidoscope_draws(batch: int) -> Tensor:
    return noise.uniform(torch.arange(batch), 1, (4, 5))


def corners(draw: Array, height: int, width: int) -> tuple[int, list[tuple[float, float]]]:
    """Kind, and the corners walked around from the first one, or the circle's centre; all (row, column)."""
    kind = int(3 * draw[0])
    if kind == 0:
        return 0, [(math.floor(draw[1] * height), math.floor(draw[2] * width))]
    edge, turn = (6, 2 * math.pi / 3) if kind == 1 else (4, math.pi / 2)
    at = [(7 + draw[1] * (height - 15), 7 + draw[2] * (width - 15))]
    heading = 2 * math.pi * draw[3] + math.pi / 2 + turn / 2
    for _ in range(kind + 1):
        at.append((at[-1][0] + edge * math.sin(heading), at[-1][1] + edge * math.cos(heading)))
        heading += turn
    assert math.dist(at[-1], at[0]) == pytest.approx(edge)
    return kind, at


def contains(kind: int, at: list[tuple[float, float]], i: int, j: int) -> bool:
    if kind == 0:
        return (i - at[0][0]) ** 2 + (j - at[0][1]) ** 2 < 4
    sides = zip(at, at[1:] + at[:1], strict=True)
    turns = [(c[1] - b[1]) * (i - b[0]) - (c[0] - b[0]) * (j - b[1]) for b, c in sides]
    return all(turn > 0 for turn in turns) or all(turn < 0 for turn in turns)


def test_shapes_are_those_of_their_corners() -> None:
    """A pixel is inside when it lies on one side of all edges; draws in, masks out."""
    draws = kaleidoscope_draws(6)
    masks = shapes(draws, 24, 31)
    kinds = set()
    for b in range(6):
        for s in range(5):
            kind, at = corners(draws[b, :, s].double().numpy(), 24, 31)
            expected = [[contains(kind, at, i, j) for j in range(31)] for i in range(24)]
            assert torch.equal(masks[b, s], torch.tensor(expected))
            kinds.add(kind)
    assert kinds == {0, 1, 2}


def test_shapes_cover_what_was_measured_of_the_published_ones() -> None:
    """Mean area 13.2 px, 22 at most; the union of five covers 6.1 % of 32x32, their outlines 20 %."""
    x, seeds = torch.rand(400, 3, 32, 32), torch.arange(400)
    _, (masks, outlines, _, _) = semantic("kaleidoscope").start(x, seeds)
    areas = masks.sum(2)
    assert float(areas.mean()) == pytest.approx(13.2, rel=0.04)
    assert 17 <= areas.max() <= 22
    assert float(masks.amax(1).mean()) == pytest.approx(0.061, rel=0.06)
    assert float(outlines.float().mean()) == pytest.approx(0.20, rel=0.05)


@pytest.mark.parametrize("size", [16, 28, 64])
def test_shapes_keep_their_size_at_any_resolution(size: int) -> None:
    """Polygons lie inside; a circle may stick out."""
    draws = kaleidoscope_draws(100)
    areas, kinds = shapes(draws, size, size).sum((2, 3)).double(), (3 * draws[:, 0]).long()
    for kind, area in ((1, math.sqrt(3) / 4 * 36), (2, 16.0)):
        assert float(areas[kinds == kind].mean()) == pytest.approx(area, abs=0.35)
        assert areas[kinds == kind].min() >= 12
        assert float((kinds == kind).float().mean()) == pytest.approx(1 / 3, abs=0.06)
    assert areas[kinds == 0].max() == 9
    assert areas[kinds == 0].min() == 4 or size == 64


def test_kaleidoscope_latent_starts() -> None:
    """Colour changes of both signs, brightnesses of one."""
    x, seeds = images(32), torch.arange(32)
    latent, _ = semantic("kaleidoscope").start(x, seeds)
    assert latent.shape == (32, 15 + 1024)
    for part, low in ((latent[:, :15], -0.1), (latent[:, 15:], 0.0)):
        assert float(part.min()) == pytest.approx(low, abs=0.002)
        assert float(part.max()) == pytest.approx(0.1, abs=0.002)
        assert float(part.mean()) == pytest.approx((low + 0.1) / 2, abs=0.01)


def test_kaleidoscope_colours() -> None:
    """Any hue, saturation in [0.7, 1), value in [0.8, 1); grey images get the value."""
    seeds = torch.arange(100)
    colours = semantic("kaleidoscope").start(torch.rand(100, 3, 16, 16), seeds)[1][3]
    hsv = np.array([colorsys.rgb_to_hsv(*colour) for colour in colours.reshape(-1, 3).tolist()])
    low, high = np.array([0, 0.7, 0.8]), np.array([1, 1, 1])
    assert (hsv >= low - 1e-6).all()
    assert (hsv <= high + 1e-6).all()
    assert np.allclose(hsv.mean(0), (low + high) / 2, atol=0.04)
    assert np.allclose(hsv.std(0), (high - low) / math.sqrt(12), rtol=0.1)
    grey = semantic("kaleidoscope").start(torch.rand(100, 1, 16, 16), seeds)[1][3]
    assert np.allclose(grey.flatten().numpy(), hsv[:, 2], atol=1e-6)
