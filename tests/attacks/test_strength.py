"""The options that make an attack stronger: the best iterate kept, restarts, steps that reach equally far."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from attack_toys import Toy
from torch import Tensor
from torch.nn import functional as F

import attacks
from attacks.evaluation.spsa import SPSA
from attacks.latent import LatentAttack

LATENT = [
    name
    for name in attacks.names()
    if isinstance(attacks.get(name), LatentAttack) and not isinstance(attacks.get(name), SPSA)
]


@pytest.mark.parametrize("name", LATENT)
@pytest.mark.parametrize("stop", [False, True])
def test_keep_best_returns_the_iterate_of_highest_loss(name: str, stop: bool, toy: Toy) -> None:
    """With stop_when_broken: until the one that broke the image, which counts whatever its loss."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def model(x: Tensor) -> Tensor:
        logits = toy.net(x)
        seen.append((x.detach(), attack.objective(logits, toy.y).detach(), logits.argmax(1) == toy.y))
        return logits

    strong = attacks.get(name, epsilon="high").with_steps(8)
    attack = dataclasses.replace(strong, keep_best=True, step_size=0.5, num_restarts=1)
    view = attack.run(model, toy.x, toy.y, seeds=toy.seeds)
    xs, losses, right = map(torch.stack, zip(*seen, strict=True))
    assert len(xs) == 9
    best = losses.argmax(0)
    if stop:
        view = attack.run(toy.net, toy.x, toy.y, seeds=toy.seeds, stop_when_broken=True)
        first = right.float().argmin(0)
        best = torch.where(right.all(0), best, first)
    for i in range(4):
        torch.testing.assert_close(view.x[i], xs[best[i], i], rtol=0, atol=1e-5)
        torch.testing.assert_close(view.loss[i], losses[best[i], i], rtol=1e-4, atol=1e-5)


def test_keep_best_matters() -> None:
    """A loss that falls again behind its top: the last iterate has passed it."""
    x, y, seeds = torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 0]), torch.arange(2)

    def model(images: Tensor) -> Tensor:
        way = (images - 0.5).mean((1, 2, 3))
        return torch.stack([torch.zeros_like(way), 4 - (way - 0.03).abs() * 400], 1)

    attack = dataclasses.replace(attacks.get("pgd-linf", epsilon=0.1), num_steps=4, step_size=0.045)
    last = attack.run(model, x, y, seeds=seeds, final_forward=True)
    best = dataclasses.replace(attack, keep_best=True).run(model, x, y, seeds=seeds)
    assert (best.loss > last.loss + 0.1).all()


@pytest.mark.parametrize("name", ["pgd-linf", "linf", "fog"])
@pytest.mark.parametrize("stop", [False, True])
def test_restarts_keep_the_strongest_run(name: str, stop: bool, toy: Toy) -> None:
    one = attacks.get(name, epsilon="low").with_steps(3)
    single = one.run(toy.net, toy.x, toy.y, seeds=toy.seeds, final_forward=True, stop_when_broken=stop)
    several = dataclasses.replace(one, num_restarts=4)
    view = several.run(toy.net, toy.x, toy.y, seeds=toy.seeds, stop_when_broken=stop)
    with torch.no_grad():
        logits = toy.net(view.x)
    torch.testing.assert_close(view.loss, F.cross_entropy(logits, toy.y, reduction="none"))
    assert not (view.robust_all & ~single.robust_all).any()
    survived = view.robust_all & single.robust_all
    assert (view.loss[survived] >= single.loss[survived] - 1e-6).all()
    assert stop or (view.steps_correct >= single.steps_correct).all()


def test_restarts_start_elsewhere(toy: Toy) -> None:
    starts: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        starts.append(x.detach().clone())
        return toy.net(x)

    attack = dataclasses.replace(attacks.get("pgd-linf"), num_steps=1, num_restarts=3)
    attack.run(model, toy.x, toy.y, seeds=toy.seeds)
    first, second, third = starts[0], starts[2], starts[4]
    assert torch.equal(first, toy.x)
    assert not torch.equal(second, toy.x)
    assert not torch.equal(second, third)


def test_a_restart_attacks_survivors_only(toy: Toy) -> None:
    sizes: list[int] = []

    def model(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return toy.net(x)

    wrong = toy.y.clone()
    wrong[:3] = (wrong[:3] + 1) % 5
    attack = dataclasses.replace(attacks.get("pgd-linf", epsilon=1e-4), num_steps=2, num_restarts=2)
    attack.run(model, toy.x, wrong, seeds=toy.seeds, stop_when_broken=True)
    assert sizes == [4, 4, 4, 1, 1, 1]


@pytest.mark.parametrize("name", LATENT)
def test_a_budget_in_numbers_scales_the_step_and_a_level_does_not(name: str) -> None:
    own: Any = attacks.get(name)
    half: Any = attacks.get(name, epsilon=own.epsilon / 2)
    high: Any = attacks.get(name, epsilon="high")
    assert half.step_size == pytest.approx(own.step_size / 2)
    assert high.step_size == own.step_size
    assert attacks.get(name, budget={"epsilon": 0.02, "step_size": 0.5}).epsilon == 0.02
