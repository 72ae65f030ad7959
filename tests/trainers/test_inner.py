"""AVG, MAX, MSD and AdaptiveBudget: which image trains, at which budget, and what it costs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from trainer_toys import batch_of, toy_attacks, toy_images, toy_net

import attacks
from attacks import Attack
from attacks.errors import InputError
from trainers.inner.adaptive_budget import factors, gradient_norm
from trainers.inner.each import Each
from trainers.inner.max import Max
from trainers.inner.msd import Msd, rules
from trainers.inner.single import Single
from trainers.parts import Batch
from trainers.passes import Passes

LP = ("pgd-linf", "pgd-l2", "pgd-l1")
SEEDS = torch.arange(6)


def batch() -> Batch:
    images = toy_images(6)
    return dataclasses.replace(batch_of(list(range(6))), x=images.floats(), y=images.labels)


def run(inner: Any, of: dict[str, Attack], model: nn.Module | None = None) -> Any:
    return inner.views(model or toy_net().eval(), batch(), list(of.values()), None, SEEDS)


def losses(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return cross_entropy(model.eval()(x), batch().y, reduction="none")


def test_each_is_every_attack_by_itself() -> None:
    of = toy_attacks(*LP, steps=2)
    for view, attack in zip(run(Each(), of), of.values(), strict=True):
        alone = attack.run(toy_net().eval(), batch().x, batch().y, seeds=SEEDS)
        assert view.attack == attack.name
        assert torch.equal(view.x, alone.x)


def test_max_takes_each_images_worst_attack() -> None:
    model, of = toy_net().eval(), toy_attacks("linf", "pgd-l2", "fog", steps=2)
    views = [attack.run(model, batch().x, batch().y, seeds=SEEDS) for attack in of.values()]
    found = torch.stack([losses(model, view.x) for view in views])
    inner = Max()
    (view,) = run(inner, of, model)
    for i, j in enumerate(found.argmax(0).tolist()):
        assert torch.equal(view.x[i], views[j].x[i])
    torch.testing.assert_close(view.loss, found.amax(0))
    wins = inner.record()["domination"]
    shares = [float((found.argmax(0) == j).float().mean()) for j in range(3)]
    assert [wins[f"wins.{name}"] for name in of] == pytest.approx(shares)


class Linear(nn.Module):
    """Two classes; the score is w . x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3 * 64, generator=torch.Generator().manual_seed(0)) / 8)

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.w
        return torch.stack([score, -score], 1)


def test_msd_takes_the_step_that_raises_the_loss_most() -> None:
    """One step on a linear model, from the middle of the box: the candidates are those of the three PGDs."""
    model, x, y = Linear().eval(), torch.full((6, 3, 8, 8), 0.5), torch.zeros(6, dtype=torch.int64)
    of = rules(list(toy_attacks(*LP, steps=1).values()))
    middle = dataclasses.replace(batch(), x=x, y=y)
    (view,) = Msd().views(model, middle, of, None, SEEDS)
    alone = [attack.run(model, x, y, seeds=SEEDS).x for attack in of]
    found = torch.stack([cross_entropy(model(z), y, reduction="none") for z in alone])
    for i, j in enumerate(found.argmax(0).tolist()):
        torch.testing.assert_close(view.x[i], alone[j][i])
    torch.testing.assert_close(view.loss, found.amax(0).detach())


def test_msd_stays_in_the_union_of_the_balls_and_beats_its_start() -> None:
    model, of = toy_net().eval(), toy_attacks(*LP, steps=6)
    (view,) = run(Msd(), of, model)
    delta = (view.x - batch().x).flatten(1)
    inside = [delta.norm(p=p, dim=1) <= attack.epsilon * (1 + 1e-5) for attack, p in
              zip(of.values(), (float("inf"), 2, 1), strict=True)]  # fmt: skip
    assert torch.stack(inside).any(0).all()
    assert view.x.min() >= 0
    assert view.x.max() <= 1
    assert (view.loss >= losses(model, batch().x) - 1e-6).all()
    torch.testing.assert_close(view.loss, losses(model, view.x))


def test_msd_is_for_norms_and_takes_apgd_as_the_pgd_of_its_norm() -> None:
    (twin,) = rules([attacks.get("l2", epsilon=0.25).with_steps(7)])
    assert (twin.name, twin.epsilon, twin.num_steps) == ("pgd-l2", 0.25, 7)
    with pytest.raises(InputError, match=r"expected attacks with an lp step and ball under msd .*, got fog"):
        run(Msd(), toy_attacks("fog"))


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([1.0, 2.0, 8.0], [0.5, 1.0, 2.0]),  # 1/2, 1, 4 cut at 2
        ([3.0, 2.0, 1.8], [1.5, 1.0, 0.9]),
        ([0.1, 1.0, 1.0], [0.5, 1.0, 1.0]),
        ([1.0, 3.0], [0.5, 1.5]),  # the median of two is their mean
        ([0.0, 0.0, 5.0], [1.0, 1.0, 2.0]),
        ([float("nan"), 1.0, 2.0], [1.0, 1.0, 1.0]),
    ],
)
def test_factors_of_the_budgets(norms: list[float], expected: list[float]) -> None:
    """adaptive-budget, Alg. 2, with App. C.2's clip."""
    assert factors(norms, 0.5, 2.0) == pytest.approx(expected)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_gradient_norms_by_hand(norm: str) -> None:
    """score = w x with CE: d/dw = -2 (1 - p) x and d/dx = -2 (1 - p) w, for one image of class 0."""
    model, x, y = Linear(), torch.rand(1, 3, 8, 8), torch.tensor([0])
    with torch.no_grad():
        rest = 2 * (1 - model(x).softmax(1)[0, 0])
    order = {"l1": 1, "l2": 2}[norm]
    by_weights = gradient_norm(model, x, y, None, norm, "parameter")
    torch.testing.assert_close(by_weights, rest * x.flatten().norm(p=order), rtol=1e-4, atol=1e-6)
    by_input = gradient_norm(model, x, y, None, norm, "input")
    torch.testing.assert_close(by_input, (rest * model.w.detach().norm(p=order)), rtol=1e-4, atol=1e-6)
    assert model.w.grad is None


@pytest.mark.parametrize("inner", [Each, Max, Msd])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_adaptive_budgets_are_those_of_the_gradients(inner: Any, norm: str) -> None:
    """Worked out again from the attacks at their base budgets; they start anew with every batch."""
    model, of = toy_net().eval(), toy_attacks(*LP, steps=2)
    norms = [
        float(
            gradient_norm(model, attack(model, batch().x, batch().y, seeds=SEEDS), batch().y, None, norm, "parameter")
        )
        for attack in of.values()
    ]
    made = inner(adaptive=norm)
    for _ in range(2):
        run(made, of, model)
    expected = [attack.epsilon * f for attack, f in zip(of.values(), factors(norms, 0.5, 2.0), strict=True)]
    recorded = made.record()
    assert list(recorded["budgets"].values()) == pytest.approx(expected, rel=1e-4)
    assert recorded["domination"][f"leads.{LP[norms.index(max(norms))]}"] == 1.0
    assert made.record() == {}


def passes(inner: Any, of: dict[str, Attack]) -> tuple[float, float]:
    """Forwards and backwards for each image of the batch, before the training step."""
    model, counted = toy_net().eval(), Passes()
    with counted.counted(model):
        run(inner, of, model)
    return counted.forwards / 6, counted.backwards / 6


def test_costs() -> None:
    """Three attacks of four steps: AVG three times SAT; MSD a forward more for each candidate, but one backward."""
    three, one = toy_attacks(*LP, steps=4), toy_attacks("pgd-linf", steps=4)
    assert passes(Single(), one) == (4, 4)
    assert passes(Each(), three) == (12, 12)
    assert passes(Max(), three) == (15, 12)
    assert passes(Msd(), three) == (16, 4)
    assert passes(Each(adaptive="l2"), three) == (12 + 3 + 12, 12 + 3 + 12)


def test_a_lone_attack_cannot_adapt_and_odd_knobs_are_refused() -> None:
    with pytest.raises(InputError, match="expected several attacks on a batch under adaptive budgets, got 1"):
        run(Each(adaptive="l2"), toy_attacks("linf"))
    with pytest.raises(InputError, match="unknown norm for adaptive 'l3'"):
        Each(adaptive="l3")
    with pytest.raises(InputError, match="expected 0 < clip_low <= 1 <= clip_high"):
        Max(clip_low=1.5)
