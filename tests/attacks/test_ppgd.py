"""PPGD and its distance: against the definitions in float64, and against the published algorithm for strength."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from attack_toys import images, small_net
from digits_net import trained
from test_kernels import WAITS, Kernels, network, network_step
from torch import Tensor, nn
from torch.nn import functional as F

import attacks
from attacks import noise
from attacks.errors import InputError
from attacks.losses import margin
from attacks.perceptual.alexnet import AlexNetFeatures
from attacks.perceptual.distance import embed, lpips
from attacks.perceptual.ppgd import PPGD


class Shown(nn.Module):
    """A sequential network whose first two activations are its features; it counts what it is asked."""

    def __init__(self, net: nn.Module, ends: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.ends, self.asked = net, ends, Counter[str]()

    def forward(self, x: Tensor) -> Tensor:
        self.asked["logits"] += 1
        return self.net(x)  # type: ignore[no-any-return]

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        self.asked["features"] += 1
        first, second = self.ends
        early = self.net[:first](x)  # type: ignore[index]
        return early, self.net[first:second](early)  # type: ignore[index]


class Layers(nn.Module):
    """Two layers of features for images of up to three channels, nowhere flat."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Parameter(torch.randn(8, 3, 3, 3, generator=generator) / 3)
        self.second = nn.Parameter(torch.randn(12, 8, 3, 3, generator=generator) / 8)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        out = self.drop(F.softplus(self.norm(F.conv2d(x, self.first[:, : x.shape[1]], padding=1))))
        return out, F.softplus(F.conv2d(out, self.second, stride=2))


@functools.cache
def digits(count: int = 40) -> tuple[Shown, Tensor, Tensor, Tensor]:
    """The trained network, images of 8x8 that it gets right, labels, seeds."""
    net, x, y = trained()
    right = net(x).argmax(1) == y
    return Shown(net, (2, 4)), x[right][:count], y[right][:count], torch.arange(count) * 31 + 7


def exactly(net: Any, x: Tensor, y: Tensor) -> Tensor:
    """d(x, y) in float64."""
    return lpips(copy.deepcopy(net).double(), x.double(), y.double())


def iterates(attack: PPGD, net: nn.Module, x: Tensor, y: Tensor, seeds: Tensor) -> list[Tensor]:
    """What the model is asked about, the result last; distances by the same network."""
    seen: list[Tensor] = []

    def model(z: Tensor) -> Tensor:
        seen.append(z.detach().clone())
        return net(z)  # type: ignore[no-any-return]

    result = attack.bind(net)(model, x, y, seeds=seeds)
    return [*seen, result]


# ---- the distance


def test_the_distance_is_the_papers() -> None:
    """Written out cell by cell in float64."""
    net, x, z = Layers().double().eval(), images(2, 3, 12, 10).double(), images(2, 3, 12, 10, seed=1).double()
    with torch.no_grad():
        pairs = [(a.numpy(), b.numpy()) for a, b in zip(net.features(x), net.features(z), strict=True)]
    for image in range(2):
        total = 0.0
        for one, other in pairs:
            height, width = one.shape[2:]
            for cell in np.ndindex(height, width):
                a, b = (layer[(image, slice(None), *cell)] for layer in (one, other))
                gap = a / (np.sqrt((a**2).sum()) + 1e-10) - b / (np.sqrt((b**2).sum()) + 1e-10)
                total += (gap**2).sum() / (height * width)
        assert lpips(net, x, z)[image].item() == pytest.approx(math.sqrt(total), rel=1e-9)
    assert torch.equal(lpips(net, x, x), torch.zeros(2, dtype=torch.float64))


def test_the_distance_is_in_eval_mode_and_differentiable() -> None:
    net, x, z = Layers().train(), images(2), images(2, seed=1)
    net.drop.eval()
    precision, buffers = torch.backends.cudnn.conv.fp32_precision, copy.deepcopy(net.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = lpips(net, x.requires_grad_(), z)
    assert first.dtype == torch.float32
    assert torch.equal(first, lpips(net, x, z))
    assert torch.autograd.grad(first.sum(), x)[0].abs().sum() > 0
    assert (net.training, net.norm.training, net.drop.training) == (True, True, False)
    assert torch.backends.cudnn.conv.fp32_precision == precision
    assert all(torch.equal(value, buffers[name]) for name, value in net.state_dict().items())
    assert not lpips(net, x, x).sum().isnan()
    assert torch.equal(torch.autograd.grad(lpips(net, x, x.detach()).sum(), x)[0], torch.zeros_like(x))


def test_an_activation_of_zeros_is_no_nan() -> None:
    class Zeros(nn.Module):
        def features(self, x: Tensor) -> tuple[Tensor, ...]:
            return F.relu(x - 0.5), F.relu(x - 2)

    x = images(2).requires_grad_()
    phi = embed(Zeros(), x)
    assert phi.isfinite().all()
    assert torch.autograd.grad(phi.sum(), x)[0].isfinite().all()


# ---- the ball


@pytest.mark.parametrize(("epsilon", "num_steps"), [(0.05, 3), (0.3, 5), (0.3, 40), (1.0, 8), (3.0, 4)])
def test_every_evaluated_image_is_in_the_ball(epsilon: float, num_steps: int) -> None:
    net, x, y, seeds = digits()
    seen = iterates(PPGD(epsilon=epsilon, num_steps=num_steps), net, x, y, seeds)
    assert len(seen) == num_steps + 1
    for z in seen:
        assert z.min() >= 0
        assert z.max() <= 1
        assert exactly(net, x, z).max() <= epsilon * (1 + 1e-4)
    if epsilon == 0.05:
        assert exactly(net, x, seen[-1]).mean() > 0.85 * epsilon, "and not far from the edge where it binds"


def test_it_is_in_the_ball_of_the_reference_not_of_the_model() -> None:
    net, x, y, seeds = digits()
    other = Layers()
    x_adv = PPGD(epsilon=0.3, num_steps=5).bind(other)(net, x, y, seeds=seeds)
    assert exactly(other.eval(), x, x_adv).max() <= 0.3 * (1 + 1e-4)
    assert exactly(net, x, x_adv).max() > 0.3
    assert not torch.equal(x_adv, PPGD(epsilon=0.3, num_steps=5)(net, x, y, seeds=seeds))


def test_a_start_outside_is_brought_in() -> None:
    net, x, y, seeds = digits()
    far = lpips(net, x, (x + 0.01 * noise.normal(seeds, 0, x.shape[1:])).clamp(0, 1))
    epsilon = float(far.median()) / 3
    start = iterates(PPGD(epsilon=epsilon, num_steps=1), net, x, y, seeds)[0]
    assert exactly(net, x, start).max() <= epsilon * (1 + 1e-4)
    assert (exactly(net, x, start) > 0.05 * epsilon).all()


def test_the_start_is_the_papers_where_it_is_inside() -> None:
    net, x, y, seeds = digits()
    start = iterates(PPGD(epsilon=2.0, num_steps=1), net, x, y, seeds)[0]
    torch.testing.assert_close(start, (x + 0.01 * noise.normal(seeds, 0, (1, 8, 8))).clamp(0, 1))


@pytest.mark.parametrize("decay", [False, True])
def test_steps_have_the_papers_lengths(decay: bool) -> None:
    """Far inside the ball, measured by what a step changed: phi bends, so to a fifth."""
    net, x, y, seeds = digits()
    attack = PPGD(epsilon=1.0, num_steps=50, decay_step_size=decay)
    seen = iterates(replace(attack, kappa=math.inf), net, x, y, seeds)[:4]
    for step in range(3):
        length = 0.1 ** (step / 50) if decay else 2 / 50
        if not decay:
            assert float(lpips(net, seen[step], seen[step + 1]).median()) == pytest.approx(length, rel=0.2)
        else:
            assert attack._length(step) == pytest.approx(length)


# ---- the direction


def test_the_direction_is_that_of_conjugate_gradients() -> None:
    """The textbook's five iterations on the exact J'J in float64."""
    net = Layers().eval()
    x = images(1, 1, 7, 6)
    grad = torch.randn(1, 1, 7, 6, generator=torch.Generator().manual_seed(0))
    grad /= grad.norm()
    dense = torch.autograd.functional.jacobian(lambda z: embed(copy.deepcopy(net).double(), z), x.double())
    jacobian = dense.reshape(-1, 42).numpy()  # type: ignore[union-attr]
    wanted = conjugate_gradients(jacobian.T @ jacobian, grad.double().flatten().numpy(), 5)
    attack = PPGD(epsilon=1.0, num_steps=1, features=net)
    leaf = x.clone().requires_grad_()
    way, change = attack._solve(leaf, embed(net, leaf), grad)
    got = way.detach().double().flatten().numpy()
    assert np.linalg.norm(got - wanted) < 0.03 * np.linalg.norm(wanted)
    assert np.linalg.norm(change.detach().numpy()[0] - jacobian @ wanted) < 0.03 * np.linalg.norm(jacobian @ wanted)


def conjugate_gradients(a: Any, b: Any, iterations: int) -> Any:
    v, r = np.zeros_like(b), b.copy()
    p = r.copy()
    for _ in range(iterations):
        alpha = (r @ r) / (p @ a @ p)
        v, after = v + alpha * p, r - alpha * (a @ p)
        p, r = after + (after @ after) / (r @ r) * p, after
    return v


# ---- strength


def published(net: Any, x: Tensor, y: int, epsilon: float, num_steps: int, start: Tensor) -> Tensor:
    """The published algorithm in float64 on one image (1, C, H, W), with its guards, early exits and leaps inwards."""
    clean, h = embed(net, x).detach(), 1e-3

    def distance(z: Tensor) -> Tensor:
        return (embed(net, z) - clean).norm()

    def project(z: Tensor) -> Tensor:
        for _ in range(10):
            z = z.detach().requires_grad_()
            d = distance(z)
            if d <= epsilon:
                return z.detach()
            (g,) = torch.autograd.grad(d, z)
            net.asked["backward"] += 1
            z = (z - (d - epsilon + 0.1) * 1.1 * g / g.square().sum()).detach().clamp(0, 1)
        low, high, point = 0.0, 1.0, z
        if distance(z) > epsilon:
            for _ in range(10):
                middle = (low + high) / 2
                point = x + middle * (z - x)
                low, high = (low, middle) if distance(point) > epsilon else (middle, high)
        return point.detach()

    def step(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        (g,) = torch.autograd.grad(margin(net(z), torch.tensor([y])).clamp_max(1).sum(), z)
        net.asked["backward"] += 1
        if g.abs().max() < 1e-4:
            return z.detach()
        phi, v, r, p = embed(net, z), torch.zeros_like(g), g, g
        for _ in range(5):
            product = ((embed(net, z + h * p) - phi) / h).detach()
            (a_p,) = torch.autograd.grad(phi, z, product, retain_graph=True)
            net.asked["backward"] += 1
            alpha = r.square().sum() / (p * a_p).sum()
            v, after = v + alpha * p, r - alpha * a_p
            if after.square().sum() < 0.1:
                break
            p, r = after + after.square().sum() / r.square().sum() * p, after
        size = ((embed(net, z + h * v) - phi) / h).norm()
        return (z + v * 2 * epsilon / num_steps / size).detach().clamp(0, 1)

    z = x + start
    for _ in range(num_steps):
        z = project(step(z))
    return project(z).clamp(0, 1)


@pytest.mark.parametrize(("epsilon", "num_steps"), [(0.1, 5), (0.2, 5), (0.2, 12)])
def test_it_is_stronger_than_the_published_algorithm_and_no_dearer(epsilon: float, num_steps: int) -> None:
    net, x, y, seeds = digits()
    start = 0.01 * noise.normal(seeds, 0, (1, 8, 8)).double()
    exact, cheap = Shown(copy.deepcopy(net.net).double(), (2, 4)), Shown(net.net, (2, 4))
    theirs = [
        published(exact, x[i : i + 1].double(), int(y[i]), epsilon, num_steps, start[i : i + 1]) for i in range(len(x))
    ]
    reached = margin(exact(torch.cat(theirs)), y)
    dear = sum(exact.asked.values()) / len(x)
    attack = PPGD(epsilon=epsilon, num_steps=num_steps)
    ours = margin(net(attack(cheap, x, y, seeds=seeds)), y)
    assert ours.clamp_max(1).mean() > reached.clamp_max(1).mean() + 0.3
    assert (ours < 0).sum() <= (reached < 0).sum()
    backwards = num_steps * (1 + attack.cg_iterations - 1)
    assert sum(cheap.asked.values()) + backwards < dear + 3
    least = margin(net(replace(attack, cg_iterations=1)(net, x, y, seeds=seeds)), y)
    assert least.clamp_max(1).mean() > reached.clamp_max(1).mean()


def test_more_budget_and_more_iterations_are_stronger() -> None:
    net, x, y, seeds = digits()

    def reached(**settings: Any) -> float:
        return float(margin(net(PPGD(**settings)(net, x, y, seeds=seeds)), y).clamp_max(1).mean())

    low, medium, high = (reached(epsilon=epsilon, num_steps=5) for epsilon in (0.1, 0.2, 0.4))
    assert low < medium < high
    assert reached(epsilon=0.2, num_steps=5, cg_iterations=1) < medium
    assert reached(epsilon=0.2, num_steps=20) > medium


def test_keep_best_keeps_the_highest_loss() -> None:
    net, x, y, seeds = digits()
    losses: list[Tensor] = []

    def model(z: Tensor) -> Tensor:
        logits = net(z)
        losses.append(margin(logits.detach(), y).clamp_max(1))
        return logits  # type: ignore[no-any-return]

    view = PPGD(epsilon=0.3, num_steps=6, keep_best=True, features=net).run(model, x, y, seeds=seeds)
    assert len(losses) == 7
    assert torch.equal(view.loss, torch.stack(losses).amax(0))
    torch.testing.assert_close(margin(net(view.x), y).clamp_max(1), view.loss)


# ---- what must not happen


def test_no_gradient_no_move() -> None:
    """The loss is capped at kappa: an image that reached it stays, whatever the others in its batch do."""
    net, x, y, seeds = digits()
    seen = iterates(PPGD(epsilon=1.0, num_steps=8, kappa=0.5), net, x, y, seeds)
    done = margin(net(seen[0]), y) > 0.5
    for before, after in itertools.pairwise(seen):
        still = (before == after).flatten(1).all(1)
        assert torch.equal(still, done)
        done = done | (margin(net(after), y) > 0.5)
    assert done.sum() > 0
    flat = iterates(PPGD(epsilon=1.0, num_steps=3), net, x, y, seeds)[0]
    assert torch.equal(PPGD(epsilon=1.0, num_steps=3).bind(net)(lambda z: net(z) * 0, x, y, seeds=seeds), flat)


class Hostile(nn.Module):
    """Features that are flat, dead, exploding or not numbers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        layer = {
            "constant": lambda: x * 0 + 1,
            "dead": lambda: F.relu(x - 2),
            "nearly dead": lambda: F.relu(x - 0.999),
            "raw": lambda: x,
            "steep": lambda: torch.cat([x * 1e18, x.square() * 1e18], 1),
            "tiny": lambda: torch.cat([x * 1e-18, x.square() * 1e-18], 1),
            "nan": lambda: x * torch.nan,
            "root": lambda: torch.cat([x.sqrt(), 1 - x], 1),
        }[self.kind]
        return (layer(),)


@pytest.mark.parametrize("kind", ["constant", "dead", "nearly dead", "raw", "steep", "tiny", "nan", "root"])
@pytest.mark.parametrize("value", [None, 0.0, 1.0])
def test_hostile_features_leave_images(kind: str, value: float | None) -> None:
    x = images(3) if value is None else torch.full((3, 3, 32, 32), value)
    net, y, seeds = small_net(), torch.tensor([0, 1, 2]), torch.arange(3)
    view = PPGD(epsilon=0.5, num_steps=4, features=Hostile(kind)).run(net, x, y, seeds=seeds, final_forward=True)
    assert view.x.isfinite().all()
    assert view.x.min() >= 0
    assert view.x.max() <= 1
    assert view.loss.isfinite().all()
    if kind == "nan":
        assert torch.equal(view.x, x)


def test_a_direction_that_costs_nothing_is_taken() -> None:
    """Where phi sees half of the image, conjugate gradients come to a product of 0; what they had is used."""

    class Half(nn.Module):
        def features(self, x: Tensor) -> tuple[Tensor, ...]:
            return (torch.cat([x[..., :1], 1 - x[..., :1]], 1),)

    x, y = images(6, 1, 2, 2) * 0.5 + 0.25, torch.zeros(6, dtype=torch.int64)
    weights = torch.tensor([[1.0, 3.0], [2.0, -4.0]])

    def model(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0, 0, 0] * 0, (z[:, 0] * weights).sum((1, 2)) - 100], 1)

    attack = PPGD(epsilon=0.3, num_steps=5, cg_iterations=8, features=Half())
    x_adv = attack(model, x, y, seeds=y)
    assert (x_adv[..., 1] - torch.tensor([1.0, 0.0])).abs().max() < 0.2
    assert (exactly(Half(), x, x_adv) <= 0.3 * (1 + 1e-4)).all()
    assert (exactly(Half(), x, x_adv) > 0.01).all()


def test_an_untrained_network_over_many_steps() -> None:
    """Where the published code came to NaN."""
    net = Shown(small_net(), (3, 5)).train()
    x = images(8)
    x[0], x[1] = 0, 0.5
    y = torch.arange(8) % 5
    view = PPGD(epsilon=0.5, num_steps=40).run(net, x, y, seeds=y, final_forward=True)
    assert view.x.isfinite().all()
    assert exactly(net, x, view.x).max() <= 0.5 * (1 + 1e-4)


def test_an_image_does_not_depend_on_its_batch() -> None:
    net, x, y, seeds = digits()
    attack = PPGD(epsilon=0.2, num_steps=6, features=net)
    whole = attack.run(net, x, y, seeds=seeds, final_forward=True)
    for rows in (slice(0, 1), slice(1, 7), slice(3, 40)):
        part = attack.run(net, x[rows], y[rows], seeds=seeds[rows], final_forward=True)
        torch.testing.assert_close(part.x, whole.x[rows], rtol=0, atol=2e-3)
        assert torch.equal(part.robust_all, whole.robust_all[rows])


def test_what_broke_an_image_is_in_the_ball() -> None:
    net, x, y, seeds = digits()
    attack = PPGD(epsilon=0.3, num_steps=12)
    full, some = (
        attack.run(net, x, y, seeds=seeds, final_forward=True, stop_when_broken=stop) for stop in (False, True)
    )
    assert torch.equal(full.robust_all, some.robust_all)
    assert 0.1 < some.robust_all.float().mean() < 0.9
    assert (net(some.x).argmax(1) != y)[~some.robust_all].all()
    assert exactly(net, x, some.x).max() <= 0.3 * (1 + 1e-4)


# ---- the reference


def test_the_reference_is_left_alone() -> None:
    net, reference = small_net(), Layers().train()
    reference.norm.eval()
    reference.first.grad = torch.ones_like(reference.first)
    before = copy.deepcopy(reference.state_dict())
    PPGD(epsilon=0.5, num_steps=2).bind(reference)(net, images(2), torch.tensor([0, 1]), seeds=torch.arange(2))
    assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())
    assert (reference.training, reference.norm.training, reference.drop.training) == (True, False, True)
    assert torch.equal(reference.first.grad, torch.ones_like(reference.first))
    assert reference.second.grad is None
    assert reference.second.requires_grad
    with pytest.raises(RuntimeError, match="channels"):
        PPGD(epsilon=0.5, num_steps=2).bind(reference)(net, images(2, 4), torch.tensor([0, 1]), seeds=torch.arange(2))
    assert (reference.training, reference.norm.training) == (True, False)


def test_bound_or_not() -> None:
    net, x, y, seeds = digits()
    attack = PPGD(epsilon=0.2, num_steps=2)
    bound = attack.bind(net)
    assert attack.features is None
    assert bound.features is net
    assert bound.bind(Layers()).features is not net
    assert "features" not in repr(bound)
    assert torch.equal(attack(net, x, y, seeds=seeds), bound(net, x, y, seeds=seeds))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attack(net, x, y, seeds=seeds).dtype == torch.float32
    given = replace(attack, features=AlexNetFeatures())
    assert given.bind(net) is given
    assert attack.bind(AlexNetFeatures()).bind(net).features is not net


def test_a_network_without_features_is_refused_with_the_remedy() -> None:
    attack, net, y = PPGD(epsilon=0.5, num_steps=1), nn.Flatten(), torch.tensor([0])
    for make in (lambda: attack.bind(net), lambda: attack(net, images(1), y, seeds=y)):
        with pytest.raises(InputError) as caught:
            make()
        assert str(caught.value) == (
            "expected a network with a method features(x), got Flatten: bind() a frozen network that has it, such as "
            "the starting model (attacks.ppgd)"
        )


def test_features_that_are_a_part_are_refused() -> None:
    """As torchvision's AlexNet and VGG have them."""
    net = nn.Module()
    net.features = nn.Conv2d(3, 4, 3)
    with pytest.raises(InputError, match="a tuple of activations"):
        PPGD(epsilon=0.5, num_steps=1).bind(net)(small_net(), images(1), torch.tensor([0]), seeds=torch.tensor([0]))


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"kappa": 0.0}, "kappa > 0"),
        ({"cg_iterations": 0}, "cg_iterations >= 1"),
        ({"projections": 0}, "projections >= 1"),
    ],
)
def test_impossible_knobs(knob: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"expected {message}, got 0 \(attacks.ppgd\)"):
        PPGD(epsilon=0.5, num_steps=1, **knob)


# ---- cost


class Plain(nn.Module):
    """Three layers of features, each of one kernel."""

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        return x * 2, x * 3, x * 4


def kernels(num_steps: int, batch: int, **knobs: Any) -> Counter[str]:
    attack = replace(attacks.get("ppgd"), num_steps=num_steps, features=Plain(), **knobs)
    x, y = images(batch), torch.zeros(batch, dtype=torch.int64)
    with Kernels() as counted:
        attack.run(network, x, y, seeds=y)
    return counted.seen


def embedding() -> tuple[int, int]:
    """Kernels of the embedding's forward and input-backward."""
    x = images(2).requires_grad_()
    with Kernels() as forward:
        phi = embed(Plain(), x)
    with Kernels() as backward:
        torch.autograd.grad(phi, x, phi.detach())
    return forward.seen.total(), backward.seen.total()


@pytest.mark.parametrize(("cg_iterations", "projections"), [(5, 2), (1, 2), (3, 4)])
def test_kernels_of_a_step(cg_iterations: int, projections: int) -> None:
    knobs = {"cg_iterations": cg_iterations, "projections": projections}
    few, many = kernels(2, 3, **knobs), kernels(4, 3, **knobs)
    step = (many.total() - few.total()) / 2
    forward, backward = embedding()
    of_networks = network_step() + (cg_iterations + 1 + projections) * forward + (cg_iterations - 1) * backward
    assert step <= of_networks + 45 + 36 * cg_iterations + 10 * projections, many - few
    assert few.total() - 2 * step <= (1 + projections) * forward + 55 + 10 * projections
    assert kernels(2, 7, **knobs) == few, "the number of kernels depends on the batch"
    assert not WAITS & set(many), "a step waits for the device"


def test_forwards_of_a_step() -> None:
    net, x, y, seeds = digits()
    net.asked.clear()
    PPGD(epsilon=0.2, num_steps=6, cg_iterations=4, projections=3)(net, x, y, seeds=seeds)
    assert net.asked == {"logits": 6, "features": 6 * (4 + 1 + 3) + 1 + 3}


# ---- AlexNet


SHAPES = {
    False: [(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)],
    True: [(64, 3, 3, 3), (192, 64, 3, 3), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)],
}


def weights(small: bool) -> dict[str, Tensor]:
    """Under torchvision's names, with a classifier that is not needed."""
    generator = torch.Generator().manual_seed(2)
    made = {"classifier.1.weight": torch.zeros(3, 3)}
    for place, shape in zip((0, 3, 6, 8, 10), SHAPES[small], strict=True):
        made[f"features.{place}.weight"] = torch.randn(shape, generator=generator) / math.prod(shape[1:]) ** 0.5
        made[f"features.{place}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    return made


def written_out(w: dict[str, Tensor], x: Tensor, small: bool) -> list[Tensor]:
    """torchvision's layers one after the other, as the indices in their names have them."""
    out = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    shown = []
    for index in range(12):
        if index in (2, 5):
            out = F.max_pool2d(out, 2) if small else F.max_pool2d(out, 3, 2)
        elif index in (0, 3, 6, 8, 10):
            stride, padding = {0: (2, 1) if small else (4, 2), 3: (1, 1) if small else (1, 2)}.get(index, (1, 1))
            out = F.conv2d(out, w[f"features.{index}.weight"], w[f"features.{index}.bias"], stride, padding)
        else:
            out = out.clamp_min(0)
            shown.append(out)
    return shown


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
def test_alexnet_from_a_file(small: bool, suffix: str, tmp_path: Path) -> None:
    w, path, x = weights(small), tmp_path / f"alexnet.{suffix}", images(2, 3, 40, 36)
    if suffix == "safetensors":
        safetensors.torch.save_file(w, path)
    else:
        torch.save(w if suffix == "pt" else {"model": w, "epoch": 3}, path)
    state = torch.get_rng_state()
    net = AlexNetFeatures.load(path)
    assert torch.equal(state, torch.get_rng_state())
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    for got, wanted in zip(net.features(x), written_out(w, x, small), strict=True):
        torch.testing.assert_close(got, wanted)
        assert got.min() == 0
    grey = images(2, 1, 40, 36)
    torch.testing.assert_close(net.features(grey), net.features(grey.expand(-1, 3, -1, -1)))


def test_an_attack_bounded_by_alexnet(tmp_path: Path) -> None:
    torch.save(weights(True), tmp_path / "a.pt")
    net, x, y = small_net(), images(2), torch.tensor([0, 1])
    attack = PPGD(epsilon=0.3, num_steps=2, features=AlexNetFeatures.load(tmp_path / "a.pt")).bind(net)
    x_adv = attack(net, x, y, seeds=y)
    assert 0.1 < exactly(attack.features, x, x_adv).max() <= 0.3 * (1 + 1e-4)


@pytest.mark.parametrize(("small", "shape"), [(False, (3, 30, 40)), (True, (3, 6, 9)), (True, (2, 32, 32))])
def test_images_that_alexnet_cannot_see_are_refused(small: bool, shape: tuple[int, int, int]) -> None:
    smallest = AlexNetFeatures(small).least
    assert AlexNetFeatures(small).features(images(1, 3, smallest, smallest))[-1].shape == (1, 256, 1, 1)
    with pytest.raises(InputError, match=r"expected images of 1 or 3 channels .*, got .* \(attacks.ppgd\)"):
        AlexNetFeatures(small).features(images(1, *shape))


def test_files_that_are_not_alexnet(tmp_path: Path) -> None:
    w = weights(True)
    missing = {name: tensor for name, tensor in w.items() if name != "features.6.bias"}
    cases: list[tuple[str, Any, str]] = [
        ("missing.pt", missing, r"expected features.6.bias of shape \(384,\), got nothing of that name"),
        ("wide.pt", w | {"features.3.weight": torch.zeros(192, 64, 5, 5)}, r"\(192, 64, 3, 3\), got \(192, 64, 5, 5\)"),
        ("whole.pt", w | {"features.0.bias": torch.zeros(64, dtype=torch.int64)}, r"got \(64,\) torch.int64"),
        ("other.pt", {}, r"expected features.0.weight of shape \(64, 3, 11, 11\), got nothing of that name"),
        ("list.pt", [1, 2], "expected AlexNet's weights by name, got a list"),
        ("code.pt", AlexNetFeatures(True), "expected AlexNet's weights as .safetensors, .pt or .pth"),
    ]
    for name, content, _ in cases:
        torch.save(content, tmp_path / name)
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "text.safetensors").write_text("no weights")
    cases += [(name, None, "expected AlexNet's weights as") for name in ("text.pt", "empty.pth", "text.safetensors")]
    cases += [("pickle.pt", None, "expected "), ("none.pt", None, "cannot read AlexNet's weights .*No such file")]
    for name, _, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            AlexNetFeatures.load(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
