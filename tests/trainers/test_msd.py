"""MSD against a slow one written from SPEC D, and what it promises."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from inner_toys import pixel_attacks, pixel_batch, seeds_of, toy_batch
from torch import Tensor, nn
from trainer_toys import Biased, toy_attacks, toy_net

import attacks
from attacks.errors import InputError
from attacks.losses import cross_entropy
from attacks.lp import PGDL1, PGDL2, PGDLinf
from trainers.inner.msd import Msd, rules
from trainers.parts import Batch

LP = ("pgd-linf", "pgd-l2", "pgd-l1")


class Flat(nn.Module):
    """Logits of a fixed linear map of the pixels."""

    def __init__(self, size: int, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(size, classes, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


def slow_ce(weight: Any, x: Any, y: int) -> float:
    z = x @ weight
    return float(np.log(np.exp(z - z[y]).sum()))


def slow_gradient(weight: Any, x: Any, y: int) -> Any:
    z = x @ weight
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    p[y] -= 1
    return weight @ p


def slow_l1(delta: Any, epsilon: float) -> Any:
    if np.abs(delta).sum() <= epsilon:
        return delta
    low, high = 0.0, float(np.abs(delta).max())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(np.abs(delta) - middle, 0).sum() > epsilon else (low, middle)
    return np.sign(delta) * np.maximum(np.abs(delta) - high, 0)


def slow_candidate(a: PGDLinf | PGDL2 | PGDL1, x: Any, delta: Any, g: Any, k: int) -> Any:
    if isinstance(a, PGDLinf):
        moved = np.clip(delta + a.step_size * np.sign(g), -a.epsilon, a.epsilon)
    elif isinstance(a, PGDL2):
        moved = delta + a.step_size * g / np.linalg.norm(g)
        moved = moved * min(1, a.epsilon / np.linalg.norm(moved))
    else:
        stuck = ((g > 0) & (delta > 1 - x - a.gap)) | ((g <= 0) & (delta < -x + a.gap))
        free = np.where(stuck, 0, g)
        top = np.argsort(-np.abs(free))[:k]
        moved = delta.copy()
        moved[top] += a.step_size / k * np.sign(free[top])
        moved = slow_l1(moved, a.epsilon)
    return np.clip(moved, -x, 1 - x)


def slow_msd(
    weight: Any, x: Any, y: int, players: Any, counts: Any, keep_best: bool
) -> tuple[Any, list[str], bool, int]:
    """SPEC D, one image: the result, which attack won each step, whether every point was right, how many it left."""
    delta, best, best_loss, winners = np.zeros_like(x), None, -np.inf, []
    robust, steps = True, 0

    def right(moved: Any) -> bool:
        return int(((x + moved) @ weight).argmax()) == y

    for step in range(players[0].num_steps):
        g = slow_gradient(weight, x + delta, y)
        steps += right(delta)
        found = [slow_candidate(a, x, delta, g, int(counts[step])) for a in players]
        losses = [slow_ce(weight, x + c, y) for c in found]
        robust = robust and right(delta) and all(right(c) for c in found)
        j = int(np.argmax(losses))
        delta = found[j]
        winners.append(players[j].name)
        if losses[j] > best_loss or not keep_best:
            best, best_loss = delta, losses[j]
    return x + best, winners, robust, steps


def flat_players() -> list[Any]:
    """Budgets under which each norm wins some steps on `flat_batch`, and the last step is not always the best."""
    return [
        PGDLinf(epsilon=0.1, num_steps=8, step_size=0.05),
        PGDL2(epsilon=0.6, num_steps=8, step_size=0.25),
        PGDL1(epsilon=2.5, num_steps=8, step_size=1.0),
    ]


def flat_batch(n: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, 4, 4, generator=generator)
    y = Flat(48)(x).argmax(1)  # half of them right at first
    y = torch.where(torch.arange(n) % 2 == 0, y, (y + 1) % 3)
    return Batch(torch.arange(n), slice(0, n), x, y, 0, 0, False)


@pytest.mark.parametrize("keep_best", [True, False])
def test_algorithm_1_msd_equals_a_slow_one_on_a_linear_model(keep_best: bool) -> None:
    model, batch, players, inner = Flat(48), flat_batch(), flat_players(), Msd(keep_best=keep_best)
    (view,) = inner.views(model, batch, players, None, seeds_of(batch))
    counts = players[2].start(batch.x, seeds_of(batch))[1][2].numpy()
    weight, won = model.weight.detach().double().numpy(), []
    for i in range(len(batch.y)):
        x, y = batch.x[i].flatten().double().numpy(), int(batch.y[i])
        expected, winners, robust, steps = slow_msd(weight, x, y, players, counts[i], keep_best)
        assert view.x[i].flatten().tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        assert float(view.loss[i]) == pytest.approx(slow_ce(weight, expected, y), abs=1e-5)
        assert (bool(view.robust_all[i]), int(view.steps_correct[i])) == (robust, steps)
        won += winners
    shares = inner.record()["domination"]
    for name in LP:
        assert shares[f"wins.{name}"] == pytest.approx(won.count(name) / len(won), abs=1e-6)
    assert len({*won}) == 3  # the example tells the norms apart
    (other,) = Msd(keep_best=not keep_best).views(model, batch, players, None, seeds_of(batch))
    assert not torch.equal(view.x, other.x)  # and the two readings


def test_msd_stays_inside_the_union_of_the_balls() -> None:
    net, (batch, seeds) = toy_net(), toy_batch(12)
    players = [replace(player, random_start=True) for player in rules(list(toy_attacks(*LP, steps=4).values()))]
    for players_ in (players, rules(list(toy_attacks("linf", "l2", "l1", steps=3).values()))):
        (view,) = Msd().views(net, batch, players_, None, seeds)
        delta = (view.x - batch.x).flatten(1)
        inside = [torch.linalg.vector_norm(delta, p, dim=1) for p in (math.inf, 2, 1)]
        ratios = [size / player.epsilon for size, player in zip(inside, players_, strict=True)]
        assert torch.stack(ratios).amin(0).max() <= 1 + 1e-5
        assert ((view.x >= 0) & (view.x <= 1)).all()
        assert delta.abs().sum() > 0


def test_msd_keep_best_is_never_worse_than_the_last() -> None:
    net, (batch, seeds) = toy_net(), toy_batch(12)
    players = list(toy_attacks(*LP, steps=5).values())
    best, last = (Msd(keep_best=keep).views(net, batch, players, None, seeds)[0] for keep in (True, False))
    assert (best.loss >= last.loss).all()
    for view in (best, last):
        assert torch.allclose(cross_entropy(net.eval()(view.x), batch.y), view.loss, atol=1e-4)


def test_msd_of_equal_losses_takes_the_attack_listed_first() -> None:
    inner, batch = Msd(), pixel_batch(0.5, 0.5)
    (view,) = inner.views(Biased(0.0, 1.0), batch, pixel_attacks(), None, seeds_of(batch))
    assert inner.record()["domination"]["wins.pgd-linf"] == 1
    assert view.robust_all.tolist() == [False, False]
    assert view.steps_correct.tolist() == [0, 0]


def test_msd_counts_the_points_from_which_it_stepped() -> None:
    (view,) = Msd().views(Biased(0.0, 1.0), pixel_batch(0.5, y=1), pixel_attacks(), None, torch.tensor([1]))
    assert (view.attack, view.robust_all.tolist(), view.steps_correct.tolist()) == ("msd", [True], [1])


def test_msd_is_robust_where_all_candidates_of_the_last_step_are_right_too() -> None:
    """Of one step the candidates are what the attacks make alone."""
    model, batch, players = Flat(48), flat_batch(), [replace(player, num_steps=1) for player in flat_players()]
    (view,) = Msd().views(model, batch, players, None, seeds_of(batch))
    reached = [player(model, batch.x, batch.y, seeds=seeds_of(batch)) for player in players]
    right = torch.stack([model(x).argmax(1) == batch.y for x in (batch.x, *reached)])
    assert view.robust_all.tolist() == right.all(0).tolist()
    assert view.steps_correct.tolist() == right[0].long().tolist()
    assert right.all(0).sum() < right[0].sum()


def test_msd_starts_at_the_first_attacks_random_point() -> None:
    """No gradient, so nothing moves but by the box."""
    batch, starting = pixel_batch(0.5, 0.5, 0.5), pixel_attacks(random_start=True)
    (view,) = Msd().views(Biased(0.0, 1.0), batch, starting, None, seeds_of(batch))
    start, _ = PGDLinf(epsilon=0.1, num_steps=1, step_size=1.0, random_start=True).start(batch.x, seeds_of(batch))
    assert torch.allclose(view.x, batch.x + start)


def test_msd_takes_the_pgd_rule_of_an_apgd() -> None:
    """Reach 0.003 * 40 / 0.03 = 4 budgets of linf, 5 of l2, 50 / 12 of l1, in 10 steps; all with the most steps."""
    linf, l2, l1 = rules(
        [attacks.get(name).with_steps(steps) for name, steps in (("linf", 10), ("l2", 10), ("l1", 10))]
    )
    assert (linf.name, l2.name, l1.name) == LP
    assert (linf.epsilon, l2.epsilon, l1.epsilon) == (8 / 255, 0.5, 12)
    assert [p.step_size / p.epsilon for p in (linf, l2, l1)] == pytest.approx([0.4, 0.5, 50 / 120])
    own = [attacks.get(name) for name in LP]
    assert [(p.num_steps, p.step_size) for p in rules(own)] == [(50, 0.003), (50, 0.05), (50, 1.0)]


@pytest.mark.parametrize(("name", "why"), [("fog", "got fog"), ("ppgd", "got ppgd"), ("pgd-l2-restarts", "restarts")])
def test_msd_refuses_what_has_no_lp_step(name: str, why: str) -> None:
    net, (batch, seeds) = toy_net(), toy_batch()
    with pytest.raises(InputError, match=why):
        Msd().views(net, batch, [attacks.get("pgd-linf"), attacks.get(name)], None, seeds)
