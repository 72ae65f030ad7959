"""adaptive-budget's SVM: perturbations, losses, minimisers by hand; Theorems 1 and 3 at the paper's constants."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.errors import InputError
from trainers.svm import PLAYERS, Step, Svm, losses, minimise, shifts, train


def steps(**settings: Any) -> list[Step]:
    return list(train(Svm(**settings)))


def test_the_closed_forms_by_hand() -> None:
    """w = (3, -4): sign (1, -1), |w|_2 = 5, |w|_1 = 7."""
    found = shifts(torch.tensor([3.0, -4.0]), {"linf": 0.5, "l2": 10.0, "l1": 14.0}, torch.ones(2))
    assert {name: c.tolist() for name, c in found.items()} == {
        "linf": [0.5, -0.5],
        "l2": [6.0, -8.0],
        "l1": [6.0, -8.0],
    }


def test_a_shared_weight_stands_for_all_of_its_features() -> None:
    """Weights (a, b) with b for each of 4 features are (a, b, b, b, b): every shift gives the same product with w."""
    epsilons = {"linf": 0.3, "l2": 0.7, "l1": 1.1}
    full, tied = torch.tensor([0.6, -0.4, -0.4, -0.4, -0.4]), torch.tensor([0.6, -0.4 * 2])
    each, together = shifts(full, epsilons, torch.ones(5)), shifts(tied, epsilons, torch.tensor([1.0, 4.0]))
    for name in PLAYERS:
        assert float(full @ each[name]) == pytest.approx(float(tied @ together[name]), rel=1e-6)


def test_losses_by_hand() -> None:
    """Scores 2 and -1; c takes 1.5 from both: 1 - 0.5 and 1 + 2.5."""
    w = torch.tensor([1.0, 0.0])
    found = losses(torch.tensor([2.0, -1.0]), w, {"linf": torch.tensor([1.5, 9.0])})
    assert found["linf"].tolist() == [0.5, 3.5]


def test_the_minimiser_of_a_linear_loss_is_the_mean_on_the_sphere() -> None:
    """With all losses positive the mean is 1 - w^T(mean z - c): largest w^T(3, 4) / 5 is at (0.6, 0.8)."""
    z = torch.tensor([[0.05, 0.0], [0.01, 0.08]])
    found = minimise(z, {"linf": torch.zeros(2)}, {"linf": 1.0}, torch.tensor([1.0, 0.0]))
    assert found.tolist() == pytest.approx([0.6, 0.8], abs=1e-3)
    flipped = minimise(z, {"linf": torch.tensor([0.06, 0.08])}, {"linf": 1.0}, torch.tensor([0.6, 0.8]))
    assert flipped.tolist() == pytest.approx([-0.6, -0.8], abs=1e-3)  # mean z - c = (-0.03, -0.04)


def test_the_minimiser_lies_where_a_fine_grid_says() -> None:
    z, of = Svm(samples=500, dimension=9, seed=1).points(), {"linf": torch.tensor([0.2, 0.9]), "l2": torch.zeros(2)}
    weights = {"linf": 0.25, "l2": 0.75}

    def loss(w: Tensor) -> float:
        return sum(weights[name] * float(each.mean()) for name, each in losses(z @ w, w, of).items())

    angles = torch.linspace(-math.pi, math.pi, 4001)
    best = min(loss(torch.stack([a.cos(), a.sin()])) for a in angles)
    assert loss(minimise(z, of, weights, torch.tensor([0.8, 0.6]))) == pytest.approx(best, abs=2e-3)


def test_points_are_as_the_paper_draws_them() -> None:
    svm = Svm(dimension=16, samples=20_000, p=0.9, tied=False)
    z = svm.points()
    assert z.shape == (20_000, 17)
    assert svm.mean == 1.0
    assert z[:, 0].unique().tolist() == [-1.0, 1.0]
    assert float((z[:, 0] > 0).float().mean()) == pytest.approx(0.9, abs=0.01)
    assert float(z[:, 1:].mean()) == pytest.approx(1.0, abs=0.01)
    assert float(z[:, 1:].std()) == pytest.approx(1.0, abs=0.01)
    tied = Svm(dimension=16, samples=20_000).points()[:, 1]
    assert float(tied.mean()) == pytest.approx(4.0, abs=0.03)  # sums of 16 over 4
    assert float(tied.std()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("budgets", [{}, {"l1": 4.0}, {"l2": 4.0}])
def test_under_max_linf_leads_and_the_weights_flip_for_ever(budgets: dict[str, float]) -> None:
    """Theorem 1: linf's loss is the largest on every point at every step; Theorem 3: each non-robust weight changes its
    sign at every step, and the loss goes up and down. Also for the larger l1 and l2 budgets of Figures 4 and 5."""
    assert Svm(**budgets).holds_theorem_1()
    found = steps(inner="max", **budgets)
    assert all(step.leads == {"linf": 1.0, "l2": 0.0, "l1": 0.0} for step in found)
    assert all(step.flips == 1000 for step in found)
    late = [step.loss for step in found[4:]]
    assert min(abs(a - b) for a, b in pairwise(late)) > 5


@pytest.mark.parametrize("budgets", [{}, {"l1": 4.0}, {"l2": 4.0}])
def test_under_avg_the_weights_settle(budgets: dict[str, float]) -> None:
    found = steps(inner="avg", **budgets)
    assert all(step.flips == 0 for step in found[2:])
    late = [step.loss for step in found[5:]]
    assert max(late) - min(late) < 0.01 * max(late)
    assert late[-1] < 0.3 * found[0].loss


def test_without_its_conditions_theorem_1_does_not_speak() -> None:
    assert not Svm(linf=1.9).holds_theorem_1()
    assert not Svm(p=0.98).holds_theorem_1()
    assert not Svm(mu=0.1).holds_theorem_1()
    assert not Svm(l1=1001.0).holds_theorem_1()
    small = steps(inner="max", linf=0.1, l2=4.0, l1=0.1)
    assert small[0].leads == {"linf": 0.0, "l2": 1.0, "l1": 0.0}


def test_on_every_minimiser_without_loss_linf_leads_and_the_signs_are_the_same() -> None:
    """MAX's second step: mean z - c is 12 per root(d), no point has a loss on an arc of weights, and each of them would
    flip from the negative weights before it and be led by linf at the next step, whichever is chosen."""
    svm = Svm(l1=4.0)
    z, count = svm.points(), svm.multiplicity
    of = shifts(torch.tensor([0.28, -0.96]), svm.epsilons, count)
    angles = torch.linspace(-math.pi, math.pi, 201)
    around = [torch.stack([a.cos(), a.sin()]) for a in angles]
    free = [w for w in around if float(losses(z @ w, w, of)["linf"].mean()) == 0]
    assert len(free) > 20
    for w in free:
        assert w[1] > 0
        pulls = {name: float(w @ c) for name, c in shifts(w, svm.epsilons, count).items()}
        assert pulls["linf"] > max(pulls["l1"], pulls["l2"])


def test_without_any_loss_nobody_leads() -> None:
    """p 1 and means of 2 in 1000 features leave no point a loss; without budgets none comes."""
    found = steps(p=1.0, mu=2.0, linf=0.0, l2=0.0, l1=0.0, samples=100, steps=2)
    assert found == [Step(0.0, {"linf": 0.0, "l2": 0.0, "l1": 0.0}, 0)] * 2


def test_weights_of_their_own_follow_the_samples_noise() -> None:
    """Fewer points than the paper's: MAX flips nearly all, and AVG's signs do not settle either."""
    worst, mean = (steps(inner=inner, tied=False, samples=4000, steps=4) for inner in ("max", "avg"))
    assert min(step.flips for step in worst) > 750
    assert 100 < min(step.flips for step in mean) <= max(step.flips for step in mean) < 700


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dimension": 0}, "expected dimension >= 1, got 0"),
        ({"p": 0.4}, "expected p between 0.5 and 1, got 0.4"),
        ({"l2": -1.0}, "expected l2 >= 0, got -1"),
        ({"inner": "msd"}, "expected inner max or avg, got 'msd'"),
        ({"seed": -1}, "expected seed from 0 to"),
        ({"seed": 2**63}, "expected seed from 0 to"),
        ({"mu": 0.0}, "expected mu > 0, or null for 4 / sqrt.dimension., got 0"),
        ({"mu": math.inf}, "expected mu > 0"),
        ({"mu": math.nan}, "expected mu > 0"),
        ({"steps": 1}, "expected steps >= 2, got 1"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Svm(**settings)
