"""The papers' evaluation attacks: against analytic optima, slow references, and each other on a trained network."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from attack_toys import Toy, images, small_net
from digits_net import EPSILON, trained
from torch import Tensor
from torch.nn import functional as F

import attacks
from attacks import losses, noise
from attacks.errors import InputError

OWN = ["fgsm", "pgd-20", "pgd-100", "cw", "fmn-100", "spsa", "mde"]
RESTARTS = ["pgd-linf-restarts", "pgd-l2-restarts", "pgd-l1-restarts"]
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


class Linear:
    """`classes` logits, linear in the image; two are -s and s, so that the gradient of one class is not 0."""

    def __init__(self, classes: int, shape: tuple[int, int, int] = (1, 10, 10)) -> None:
        self.weights = torch.randn(classes, math.prod(shape), generator=torch.Generator().manual_seed(classes)) / 3
        if classes == 2:
            self.weights[1] = -self.weights[0]

    def __call__(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weights.T.to(x.dtype)

    def distance(self, x: Tensor, y: Tensor, norm: str) -> Tensor:
        """How far, in the norm, the nearest other class is from each image, the box aside: min_k margin / dual norm."""
        logits, weights = self(x.double()), self.weights.double()
        margin = logits.gather(1, y[:, None]) - logits
        slope = torch.linalg.vector_norm(weights[y][:, None] - weights, ord=DUAL[norm], dim=2)
        return (margin / slope).scatter(1, y[:, None], torch.inf).amin(1)


def linear_batch(classes: int, n: int = 48) -> tuple[Linear, Tensor, Tensor]:
    model = Linear(classes)
    x = 0.35 + 0.3 * torch.rand(n, 1, 10, 10, generator=torch.Generator().manual_seed(7))
    return model, x, model(x).argmax(1)


def budget_at(name: str, epsilon: float, num_steps: int) -> Any:
    attack: Any = attacks.get(name, "digits", epsilon=epsilon)
    return attack if name == "fgsm" else attack.with_steps(num_steps)


REACH = dict.fromkeys(OWN, 0.97) | dict.fromkeys(RESTARTS, 0.97) | {"spsa": 0.7, "pgd-l1-restarts": 0.8}
BY_MARGIN = ["cw", "fmn-100", "spsa", "mde"]


@pytest.mark.parametrize(("name", "classes"), [*[(name, 2) for name in REACH], *[(name, 5) for name in BY_MARGIN]])
def test_breaks_a_linear_model_exactly_where_it_can_be_broken(name: str, classes: int) -> None:
    """With more than two classes the ascent of cross entropy need not end at the nearest class: margins only."""
    model, x, y = linear_batch(classes)
    distance = model.distance(x, y, str(attacks.get(name).norm))
    epsilon = float(distance.median())
    view = budget_at(name, epsilon, 60).run(model, x, y, seeds=torch.arange(len(x)), final_forward=True)
    assert view.robust_all[distance > epsilon * 1.0001].all()
    assert not view.robust_all[distance < epsilon * REACH[name]].any()
    assert 20 < view.robust_all.sum() < 36


@pytest.mark.parametrize("classes", [2, 5])
def test_fmn_finds_the_analytic_distance(classes: int) -> None:
    model, x, y = linear_batch(classes)
    distance = model.distance(x, y, "linf")
    view = attacks.get("fmn-100", epsilon=0.3).run(model, x, y, seeds=torch.arange(len(x)), final_forward=True)
    found = (view.x - x).flatten(1).abs().amax(1)
    assert not view.robust_all.any()
    assert (found >= distance * (1 - 1e-4)).all()
    assert (found <= distance * 1.03 + 1e-5).all(), (found / distance).max()
    assert (model(view.x).argmax(1) != y).all()


def fmn_reference(net: Any, image: Tensor, label: int, num_steps: int, gamma0: float) -> float:
    """The smallest norm, by the paper's algorithm in float64, one image, no tensors of state."""
    delta, radius, best, found = torch.zeros_like(image), math.inf, math.inf, False
    worst = float(torch.maximum(image, 1 - image).max())
    for step in range(num_steps):
        cosine = (1 + math.cos(math.pi * step / num_steps)) / 2
        alpha, gamma = 0.01 + (1 - 0.01) * cosine, 0.001 + (gamma0 - 0.001) * cosine
        z = (image + delta).requires_grad_()
        logits = net(z[None])[0]
        values = logits.tolist()
        k = max((k for k in range(len(values)) if k != label), key=values.__getitem__)
        loss = logits[k] - logits[label]
        (grad,) = torch.autograd.grad(loss, z)
        norm = float(delta.abs().max())
        if int(logits.argmax()) != label:
            best, found = min(best, norm), True
            radius = min(radius * (1 - gamma), best)
        else:
            ahead = 1.001 * (norm + abs(loss.item()) / float(grad.abs().sum()))
            radius = radius * (1 + gamma) if found else ahead
        radius = min(radius, worst)
        delta = (delta + alpha * grad / grad.norm()).clamp(-radius, radius)
        delta = (image + delta).clamp(0, 1) - image
    return best


def test_fmn_against_a_slow_reference() -> None:
    net, x = small_net(1), images(6, 1, 12, 12)
    y, double = net(x).argmax(1), small_net(1).double()
    attack: Any = attacks.get("fmn-100", epsilon=1.0).with_steps(25)
    view = attack.run(net, x, y, seeds=y)
    found = (view.x - x).flatten(1).abs().amax(1)
    for i in range(6):
        expected = fmn_reference(double, x[i].double(), int(y[i]), 25, attack.gamma)
        assert float(found[i]) == pytest.approx(expected, rel=2e-3)


def test_fmn_counts_only_what_lies_within_epsilon(toy: Toy) -> None:
    """Its iterates leave the ball and are adversarial there: that is no verdict."""
    seen: list[tuple[Tensor, Tensor]] = []

    def model(x: Tensor) -> Tensor:
        logits = toy.net(x)
        seen.append(((x.detach() - toy.x).flatten(1).abs().amax(1), logits.argmax(1) != toy.y))
        return logits

    distance = attacks.get("fmn-100", epsilon=1.0)(toy.net, toy.x, toy.y, seeds=toy.seeds) - toy.x
    epsilon = float(distance.flatten(1).abs().amax(1).sort().values[1:3].mean())
    attack = attacks.get("fmn-100", epsilon=epsilon)
    view = attack.run(model, toy.x, toy.y, seeds=toy.seeds)
    norms, wrong = map(torch.stack, zip(*seen, strict=True))
    assert len(seen) == 100
    assert (wrong & (norms > epsilon)).any()
    assert torch.equal(view.robust_all, ~(wrong & (norms <= epsilon)).any(0))
    assert torch.equal(view.steps_correct, (~(wrong & (norms <= epsilon))).sum(0))
    assert view.robust_all.sum() == 2
    found = (view.x - toy.x).flatten(1).abs().amax(1)
    assert found.max() <= epsilon * (1 + 1e-5)
    smallest = norms.where(wrong, torch.inf).amin(0)
    torch.testing.assert_close(found[~view.robust_all], smallest[~view.robust_all], rtol=1e-5, atol=1e-7)
    assert (smallest[view.robust_all] > epsilon).all()
    broken = ~view.robust_all
    assert (toy.net(view.x).argmax(1) != toy.y)[broken].all()
    torch.testing.assert_close(
        (view.x - toy.x).flatten(1).abs().amax(1)[broken], distance.flatten(1).abs().amax(1)[broken]
    )
    torch.testing.assert_close(view.loss[broken], losses.margin(toy.net(view.x), toy.y)[broken])
    stopped = attack.run(toy.net, toy.x, toy.y, seeds=toy.seeds, stop_when_broken=True)
    assert torch.equal(stopped.robust_all, view.robust_all)
    assert (toy.net(stopped.x).argmax(1) != toy.y)[broken].all()


@pytest.mark.parametrize("epsilon", [0.03, 0.2])
def test_fgsm_is_one_signed_step_from_the_clean_image(epsilon: float, toy: Toy) -> None:
    x = toy.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(toy.net(x), toy.y, reduction="sum"), x)
    attack = attacks.get("fgsm", epsilon=epsilon)
    assert attack.num_steps == 1
    expected = (toy.x + epsilon * grad.sign()).clamp(0, 1)
    for same in (attack, type(attack)(epsilon=epsilon)):  # type: ignore[call-arg]
        torch.testing.assert_close(same(toy.net, toy.x, toy.y, seeds=toy.seeds), expected)


def test_the_settings_of_vir() -> None:
    for name, num_steps in (("pgd-20", 20), ("pgd-100", 100), ("cw", 20)):
        attack: Any = attacks.get(name)
        assert (attack.epsilon, attack.num_steps, attack.random_start) == (8 / 255, num_steps, True)
        assert attack.step_size == pytest.approx(1 / 255)
    spsa: Any = attacks.get("spsa")
    assert (spsa.num_steps, spsa.num_samples, spsa.probe, spsa.step_size) == (100, 256, 0.001, 0.01)
    assert attacks.get("fmn-100").num_steps == 100
    steps = {name: (attacks.get(name).num_steps, attacks.get(name).num_restarts) for name in RESTARTS}
    assert list(steps.values()) == [(100, 10), (500, 10), (100, 10)]
    assert [attacks.get(name, "mnist").num_steps for name in RESTARTS] == [100, 200, 100]


def test_cw_climbs_the_margin(toy: Toy) -> None:
    made: Any = attacks.get("cw")
    view = made.run(toy.net, toy.x, toy.y, seeds=toy.seeds, final_forward=True)
    torch.testing.assert_close(view.loss, losses.margin(toy.net(view.x), toy.y))
    settings = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    plain = type(attacks.get("pgd-linf"))(**settings)
    assert torch.equal(view.x, plain(toy.net, toy.x, toy.y, seeds=toy.seeds, loss=losses.margin))
    assert not torch.equal(view.x, plain(toy.net, toy.x, toy.y, seeds=toy.seeds))


class Counted(torch.autograd.Function):
    calls: dict[str, int]
    largest: int
    net: Any

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Counted.calls["forward"] += len(x)
        Counted.largest = max(Counted.largest, len(x))
        return Counted.net(x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        Counted.calls["backward"] += 1
        raise AssertionError("a backward")


@pytest.fixture
def counted(toy: Toy) -> Any:
    Counted.calls, Counted.largest, Counted.net = {"forward": 0, "backward": 0}, 0, toy.net
    return Counted


def test_spsa_asks_forwards_only_and_few_at_once(counted: Any, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = dataclasses.replace(attacks.get("spsa"), num_steps=3, num_samples=50)
    monkeypatch.setattr(type(made), "at_once", 64)
    x, y, seeds = toy.x[:3].clone().requires_grad_(), toy.y[:3], toy.seeds[:3]
    made.run(counted.apply, x, y, seeds=seeds)
    assert counted.calls == {"forward": 3 * 3 * 51, "backward": 0}
    assert counted.largest <= 64


def test_spsa_estimates_the_gradient() -> None:
    """On a linear model the mean over many signs is the gradient, up to noise of |g| / sqrt(pairs) a pixel."""
    model, x, y = linear_batch(2, 3)
    made: Any = dataclasses.replace(attacks.get("spsa"), num_samples=20000)
    estimate = made._estimate(model, x, y, torch.arange(3), losses.margin).flatten(1)
    truth = (model.weights[1 - y] - model.weights[y]).reshape(3, -1)
    error = estimate - truth
    assert (error.norm(dim=1) < 1.3 * truth.norm(dim=1) * math.sqrt(100 / 10000)).all()
    cosine = F.cosine_similarity(estimate, truth)
    assert (cosine > 0.99).all()


def test_spsa_draws_new_signs_each_step_and_image_alike_in_any_batch() -> None:
    model, x, y = linear_batch(2, 4)
    seen: list[Tensor] = []

    def spied(z: Tensor) -> Tensor:
        seen.append(z.clone())
        return model(z)

    made: Any = dataclasses.replace(attacks.get("spsa"), num_steps=2, num_samples=64, step_size=1e-6)
    whole = made(spied, x, y, seeds=torch.arange(4))
    steps = []
    for centre, probes in (seen[:2], seen[2:]):
        signs = (probes.reshape(4, 32, 2, 100) - centre.reshape(4, 1, 1, 100)) / 0.001
        torch.testing.assert_close(signs.abs(), torch.ones_like(signs), rtol=0, atol=2e-3)
        torch.testing.assert_close(signs[:, :, 0], -signs[:, :, 1], rtol=0, atol=4e-3)
        steps.append(signs[:, :, 0].sign().reshape(128, 100))
    rows = torch.cat(steps)
    correlation = rows @ rows.T / 100
    assert correlation.fill_diagonal_(0).abs().max() < 0.55, "of 256 rows of signs none repeats another"
    assert correlation.square().mean() == pytest.approx(1 / 100, rel=0.1)
    assert rows.mean(0).abs().max() < 0.3
    alone = made(model, x[2:3], y[2:3], seeds=torch.arange(2, 3))
    torch.testing.assert_close(alone, whole[2:3])


def test_spsa_refuses_odd_samples() -> None:
    with pytest.raises(InputError, match=r"expected an even num_samples >= 2, got 5 \(attacks.spsa\)"):
        dataclasses.replace(attacks.get("spsa"), num_samples=5)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="expected probe > 0, got 0"):
        dataclasses.replace(attacks.get("spsa"), probe=0.0)  # type: ignore[call-arg]


def climb_reference(net: Any, image: Tensor, y: int, start: Tensor, epsilon: float, label_first: bool) -> Tensor:
    """The 11 iterates of an MD run of 10 steps in float64 on one image; 4 steps are on one of the two logits."""
    iterates = [(image + start).clamp(0, 1)]
    for step in range(10):
        z = iterates[-1].detach().requires_grad_()
        logits = net(z[None])[0]
        other = torch.stack([logits[k] for k in range(len(logits)) if k != y]).max()
        goal = logits[y] if step == 0 else other - logits[y]
        if 1 <= step <= 3:
            goal = -logits[y] if label_first else other
        (grad,) = torch.autograd.grad(goal, z)
        angle = {0: 0, 1: 0, 2: 1, 3: 2, 4: 3, 5: 0, 6: 1, 7: 2, 8: 3, 9: 4}[step] * math.pi / 6
        z = z.detach() + 2 * epsilon * (1 + math.cos(angle)) / 2 * grad.sign()
        iterates.append(z.clamp(image - epsilon, image + epsilon).clamp(0, 1))
    return torch.stack(iterates).detach()


@pytest.mark.parametrize("label_first", [True, False])
def test_margin_decomposition_against_a_slow_reference(label_first: bool) -> None:
    net, x, seeds = small_net(1), images(3, 1, 12, 12), torch.arange(3)
    y, double = net(x).argmax(1), small_net(1).double()
    made: Any = dataclasses.replace(attacks.get("mde", epsilon=0.002), num_steps=10)
    seen: list[Tensor] = []

    def model(z: Tensor) -> Tensor:
        seen.append(z.detach().clone())
        return net(z)  # type: ignore[no-any-return]

    with torch.no_grad():
        last = made._climb(model, x, y, seeds, None, label_first)
    start = (noise.uniform(seeds, 0, (1, 12, 12)).double() * 2 - 1) * 0.002
    for i in range(3):
        expected = climb_reference(double, x[i].double(), int(y[i]), start[i], 0.002, label_first)
        got = torch.stack([*(z[i] for z in seen), last[i]])
        assert got.shape == expected.shape
        assert ((got - expected).abs() < 1e-6).float().mean(dim=(1, 2, 3)).min() > 0.98


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_mde_has_four_stages_and_leaves_no_image_twice(classes: int) -> None:
    net, x = small_net(1, classes), images(12, 1, 12, 12)
    y = net(x).argmax(1)
    y[0] = (y[0] + 1) % classes
    view = attacks.get("mde", epsilon=0.02).with_steps(10).run(net, x, y, seeds=torch.arange(12))
    assert [name for name, _ in view.stages] == ["apgd-ce", "md", "mdmt", "fab-t"]
    flags = torch.stack([robust for _, robust in view.stages])
    assert (flags[1:] <= flags[:-1]).all()
    assert torch.equal(flags[-1], view.robust_all)
    assert torch.equal(view.steps_correct, flags.sum(0))
    assert torch.equal(view.robust_all, (net(view.x).argmax(1) == y))
    assert not view.robust_all[0]
    assert torch.equal(view.x[0], x[0])


@pytest.mark.parametrize("name", ["fmn-100", "mde"])
def test_an_attack_with_losses_of_its_own_takes_no_other(name: str, toy: Toy) -> None:
    with pytest.raises(InputError, match=rf"expected loss=None, for this attack has losses of its own.*attacks.{name}"):
        attacks.get(name)(toy.net, toy.x, toy.y, seeds=toy.seeds, loss=losses.cross_entropy)


def survivors(name: str, epsilon: float, num_steps: int, n: int = 400, **changes: Any) -> float:
    """Per cent of all images that are still classified correctly."""
    net, x, y = trained()
    attack = dataclasses.replace(budget_at(name, epsilon, num_steps), **changes)
    view = attack.run(net, x[:n], y[:n], seeds=torch.arange(n), final_forward=True, stop_when_broken=True)
    wrong = net(view.x).argmax(1) != y[:n]
    assert torch.equal(~wrong, view.robust_all)
    return float(view.robust_all.float().mean()) * 100


@pytest.mark.parametrize("name", [*OWN, *RESTARTS])
def test_a_larger_budget_breaks_more_on_a_trained_network(name: str) -> None:
    epsilon = EPSILON[str(attacks.get(name).norm)]
    changes = {"spsa": {"num_samples": 64}, "mde": {}}.get(name, {} if name in OWN else {"num_restarts": 2})
    n = 150 if name in {"spsa", "mde"} else 400
    left = [survivors(name, epsilon * share, 10, n, **changes) for share in (0.5, 1, 2)]
    clean = survivors("fgsm", 1e-6, 1, n)
    assert clean > left[0] > left[1] + 3 > left[2] + 6, left


def test_the_order_of_strength_in_linf() -> None:
    """Each next one has all that the one before has and more; slack of half a point for what is drawn."""
    epsilon = 1.5 * EPSILON["linf"]
    fgsm, few, many, ensemble = (survivors(name, epsilon, steps, 200) for name, steps in
                                 (("fgsm", 1), ("pgd-20", 20), ("pgd-100", 100), ("mde", 20)))  # fmt: skip
    assert fgsm > few + 2
    assert few + 0.5 >= many >= ensemble - 0.5
    assert survivors("cw", epsilon, 20, 200) < fgsm
    assert survivors("spsa", epsilon, 20, 200, num_samples=64) < fgsm + 5
    assert survivors("fmn-100", epsilon, 100, 200) < fgsm


def test_restarts_break_more() -> None:
    for name in RESTARTS:
        epsilon = EPSILON[str(attacks.get(name).norm)]
        one, five = (survivors(name, epsilon, 10, num_restarts=runs) for runs in (1, 5))
        assert five <= one
    assert five < one - 3, "l1 gains most"


def foreign_apgd(norm: str, epsilon: float, num_steps: int) -> float:
    """pyautoattack's apgd-ce, one run, as it comes."""
    from pyautoattack.autopgd_base import APGDAttack

    net, x, y = trained()
    kind = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    with torch.random.fork_rng(devices=[]):
        x_adv = APGDAttack(net, n_iter=num_steps, norm=kind, eps=epsilon, seed=0, device="cpu").perturb(x, y)
    return float((net(x_adv).argmax(1) == y).float().mean()) * 100


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_our_apgd_is_as_strong_as_theirs(norm: str) -> None:
    """At most a point weaker at equal steps, 400 images. As measured (torch 2.13, CPU), 100 steps, left of ours
    and of theirs at 0.5, 0.75 and 1 of EPSILON: linf 80.8 71.5 59.0 and 80.8 71.5 59.3; l2 72.8 56.5 37.5 and
    72.8 56.5 37.8; l1 48.5 20.3 9.3 and 48.5 22.5 10.3."""
    for share in (0.5, 0.75, 1):
        epsilon = EPSILON[norm] * share
        ours, theirs = survivors(norm, epsilon, 50), foreign_apgd(norm, epsilon, 50)
        assert ours <= theirs + 1, (ours, theirs)
        assert 5 < theirs < 90


def test_pgd_overstates_robustness_in_l1_only() -> None:
    """100 steps, 400 images, left of APGD and of PGD at 0.5, 0.75 and 1 of EPSILON: l1 48.5 20.3 9.3 and
    68.3 45.5 22.5; linf and l2 differ by less than a point."""
    for norm, gap in (("linf", 2), ("l2", 2), ("l1", 15)):
        epsilon = 0.75 * EPSILON[norm]
        strong, weak = (survivors(name, epsilon, 50) for name in (norm, f"pgd-{norm}"))
        assert (weak - strong > gap) == (norm == "l1"), (norm, strong, weak)
        assert abs(weak - strong) < 2 or norm == "l1"
