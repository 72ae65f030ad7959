"""The lp attacks against the analytic optimum of a linear model, where the best perturbation is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import attacks

EPSILON = {"linf": 0.05, "l2": 0.8, "l1": 6.0}
LP = ["linf", "l2", "l1", "pgd-linf", "pgd-l2", "pgd-l1"]  # the others: test_evaluation_attacks.py, test_autoattack.py


class Linear:
    """Two classes; the loss of class 0 grows with the score w.x, that of class 1 falls with it."""

    def __init__(self, shape: tuple[int, int, int] = (3, 12, 12)) -> None:
        self.weights = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def score(self, x: Tensor) -> Tensor:
        return (x * self.weights).flatten(1).sum(1)

    def __call__(self, x: Tensor) -> Tensor:
        score = self.score(x - 0.5) / 10
        return torch.stack([-score, score], 1)


def interior(batch: int = 4) -> Tensor:
    return 0.2 + 0.6 * torch.rand(batch, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def optimum(ball: str, model: Linear, x: Tensor, way: Tensor, epsilon: float) -> Tensor:
    """The largest gain of way * w.x in the ball and in the box (l2: the box is assumed not to bind)."""
    weights = model.weights.double().flatten() * way[:, None]
    room = torch.where(weights > 0, 1 - x.double().flatten(1), x.double().flatten(1))
    if ball == "linf":
        return (weights.abs() * room.clamp_max(epsilon)).sum(1)
    if ball == "l2":
        return weights.norm(dim=1) * epsilon
    gains = []
    for weight, free in zip(weights.abs(), room, strict=True):  # l1: fill the pixels of largest weight first
        left, gain = epsilon, 0.0
        for i in weight.argsort(descending=True).tolist():
            part = min(left, float(free[i]))
            gain, left = gain + part * float(weight[i]), left - part
        gains.append(gain)
    return torch.tensor(gains, dtype=torch.float64)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize(
    ("name", "share"),
    [("pgd-linf", 1 - 1e-5), ("linf", 1 - 1e-5), ("pgd-l2", 0.999), ("l2", 0.9999), ("pgd-l1", 0.9), ("l1", 0.98)],
)
def test_reaches_the_optimum_of_a_linear_model(name: str, share: float, random_start: bool) -> None:
    model, x, y = Linear(), interior(), torch.tensor([0, 1, 0, 1])
    ball, way = name.removeprefix("pgd-"), torch.tensor([1.0, -1.0, 1.0, -1.0])
    epsilon = EPSILON[ball]
    attack = attacks.get(name, epsilon=epsilon)
    knobs = {"random_start": random_start, "num_steps": 60}
    if name.startswith("pgd-"):
        knobs["step_size"] = epsilon / 12
    x_adv = dataclasses.replace(attack, **knobs)(model, x, y, seeds=torch.arange(4))
    gain = (model.score(x_adv.double()) - model.score(x.double())) * way
    best = optimum(ball, model, x, way, epsilon)
    assert (gain <= best * (1 + 1e-5)).all()
    assert (gain >= best * share).all(), (gain / best).tolist()


@pytest.mark.parametrize("name", ["pgd-linf", "linf"])
def test_linf_optimum_where_the_box_binds(name: str) -> None:
    model, y = Linear(), torch.tensor([0, 1, 0, 1])
    x = (interior() * 1.8 - 0.4).clamp(0, 1)
    way = torch.tensor([1.0, -1.0, 1.0, -1.0])
    x_adv = attacks.get(name, epsilon=0.1)(model, x, y, seeds=torch.arange(4))
    gain = (model.score(x_adv.double()) - model.score(x.double())) * way
    torch.testing.assert_close(gain, optimum("linf", model, x, way, 0.1), rtol=1e-5, atol=0)


def test_pgd_l1_leaves_a_bound_but_does_not_crowd_it() -> None:
    """Black pixels get brighter; a pixel within `gap` of the bound that it would move to is passed over."""
    model, attack = Linear(), dataclasses.replace(attacks.get("pgd-l1", epsilon=0.5), num_steps=1, step_size=0.4)
    x = torch.where(model.weights > 0, 0.0, 0.02)[None]
    delta = attack(model, x, torch.tensor([0]), seeds=torch.arange(1)) - x
    assert 5 <= delta.count_nonzero() <= 20
    assert delta.min() == 0
    assert delta.sum() == pytest.approx(0.4, rel=1e-4)


def test_pgd_l1_draws_its_number_of_pixels_per_image() -> None:
    model, attack = Linear(), dataclasses.replace(attacks.get("pgd-l1", epsilon=0.5), num_steps=1, step_size=0.4)
    x = interior(64)
    delta = attack(model, x, torch.zeros(64, dtype=torch.int64), seeds=torch.arange(64)) - x
    assert set(delta.flatten(1).count_nonzero(1).tolist()) == set(range(5, 21))


def test_kl_loss_needs_and_has_a_random_start() -> None:
    model, x = Linear(), interior()
    clean = model(x).log_softmax(1)

    def divergence(logits: Tensor, y: Tensor) -> Tensor:
        return (clean.exp() * (clean - logits.log_softmax(1))).sum(1)

    for name in ("pgd-linf", "linf"):
        attack = dataclasses.replace(attacks.get(name), random_start=True)
        x_adv = attack(model, x, torch.zeros(4, dtype=torch.int64), seeds=torch.arange(4), loss=divergence)
        assert (divergence(model(x_adv), torch.zeros(4)) > 1e-3).all()
