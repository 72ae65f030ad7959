"""The objectives, each on an example worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from trainer_toys import method, ones, toy_attacks, toy_images, toy_net

from attacks import Attack, View
from attacks.errors import InputError
from attacks.lp import PGDLinf
from trainers.loop import fit
from trainers.objectives.hybrid import Hybrid
from trainers.objectives.mart import Mart
from trainers.objectives.ramp import Ramp
from trainers.objectives.trades import Trades, kl
from trainers.parts import Objective, objectives
from trainers.recipe import Recipe

ALL = (Hybrid, Trades, Mart, Ramp)
HALF = [0.5, 0.5]
QUARTER = [0.25, 0.75]
KL = 0.5 * math.log(4 / 3)
"""KL of HALF from QUARTER: 0.5 ln 2 + 0.5 ln 2/3."""


def logits(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities).log()


def view(loss: list[float]) -> View:
    n = len(loss)
    return View(
        "a", torch.zeros(n, 3, 2, 2), torch.tensor(loss), torch.ones(n, dtype=torch.bool), torch.zeros(n).long()
    )


def terms(of: Objective, clean: Tensor | None, advs: list[Tensor], y: list[int]) -> tuple[list[float], list[float]]:
    plain, robust = of.terms(clean, advs, [view([0.0] * len(y)) for _ in advs], torch.tensor(y))
    return plain.tolist(), robust.tolist()


def test_cas_bandit_eq_8_hybrid() -> None:
    """CE: clean ln 2, adversarial ln 4 and, of the second view, ln 2, whose mean is 1.5 ln 2."""
    plain, robust = terms(Hybrid(beta=0.75), logits(HALF), [logits(QUARTER)], [0])
    assert plain == pytest.approx([0.25 * math.log(2)])
    assert robust == pytest.approx([0.75 * math.log(4)])
    plain, robust = terms(Hybrid(beta=0.75), logits(HALF), [logits(QUARTER), logits(HALF)], [0])
    assert plain == pytest.approx([0.25 * math.log(2)])
    assert robust == pytest.approx([0.75 * 1.5 * math.log(2)])
    assert Hybrid() == Hybrid(beta=8 / 9)


def test_vir_eq_9_trades() -> None:
    """CE ln 2 and ln 4/3; the divergence of each clean prediction from the adversarial one, not the other way round."""
    plain, robust = terms(Trades(beta=4.0), logits(HALF, QUARTER), [logits(QUARTER, QUARTER)], [0, 1])
    assert plain == pytest.approx([math.log(2), math.log(4 / 3)])
    assert robust == pytest.approx([4 * KL, 0.0], abs=1e-6)
    _, robust = terms(Trades(beta=4.0), logits(HALF), [logits(QUARTER), logits(HALF)], [0])
    assert robust == pytest.approx([4 * KL / 2])


def test_mart() -> None:
    """p' = (0.2, 0.5, 0.3), y = 0: BCE = ln 5 - ln(1.0001 - 0.5) = 1.60944 + 0.69295 = 2.30239. p = (0.5, 0.25, 0.25):
    KL = 0.5 ln 2.5 + 0.25 ln 0.5 + 0.25 ln 5/6 = 0.45815 - 0.17329 - 0.04558 = 0.23928, times 1 - 0.5, times 5."""
    plain, robust = terms(Mart(beta=5.0), logits([0.5, 0.25, 0.25]), [logits([0.2, 0.5, 0.3])], [0])
    assert robust == pytest.approx([2.30239], abs=1e-5)
    assert plain == pytest.approx([0.59820], abs=1e-5)


def test_mart_is_finite_where_the_model_is_certain() -> None:
    certain, y = torch.tensor([[200.0, -200.0]]), torch.tensor([1])
    plain, robust = Mart().terms(certain, [certain], [view([0.0])], y)
    assert float(robust) == pytest.approx(400 - math.log(0.0001), rel=1e-3)
    assert float(plain) == 0.0


def test_ramp() -> None:
    """Four images, y = 0. CE of q (0.75 or 0.25): ln 4/3, ln 4/3, ln 4, ln 4/3; of r (always 0.5): ln 2. The attacks'
    losses, not these, say which is worse: q, r, q, and q where they tie. f(x_q) is right on three."""
    q = logits([0.75, 0.25], [0.75, 0.25], QUARTER, [0.75, 0.25])
    r = logits(HALF, HALF, HALF, HALF)
    views = [view([2.0, 1.0, 2.0, 1.0]), view([1.0, 2.0, 1.0, 1.0])]
    plain, robust = Ramp(lam=1.5).terms(None, [q, r], views, torch.zeros(4).long())
    assert robust.tolist() == pytest.approx([math.log(4 / 3), math.log(2), math.log(4), math.log(4 / 3)])
    each = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL(q || r) where q is right
    assert plain.tolist() == pytest.approx([4 / 3 * 1.5 * each, 4 / 3 * 1.5 * each, 0.0, 4 / 3 * 1.5 * each])
    assert float(plain.mean()) == pytest.approx(1.5 * each)  # lam times the mean over the three


def test_ramp_pairs_nothing_where_the_source_is_always_wrong() -> None:
    plain, robust = terms(Ramp(), None, [logits(QUARTER, QUARTER), logits(HALF, HALF)], [0, 0])
    assert plain == [0.0, 0.0]
    assert robust == pytest.approx([math.log(4)] * 2)


@pytest.mark.parametrize("made", [Trades(), Mart(), Ramp()])
def test_both_predictions_of_a_divergence_have_a_gradient(made: Any) -> None:
    """The divergence alone: with the first prediction held, and with the second."""
    first = logits([0.6, 0.4]).requires_grad_()
    second = logits(QUARTER).requires_grad_()
    clean, advs = (None, [first, second]) if isinstance(made, Ramp) else (first, [second])
    plain, robust = made.terms(clean, advs, [view([0.0]) for _ in advs], torch.tensor([0]))
    divergence = robust if isinstance(made, Trades) else plain
    grads = torch.autograd.grad(divergence.sum(), [first, second])
    assert all(float(grad.abs().sum()) > 1e-3 for grad in grads)


def test_kl_is_finite_where_a_probability_is_0_in_fp32() -> None:
    far = kl(torch.tensor([[0.0, 300.0]]), torch.tensor([[300.0, 0.0]]))
    assert float(far) == pytest.approx(300.0)


class TestTradesAttack:
    """The attack that maximises KL(p(x) || p(x_adv))."""

    def test_loss(self) -> None:
        clean = logits(HALF, QUARTER).requires_grad_()
        loss = Trades().attack_loss(clean)
        assert loss is not None
        values = loss(logits(QUARTER, QUARTER), torch.zeros(2).long())
        assert values.tolist() == pytest.approx([KL, 0.0], abs=1e-7)
        assert not values.requires_grad  # of the clean prediction: a constant to the attack

    def test_gradient_is_round_off_at_the_clean_image_so_it_asks_for_a_random_start(self) -> None:
        at = logits(HALF, QUARTER).requires_grad_()
        loss = Trades().attack_loss(at)
        assert loss is not None
        (grad,) = torch.autograd.grad(loss(at, torch.zeros(2).long()).sum(), at)
        assert float(grad.abs().max()) < 1e-6
        assert [made.random_start for made in ALL] == [False, True, False, False]

    def test_with_a_random_start_it_moves_the_prediction_further_than_the_start_did(self) -> None:
        """Logits (s, -s), s the sum of four pixels less 0.5: either corner of the ball is worst, s = 0.4 or -0.4."""
        x, y, seeds = torch.full((64, 1, 2, 2), 0.5), torch.zeros(64).long(), torch.arange(64)
        clean, worst = torch.zeros(64, 2), float(kl(torch.zeros(1, 2), torch.tensor([[0.4, -0.4]])))

        def model(z: Tensor) -> Tensor:
            s = (z - 0.5).sum((1, 2, 3))
            return torch.stack([s, -s], 1)

        def divergence(steps: int) -> list[float]:
            attack = PGDLinf(epsilon=0.1, num_steps=steps, step_size=0.05, random_start=True)
            found = attack(model, x, y, seeds=seeds, loss=Trades().attack_loss(clean))
            return [float(value) for value in kl(clean, model(found))]

        assert min(divergence(1)) < 0.5 * worst
        assert divergence(4) == pytest.approx([worst] * 64, rel=1e-5)

    def test_a_part_of_the_batch_is_refused(self) -> None:
        loss = Trades().attack_loss(logits(HALF, HALF))
        assert loss is not None
        with pytest.raises(InputError, match="all 2 images of the batch together under trades, got 1"):
            loss(logits(HALF), torch.tensor([0]))


def test_what_each_needs_beside_the_adversarial_logits() -> None:
    assert [made.clean for made in ALL] == [True, True, True, False]
    assert [made.attack_clean for made in ALL] == [False, True, False, False]
    assert [made().attack_loss(None) for made in (Hybrid, Mart, Ramp)] == [None] * 3
    assert [objectives.get(name) for name in ("hybrid", "trades", "mart", "ramp")] == list(ALL)


@pytest.mark.parametrize(
    ("made", "wrong", "rule"),
    [
        (Hybrid, {"beta": 1.5}, "expected beta between 0 and 1, got 1.5"),
        (Hybrid, {"beta": math.nan}, "expected beta between 0 and 1"),
        (Trades, {"beta": -1.0}, "expected beta >= 0, got -1"),
        (Mart, {"beta": math.inf}, "expected beta >= 0, got inf"),
        (Ramp, {"lam": -0.5}, "expected lam >= 0, got -0.5"),
    ],
)
def test_settings_out_of_range_are_refused(made: Any, wrong: dict[str, float], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        made(**wrong)


@pytest.mark.parametrize("n", [1, 3])
def test_ramp_refuses_other_than_two_views(n: int) -> None:
    with pytest.raises(InputError, match=f"expected two attacks on every batch under ramp.*got {n}"):
        terms(Ramp(), None, [logits(HALF)] * n, [0])


@pytest.mark.parametrize("name", ["hybrid", "trades", "mart"])
def test_it_trains(name: str) -> None:
    attacks: dict[str, Attack] = {"linf": replace(toy_attacks("linf", steps=2)["linf"], random_start=True)}  # type: ignore[call-arg]
    of = replace(method("sat"), objective=objectives.get(name)())
    recipe = Recipe(epochs=8, batch_size=16, lr=0.02, schedule="constant")
    history = fit(toy_net(), toy_images(), attacks, of, recipe, importance=ones(attacks), seed=0).history
    assert history[-1]["train_loss"] < 0.9 * history[0]["train_loss"]
