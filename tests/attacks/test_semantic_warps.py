"""Wood, snow, gabor, glitch, klotski, whirlpool: each render against a slow float64 reference, pixel by pixel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attack_toys import Toy, images
from numpy.typing import NDArray
from torch import Tensor

import attacks
from attacks import warp
from attacks.errors import InputError
from attacks.latent import LatentAttack, Scene

Array = NDArray[np.float64]


def semantic(name: str, **changes: Any) -> LatentAttack:
    attack = attacks.get(name)
    assert isinstance(attack, LatentAttack)
    return dataclasses.replace(attack, **changes)


def between(values: Array, place: float) -> float:
    """Linear interpolation between samples at the integers; the border is repeated."""
    place = min(max(place, 0.0), len(values) - 1.0)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return float(values[low] * (low + 1 - place) + values[high] * (place - low))


def slow_wood(x: Array, latent: Array, scene: tuple[Array, ...], floor: float = 1e-6) -> Array:
    _, height, width = x.shape
    out = np.empty_like(x)
    for i in range(height):
        row = [between(latent[0, :, k], (i + 0.5) * 16 / height - 0.5) for k in range(16)]
        for j in range(width):
            shift = between(np.array(row), (j + 0.5) * 16 / width - 0.5)
            radius = math.hypot(2 * (j - width / 2) / width, 2 * (i - height / 2) / height)
            ring = (abs(math.sin(math.pi * 5 * (radius + shift))) + floor) ** (1 / 8)
            out[:, i, j] = np.clip(x[:, i, j] * ring, 0, 1)
    return out


A = math.sqrt(2) / 4
THIN, THICK = [[1, A, 0], [A, 1, A], [0, A, 1]], [[1, 1, 0], [1, 1, 1], [0, 1, 1]]


def slow_snow(x: Array, latent: Array, scene: tuple[Array, ...]) -> Array:
    """The scene says which flakes live, by layer if the stroke is thin, and by image if it is mirrored."""
    mask, strokes = scene[:2]
    layers, height, width = latent.shape
    fallen = np.zeros((height + 2, width + 2))
    for layer in range(layers):
        kernel = np.array(THIN if strokes[2, layer] < 0.9 else THICK)
        kernel = kernel[:, ::-1] if strokes[1, layer] == 1 else kernel
        for i, j in zip(*np.nonzero(mask[layer]), strict=True):
            fallen[i : i + 3, j : j + 3] += latent[layer, i, j] ** 4 * kernel
    out = np.empty_like(x)
    for i in range(height):
        for j in range(width):
            pixel = x[:, i, j]
            light = pixel[0] if len(x) == 1 else 0.2126 * pixel[0] + 0.7152 * pixel[1] + 0.0722 * pixel[2]
            bleached = 0.85 * pixel + 0.15 * np.maximum(pixel, 1.5 * light + 0.5)
            out[:, i, j] = np.clip(bleached + fallen[i + 1, j + 1], 0, 1)
    return out


def gabor_kernel(theta: float, waves: float) -> Array:
    kernel = np.zeros((23, 23))
    places = np.linspace(-0.5, 0.5, 23)
    for side, weight in enumerate([1, 1 / 3, 1 / 3]):
        angle = theta + math.pi * side / 3
        for a, down in enumerate(places):
            for b, across in enumerate(places):
                along = across * math.cos(angle) + down * math.sin(angle)
                aside = -across * math.sin(angle) + down * math.cos(angle)
                envelope = math.exp(-0.5 * (along**2 + aside**2) / (3 + 1e-3) ** 2)
                kernel[a, b] += weight * envelope * math.cos(2 * math.pi * waves * along)
    return kernel


def slow_gabor(x: Array, latent: Array, scene: tuple[Array, ...], render: int = 0) -> Array:
    """The scene's last part is where theta and lambda are drawn from; `render` counts them."""
    live, draws = scene[0], scene[3][render]
    kernel = gabor_kernel(math.pi * draws[0], 3 + (23 / 4 - 3) * draws[1])
    channels, height, width = x.shape
    waves = np.zeros((channels, height + 22, width + 22))
    for c, i, j in zip(*np.nonzero(live), strict=True):
        waves[c, i : i + 23, j : j + 23] += latent[c, i, j] * kernel
    return np.clip(x + waves[:, 11 : 11 + height, 11 : 11 + width], 0, 1)


def sampled(image: Array, u: float, v: float, reflected: bool = False) -> float:
    """Bilinear at (u, v), -1 and 1 being the image's borders; outside it is 0 or reflected at the border."""
    height, width = image.shape
    column, row = ((u + 1) * width - 1) / 2, ((v + 1) * height - 1) / 2
    if reflected:
        column, row = mirrored(column, width), mirrored(row, height)
    total = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < height and 0 <= c < width:
                total += image[r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def mirrored(place: float, size: int) -> float:
    while not -0.5 <= place <= size - 0.5:
        place = -1 - place if place < -0.5 else 2 * size - 1 - place
    return min(max(place, 0), size - 1)


def naive(i: int, size: int, pixel_centred: bool) -> float:
    return (2 * i + 1) / size - 1 if pixel_centred else 2 * i / size - 1


def slow_glitch(x: Array, latent: Array, scene: tuple[Array, ...], pixel_centred: bool = False) -> Array:
    _, height, width = x.shape
    out = np.empty_like(x)
    for c, i, j in np.ndindex(*x.shape):
        u = naive(j, width, pixel_centred) + latent[c, i * 16 // height]
        out[c, i, j] = sampled(x[c], u, naive(i, height, pixel_centred), reflected=True)
    return out


def slow_klotski(x: Array, latent: Array, scene: tuple[Array, ...], pixel_centred: bool = False) -> Array:
    _, height, width = x.shape
    out = np.empty_like(x)
    for c, i, j in np.ndindex(*x.shape):
        block = i * 8 // height, j * 8 // width
        u = naive(j, width, pixel_centred) + latent[0, *block]
        v = naive(i, height, pixel_centred) + latent[1, *block]
        out[c, i, j] = sampled(x[c], u, v)
    return out


def slow_whirlpool(
    x: Array, latent: Array, scene: tuple[Array, ...], pixel_centred: bool = False, as_published: bool = False
) -> Array:
    """The scene holds the pixels' places as seen from each centre."""
    across, down = scene[0][:, 0, 0, :], scene[0][:, 1, :, 0]
    _, height, width = x.shape
    out = np.empty_like(x)
    for i in range(height):
        for j in range(width):
            moves = []
            for k, strength in enumerate(latent):
                dx, dy = across[k, j], down[k, i]
                r = math.sqrt(dx * dx + dy * dy)
                theta = (abs(strength) + 0.5) * math.exp(-r / (0.5 / 5 * math.log(2))) + math.atan2(dy, dx)
                moves.append((r * math.cos(theta) - dx, r * math.sin(theta) - dy))
            move = max(moves, key=lambda d: math.hypot(*d))
            if as_published:
                move = max(d[0] for d in moves), max(d[1] for d in moves)
            u, v = naive(j, width, pixel_centred) + move[0], naive(i, height, pixel_centred) + move[1]
            out[:, i, j] = [sampled(channel, u, v) for channel in x]
    return out


SLOW: dict[str, Callable[[Array, Array, tuple[Array, ...]], Array]] = {
    "wood": slow_wood,
    "snow": slow_snow,
    "gabor": slow_gabor,
    "glitch": slow_glitch,
    "klotski": slow_klotski,
    "whirlpool": slow_whirlpool,
}


def expected(slow: Callable[..., Array], x: Tensor, latent: Tensor, scene: Scene, **knobs: Any) -> Tensor:
    parts = [[part[i].double().numpy() for part in (x, latent, *scene)] for i in range(len(x))]
    return torch.tensor(np.array([slow(one, at, tuple(rest), **knobs) for one, at, *rest in parts]))


def wild(attack: LatentAttack, latent: Tensor, scene: Scene, scale: float = 2.0) -> Tensor:
    """A latent of the budget whose sign and size differ from place to place."""
    drawn = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    return attack.project(drawn * scale * attack.epsilon, scene)


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 12, 18), (1, 28, 28)])
def test_render(name: str, shape: tuple[int, int, int]) -> None:
    """Wood is compared by its eighth power: where a ring is black, its eighth root multiplies round-off."""
    attack, x = semantic(name), images(2, *shape)
    latent, scene = attack.start(x, torch.tensor([3, 4]))
    power = 8 if name == "wood" else 1
    for one in (latent, wild(attack, latent, scene)):
        rendered = attack.render(x, one, scene).double()
        assert (rendered - x).abs().mean() > 1e-3
        slow = expected(SLOW[name], x, one, scene)
        torch.testing.assert_close(rendered**power, slow**power, rtol=0, atol=4e-6)


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("glitch", {"pixel_centred": True}),
        ("klotski", {"pixel_centred": True}),
        ("whirlpool", {"pixel_centred": True}),
        ("whirlpool", {"as_published": True}),
        ("whirlpool", {"as_published": True, "pixel_centred": True}),
    ],
)
def test_render_of_the_options(name: str, knobs: dict[str, bool]) -> None:
    attack, x = semantic(name, **knobs), images(2, 3, 12, 18)
    latent, scene = attack.start(x, torch.tensor([3, 4]))
    rendered = attack.render(x, latent, scene).double()
    torch.testing.assert_close(rendered, expected(SLOW[name], x, latent, scene, **knobs), rtol=0, atol=4e-6)
    default = semantic(name)
    assert (default.render(x, latent, default.start(x, torch.tensor([3, 4]))[1]) - rendered).abs().mean() > 1e-3


@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_wood_in_float64(floor: float) -> None:
    """The eighth root of 1.000001 is 1.25e-7 above 1, which the run cuts off, not the render."""
    attack, x = semantic("wood", as_published=floor == 0), images(2, 3, 12, 28).double()
    latent = wild(attack, torch.zeros(2, 1, 16, 16), ()).double()
    for one in (latent, latent * 0):
        rendered = attack.render(x, one, ())
        torch.testing.assert_close(rendered, expected(slow_wood, x, one, (), floor=floor), rtol=0, atol=1.3e-7)


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("knobs", [{}, {"as_published": True}, {"pixel_centred": True}])
def test_gradient(name: str, knobs: dict[str, bool]) -> None:
    """In float64 by differences, at a generic latent small enough that the image is nowhere cut to [0, 1]."""
    known = {field.name for field in dataclasses.fields(semantic(name))}
    if not set(knobs) <= known:
        return
    attack, x = semantic(name, **knobs), 0.3 + 0.3 * images(1, 3, 6, 8)
    latent, scene = attack.start(x, torch.tensor([3]))
    if name == "snow":  # one flake in three lives, else this image might have none
        scene = ((torch.arange(latent.numel()).reshape(latent.shape) % 3 == 0).float(), *scene[1:])
    scale = {"snow": 0.1, "gabor": 0.2, "whirlpool": 0.02}.get(name, 1.0)
    latent = wild(attack, latent, scene, scale).double().requires_grad_()
    fixed = tuple(part.double() for part in scene)

    def render(one: Tensor) -> Tensor:
        return attack.render(x.double(), one, fixed)

    assert torch.autograd.gradcheck(render, latent, raise_exception=True)
    rendered = render(latent)
    assert rendered.detach().sub(0.5).abs().max() < 0.5
    (grad,) = torch.autograd.grad(rendered.sum(), latent)
    live = {"snow": 0.3, "gabor": 0.08, "klotski": 0.6, "glitch": 0.3, "wood": 0.4}.get(name, 0.9)
    assert (grad != 0).double().mean() >= live


L2 = {"snow", "whirlpool"}


@pytest.mark.parametrize("name", SLOW)
def test_latent_budget(name: str) -> None:
    attack, x = semantic(name), images(8)
    latent, scene = attack.start(x, torch.arange(8))
    order = 2 if name in L2 else torch.inf
    far = wild(attack, latent, scene, 10)
    for one in (latent, attack.project(latent, scene), far):
        reached = torch.linalg.vector_norm(one.double().flatten(1), ord=order, dim=1)
        assert (reached <= attack.epsilon * (1 + 1e-6)).all()
    assert far.min() < 0 < far.max()
    assert torch.equal(attack.project(far * 0.5, scene), far * 0.5)


SHAPES: dict[str, tuple[int, ...]] = {"wood": (1, 16, 16), "snow": (5, 28, 20), "gabor": (3, 28, 20)}
SHAPES |= {"glitch": (3, 16), "klotski": (2, 8, 8), "whirlpool": (8,)}


@pytest.mark.parametrize("name", SLOW)
def test_latent_shape(name: str) -> None:
    assert semantic(name).start(images(2, 3, 28, 20), torch.arange(2))[0].shape == (2, *SHAPES[name])


@pytest.mark.parametrize("name", ["glitch", "klotski"])
def test_starts_between_nothing_and_epsilon(name: str) -> None:
    latent, _ = semantic(name, epsilon=0.5).start(images(64), torch.arange(64))
    assert latent.min() >= 0
    assert latent.max() > 0.49
    assert latent.mean() == pytest.approx(0.25, abs=0.02)


def test_wood_at_rest() -> None:
    """By measurement the published rings leave .919 of a 32x32 image; the start is 0, or random by option."""
    attack, white = semantic("wood"), torch.ones(2, 3, 32, 32)
    latent, _ = attack.start(white, torch.arange(2))
    assert not latent.any()
    assert attack.render(white, latent, ()).mean() == pytest.approx(0.919, abs=1e-3)
    latent, _ = semantic("wood", random_start=True).start(images(64), torch.arange(64))
    assert latent.min() >= 0
    assert 0.049 < latent.max() < 0.05
    assert latent.mean() == pytest.approx(0.025, abs=0.002)


def test_wood_centre_is_alive(toy: Toy) -> None:
    """As published its slope is NaN, and the four latents around it stay where they started; here they move."""
    centre = torch.zeros(16, 16, dtype=torch.bool)
    centre[7:9, 7:9] = True
    for as_published in (False, True):
        attack = semantic("wood", as_published=as_published, num_steps=3)
        start = torch.zeros(4, 1, 16, 16, requires_grad=True)
        (grad,) = torch.autograd.grad(attack.render(toy.x, start, ()).sum(), start)
        assert torch.equal(grad.isnan()[:, 0], (centre & as_published).expand(4, 16, 16))
        moved = last_latent(attack, toy)[:, 0] != 0
        assert moved[:, ~centre].float().mean() > 0.9
        assert moved[:, centre].any() != as_published


def last_latent(attack: LatentAttack, toy: Toy) -> Tensor:
    seen: list[Tensor] = []
    render = attack.render

    def spy(x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        seen.append(latent.detach().clone())
        return render(x, latent, scene)

    object.__setattr__(attack, "render", spy)
    attack(toy.net, toy.x, toy.y, seeds=toy.seeds)
    return seen[-1]


def test_snow_draws() -> None:
    """Flakes, strokes and mirrors by their published chances, each image its own."""
    x = images(64)
    attack = semantic("snow")
    latent, (mask, strokes, _) = attack.start(x, torch.arange(64))
    assert ((mask == 0) | (mask == 1)).all()
    counts = mask.flatten(1).sum(1)
    assert mask.mean() == pytest.approx(0.01, abs=5e-4)
    assert 4 < counts.std() < 11, "independent draws spread by 7.1 around 51"
    assert torch.equal(latent != 0, mask == 1)
    diagonal, mirror, sides = strokes.unbind(1)
    assert torch.equal(diagonal + mirror, torch.ones(64, 5))
    assert torch.equal(mirror, mirror[:, :1].expand(-1, 5)), "one coin for an image"
    assert mirror[:, 0].mean() == pytest.approx(0.5, abs=0.2)
    thin = (sides - math.sqrt(2) / 4).abs() < 1e-6
    assert (thin | (sides == 1)).all()
    assert thin.float().mean() == pytest.approx(0.6, abs=0.1)
    assert (thin.sum(1) % 5).any(), "a stroke for each layer"


def test_snow_starts_as_published() -> None:
    """exp(-U / 5) of 5 x 32 x 32 has a norm near 64.9; scaled to epsilon, then masked to a tenth of that norm."""
    attack = semantic("snow")
    latent, (mask, _, _) = attack.start(images(16), torch.arange(16))
    live = latent[mask == 1]
    assert live.min() == pytest.approx(4 * math.exp(-0.2) / 64.9, rel=0.01)
    assert live.max() == pytest.approx(4 / 64.9, rel=0.01)
    assert latent.flatten(1).norm(dim=1).max() < 0.15 * 4


def test_snow_channels() -> None:
    with pytest.raises(InputError, match=r"expected 1 or 3 channels, got 2 \(attacks.snow\)"):
        semantic("snow").start(images(1, 2), torch.arange(1))


def test_gabor_draws() -> None:
    """Exactly 10 % live, all equal, by a scale, an angle and a wave length for each image."""
    attack = semantic("gabor")
    for shape, count in (((3, 32, 32), 307), ((1, 28, 28), 78)):
        latent, (live, *_, draws) = attack.start(images(64, *shape), torch.arange(64))
        assert torch.equal(live.flatten(1).sum(1), torch.full((64,), float(count)))
        assert torch.equal(latent != 0, live == 1)
        scale = latent.flatten(1).amax(1)
        assert torch.equal(latent, scale[:, None, None, None] * live)
        assert ((scale > 0) & (scale < 0.03)).all()
        assert scale.mean() == pytest.approx(0.015, abs=0.004)
        assert scale.std() > 0.006
        assert draws.shape == (64, 1, 2)
        assert draws.std(0).min() > 0.2
        assert 0 <= draws.min() < draws.max() < 1
    overlap = (live[0] * live[1]).sum()
    assert overlap < 25, "8 expected"


def test_gabor_kernel() -> None:
    """The largest weight is 1 + 2 / 3, in the middle, and the envelope hardly falls."""
    attack, x = semantic("gabor"), torch.full((1, 1, 32, 32), 0.5)
    _, scene = attack.start(x, torch.arange(1))
    one = torch.zeros_like(x)
    one[0, 0, 16, 16] = 0.1
    drawn = (attack.render(x, one, (torch.ones_like(x), *scene[1:])) - x)[0, 0] / 0.1
    assert drawn[16, 16] == pytest.approx(5 / 3, abs=1e-5)
    assert drawn.abs().max() == drawn[16, 16]
    outside = torch.ones(32, 32, dtype=torch.bool)
    outside[5:28, 5:28] = False
    assert drawn[outside].abs().max() < 1e-6
    assert drawn[5, 5:28].abs().max() > 0.01


def test_gabor_as_published_redraws_at_every_render(toy: Toy) -> None:
    attack = semantic("gabor", as_published=True, num_steps=3)
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return toy.net(x) * 0  # type: ignore[no-any-return]  # no gradient: the latent stays

    x_adv = attack(model, toy.x, toy.y, seeds=toy.seeds)
    latent, scene = attack.start(toy.x, toy.seeds)
    assert scene[3].shape == (4, 4, 2)
    for number, image in enumerate([*seen, x_adv]):
        slow = expected(slow_gabor, toy.x[:1], latent[:1], tuple(part[:1] for part in scene), render=number)
        torch.testing.assert_close(image[:1].double(), slow, rtol=0, atol=4e-6)
    assert all((a - b).abs().mean() > 0.01 for a, b in zip(seen, [*seen[1:], x_adv], strict=True))


@pytest.mark.parametrize(
    ("name", "knob"),
    [
        ("wood", "as_published"),
        ("gabor", "as_published"),
        ("whirlpool", "as_published"),
        ("whirlpool", "pixel_centred"),
        ("glitch", "pixel_centred"),
        ("klotski", "pixel_centred"),
    ],
)
def test_options_keep_the_contract(name: str, knob: str, toy: Toy) -> None:
    """The same bits from the same seeds, from any batch; another image than without the option."""
    attack = semantic(name, **{knob: True}).with_steps(4)
    weights = torch.randn(3 * 32 * 32, 5, generator=torch.Generator().manual_seed(0)) / 300

    def model(x: Tensor) -> Tensor:
        return (x.flatten(1)[:, :, None] * weights).sum(1)

    whole = attack(model, toy.x, toy.y, seeds=toy.seeds)
    assert torch.equal(whole, attack(model, toy.x, toy.y, seeds=toy.seeds))
    for part in ([0], [3, 1]):
        alone = attack(model, toy.x[part], toy.y[part], seeds=toy.seeds[part])
        assert ((alone - whole[part]).abs() > 1e-4).float().mean() < 0.01
    assert whole.isfinite().all()
    assert not torch.equal(whole, semantic(name).with_steps(4)(model, toy.x, toy.y, seeds=toy.seeds))


def half_a_pixel_off(x: Tensor, mode: str) -> Tensor:
    """The mean of each pixel and its neighbours to the left, above, and both."""
    padded = torch.nn.functional.pad(x, (1, 0, 1, 0), mode=mode)
    return (padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]) / 4


@pytest.mark.parametrize(("name", "mode"), [("glitch", "replicate"), ("klotski", "constant")])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 9, 14)])
def test_no_shift(name: str, mode: str, shape: tuple[int, int, int]) -> None:
    """The published grid is half a pixel off, exactly a 2x2 mean; the centred one is the identity."""
    x = images(2, *shape)
    latent, _ = semantic(name).start(x, torch.arange(2))
    for centred, wanted in ((False, half_a_pixel_off(x, mode)), (True, x)):
        rendered = semantic(name, pixel_centred=centred).render(x, latent * 0, ())
        torch.testing.assert_close(rendered, wanted, rtol=0, atol=3e-6)


def test_blocks() -> None:
    """28 lines in 16 bands or 8 blocks: none is empty, and the sizes are as even as can be."""
    for size, count in ((32, 16), (28, 16), (28, 8), (64, 8), (5, 8)):
        table = warp.blocks(size, count, torch.device("cpu"))
        assert torch.equal(table.sum(1), torch.ones(size))
        assert table.argmax(1).tolist() == sorted(table.argmax(1).tolist())
        lines = table.sum(0)
        assert lines.min() >= size // count
        assert lines.max() <= -(-size // count)


def test_whirlpool_draws() -> None:
    """Centres uniform in the image; strengths of norm epsilon * s, s uniform, all by image."""
    attack, x = semantic("whirlpool"), images(64, 1, 12, 18)
    latent, (offset, distance, reach) = attack.start(x, torch.arange(64))
    rows, columns = torch.meshgrid(torch.arange(12) / 6 - 1, torch.arange(18) / 9 - 1, indexing="ij")
    grid = torch.stack([columns, rows])
    places = (grid - offset).mean((3, 4))
    assert places.shape == (64, 8, 2)
    torch.testing.assert_close(offset, grid - places[..., None, None])
    torch.testing.assert_close(distance[:, :, 0], torch.hypot(*offset.unbind(2)))
    assert -1 <= places.min() < -0.95 < 0.95 < places.max() <= 1
    assert places.mean((0, 1)).abs().max() < 0.1
    assert (places.std((0, 1)) - 3**-0.5).abs().max() < 0.05
    torch.testing.assert_close(reach, torch.exp(-distance / (0.1 * math.log(2))))
    norm = latent.norm(dim=1) / attack.epsilon
    assert 0 <= norm.min() < 0.1 < 0.9 < norm.max() < 1
    assert latent.min() >= 0


def test_whirlpool_as_published_loses_what_goes_left_or_up() -> None:
    """A quarter turn of the pixel that a centre sees on its right and one that it sees above; the others stay."""
    x = images(1, 1, 1, 2)
    offset = torch.zeros(1, 8, 2, 1, 2)
    offset[0, 3, 0, 0, 0], offset[0, 3, 1, 0, 1] = 0.5, -0.5
    scene = offset, offset.norm(dim=2, keepdim=True), torch.ones(1, 8, 1, 1, 2)
    latent = torch.full((1, 8), math.pi / 2 - 0.5)
    moves = [(-0.5, 0.5), (0.5, 0.5)]  # on the screen y points down: from the right to below, from above to the right
    for as_published in (False, True):
        seen = semantic("whirlpool", as_published=as_published).render(x, latent, scene)
        for j, (across, down) in enumerate(moves):
            across = max(across, 0) if as_published else across
            wanted = sampled(x[0, 0].double().numpy(), j - 1 + across, -1 + down)
            assert seen[0, 0, 0, j] == pytest.approx(wanted, abs=1e-6)
