"""The numbered equations of cas-three-phase, each on an example worked by hand: state before, state after.

Equation 11 calibrates budgets, which no trainer does.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trainer_toys import Biased, batch_of, method, ones, seen, toy_attacks, toy_images, tune

from attacks.lp import PGDL2, PGDLinf
from trainers.averaging.ema import Ema, blend
from trainers.averaging.mde import Mde
from trainers.methods import importance
from trainers.parts import Gain
from trainers.recipe import Recipe
from trainers.samplers.cas import Cas
from trainers.tally import Tally
from trainers.tradeoff import Prior, measure

AB = ("a", "b")


def cas(
    accuracy: list[float],
    loss: list[list[float]] | None = None,
    tradeoff: list[list[float]] | None = None,
    weights: tuple[float, ...] | None = None,
    **settings: Any,
) -> Cas:
    """Cas after `start`, over the attacks a, b, c..."""
    m = len(accuracy)
    names = tuple("abcdefgh"[:m])
    tr = torch.tensor(tradeoff) if tradeoff else torch.zeros(m, m)
    prior = Prior(names, torch.tensor(accuracy), torch.tensor(loss or [[2.0] * m]), tr, 1, 0.0)
    made = Cas(**settings)
    made.start(names, dict(zip(names, weights or (1.0,) * m, strict=True)), prior)
    return made


def probabilities(sampler: Cas, index: list[int], warm_up: bool) -> list[float]:
    return list(sampler.probabilities(batch_of(index, warm_up)).values())


class Plane(nn.Module):
    """Logits (s, -s), s = 2 x[0] - x[1], for images of two pixels."""

    def forward(self, x: Tensor) -> Tensor:
        s = 2 * x[:, 0, 0, 0] - x[:, 0, 0, 1]
        return torch.stack([s, -s], 1)


def test_eq_1_the_adversarial_image_lies_in_the_ball_and_at_the_worst_point_of_it() -> None:
    x, y = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([0])
    linf = PGDLinf(epsilon=0.1, num_steps=1, step_size=0.2)(Plane(), x, y, seeds=torch.tensor([0]))
    assert linf.flatten().tolist() == pytest.approx([0.4, 0.6])  # down the first pixel, up the second, 0.1 each
    l2 = PGDL2(epsilon=0.1, num_steps=1, step_size=0.2)(Plane(), x, y, seeds=torch.tensor([0]))
    assert l2.flatten().tolist() == pytest.approx([0.5 - 0.2 / 5**0.5, 0.5 + 0.1 / 5**0.5])  # 0.1 along (-2, 1)


def test_eq_2_and_3_accuracy_and_loss_are_those_of_the_batches_that_an_attack_met() -> None:
    """Logits (0, ln 3) for every image, lr 0: label 1 is right, at loss ln 4/3; label 0 wrong, at loss ln 4."""
    train, of = toy_images(80, classes=2), toy_attacks("pgd-l2", "hsv")
    prior = measure(Biased(0.0, math.log(3)), train, of, Recipe(lr=0.0, batch_size=8), seed=0)
    met = prior.loss != 2.0
    hit = torch.where(train.labels == 1, math.log(4 / 3), math.log(4))
    for j in range(2):
        assert torch.allclose(prior.loss[met[:, j], j], hit[met[:, j]])
        assert prior.accuracy[j] == pytest.approx(float((train.labels[met[:, j]] == 1).float().mean()))
    # 80 images: 32 for the probe; 48 in six batches of 8, three for each attack
    assert met.sum(0).tolist() == [24, 24]
    assert met.sum(1).max() == 1


def test_eq_4_the_tradeoff_is_accuracy_after_less_accuracy_before_training_on_each_attack() -> None:
    """All labels 0, logits (0, 1): all wrong. One step on attack a, lr 4: p = (0.269, 0.731), so the logits become
    0 + 4 * 0.731 = 2.92 and 1 - 4 * 0.731 = -1.92: all right, against both attacks. Training on b adds nothing."""
    train, of = toy_images(64, classes=1), toy_attacks("pgd-l2", "hsv")
    model = Biased(0.0, 1.0)
    recipe = Recipe(lr=4.0, momentum=0.0, weight_decay=0.0, batch_size=16)
    prior = measure(model, train, of, recipe, seed=0)
    assert prior.tradeoff.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert prior.accuracy.tolist() == [0.0, 1.0]  # of the forwards that trained
    assert model.bias.tolist() == [0.0, 1.0]


def test_eq_5_the_warm_up_draws_by_accuracy_alone() -> None:
    """exp(1 - acc) for acc 1, 0.5, 0: 1, 1.6487, 2.7183; their sum is 5.3670."""
    sampler = cas([1.0, 0.5, 0.0], loss=[[9.0, 0.0, 0.0]], tradeoff=[[5.0] * 3, [0.0] * 3, [0.0] * 3])
    assert probabilities(sampler, [0], warm_up=True) == pytest.approx([0.18632, 0.30719, 0.50649], abs=1e-5)
    # b trains, 1 of 4 right: acc[b] = 0.9 * 0.5 + 0.1 * 0.25 = 0.475, exp(0.525) = 1.69046, the sum 5.40874
    sampler.observe(batch_of([0, 0, 0, 0]), [seen("b", [1.0] * 4, [1, 0, 0, 0])])
    assert probabilities(sampler, [0], warm_up=True) == pytest.approx([0.18489, 0.31254, 0.50257], abs=1e-5)


def test_eq_6_both_readings_of_the_factor_of_lp_attacks() -> None:
    families = {"a": "lp", "b": "semantic", "c": "semantic", "d": "perceptual"}
    literal, balanced = importance("as_published", families), importance("balanced", families)
    assert literal == {"a": 0.75, "b": 1.0, "c": 1.0, "d": 1.0}  # (4 - 1) / 4
    assert balanced == {"a": 3.0, "b": 1.0, "c": 1.0, "d": 1.0}  # (4 - 1) / 1
    for weights, expected in ((literal, 0.75 / 3.75), (balanced, 3 / 6)):
        for warm_up in (True, False):  # Alg. 1, lines 15 and 24: in both phases
            sampler = cas([0.5] * 4, weights=tuple(weights.values()))
            assert probabilities(sampler, [0], warm_up)[0] == pytest.approx(expected)


def test_eq_6_at_the_papers_21_attacks() -> None:
    families = {str(j): "lp" if j < 3 else "semantic" for j in range(21)}
    assert importance("as_published", families)["0"] == pytest.approx(18 / 21)
    assert importance("balanced", families)["0"] == 6
    assert sum(importance("balanced", families)[str(j)] for j in range(3)) == 18  # as much as the other 18


def test_eq_7_one_average() -> None:
    mean = {"w": torch.tensor([1.0, 0.0]), "steps": torch.tensor(3)}
    blend(mean, {"w": torch.tensor([3.0, -4.0]), "steps": torch.tensor(8)}, 0.75)
    assert mean["w"].tolist() == [1.5, -1.0]  # 0.75 * 1 + 0.25 * 3, 0.75 * 0 - 0.25 * 4
    assert mean["steps"] == 8


def test_eq_7_ema_averages_parameters_and_batch_norm_statistics_after_every_step() -> None:
    model = nn.BatchNorm2d(1)
    ema = Ema(decay=0.5)
    ema.start(model, steps_per_epoch=391, epochs=20)
    for weight, running, steps in ((3.0, 8.0, 1), (4.0, 0.0, 2)):
        with torch.no_grad():
            model.weight.fill_(weight)
            model.get_buffer("running_mean").fill_(running)
            model.get_buffer("num_batches_tracked").fill_(steps)
        ema.after_step(model)
    mean = ema.weights()
    assert mean is not None
    assert mean["weight"].tolist() == [3.0]  # 1 -> (1 + 3) / 2 = 2 -> (2 + 4) / 2 = 3
    assert mean["running_mean"].tolist() == [2.0]  # 0 -> 4 -> 2
    assert mean["num_batches_tracked"] == 2
    assert model.weight.tolist() == [4.0]  # the live weights stay


@pytest.mark.parametrize(("steps", "decay"), [(391, 0.25), (782, 0.5), (23, 0.25**17)])
def test_eq_7_the_decay_is_stated_for_391_steps_an_epoch(steps: int, decay: float) -> None:
    ema = Ema(decay=0.25)
    ema.start(nn.Linear(1, 1), steps_per_epoch=steps, epochs=3)
    assert ema.record()["decay"] == pytest.approx(decay)


@pytest.mark.parametrize(
    ("gain", "warm_up", "decay"),
    [
        (0.03, True, 0.85),  # Eq. 8: 1 - 5 * 0.03
        (0.2, True, 0.0),
        (0.3, True, 0.0),  # -0.5 as printed: clamped
        (0.001, True, 0.95),  # 0.995, above tau
        (-0.1, True, 0.95),
        (0.01, False, 0.5),  # Eq. 10: 1 - 50 * 0.01
        (0.03, False, 0.0),  # -0.5 as printed: clamped
        (0.0, False, 0.95),
        (-1.0, False, 0.95),
    ],
)
def test_eq_8_and_10_decay_and_average(gain: float, warm_up: bool, decay: float) -> None:
    mde, model = Mde(tau=0.95, d2=5.0, d3=50.0), nn.BatchNorm2d(1)
    mde.start(model, steps_per_epoch=7, epochs=20)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.get_buffer("running_mean").fill_(2.0)
    live = {name: value.clone() for name, value in model.state_dict().items()}
    assert mde.after_epoch({}, live, {}, Gain(gain, 0.0), warm_up) is None  # nothing is fed back
    assert mde.record()["decay"] == pytest.approx(decay)
    mean = mde.weights()
    assert mean is not None
    assert float(mean["weight"]) == pytest.approx(decay * 1 + (1 - decay) * 3)
    assert float(mean["running_mean"]) == pytest.approx((1 - decay) * 2)


@pytest.mark.parametrize(
    ("horizon", "epochs", "decay"), [(20, 20, 0.64), (20, 10, 0.4096), (20, 40, 0.8), (0, 10, 0.64)]
)
def test_eq_8_and_10_the_decay_is_stated_for_20_epochs(horizon: int, epochs: int, decay: float) -> None:
    """0.64 ** (20 / epochs); as printed with horizon 0."""
    mde, model = Mde(d3=36.0, horizon=horizon), nn.Linear(1, 1)
    mde.start(model, steps_per_epoch=7, epochs=epochs)
    mde.after_epoch({}, model.state_dict(), {}, Gain(0.01, 0.0), False)
    assert mde.record()["decay"] == pytest.approx(decay)


def test_eq_8_the_gain_is_the_mean_over_the_attacks_of_the_change_on_the_probe() -> None:
    """All labels 0, logits (0, 1), as in Eq. 4's example: one epoch makes every image right against both attacks. The
    gain is (1 + 1) / 2 = 1, the decay max(0, 1 - 5) = 0, so the average becomes the live weights."""
    train, of = toy_images(16, classes=1), toy_attacks("pgd-l2", "hsv")
    recipe = Recipe(epochs=1, lr=4.0, momentum=0.0, weight_decay=0.0, batch_size=16, schedule="constant", warm_up=1.0)
    fitted = tune("cas", Biased(0.0, 1.0), train, of, recipe)
    assert (fitted.history[0]["gain"], fitted.history[0]["gain_stderr"]) == (1.0, 0.0)
    assert fitted.history[0]["decay"] == 0.0
    assert fitted.averaged is not None
    assert torch.equal(fitted.averaged["bias"], fitted.model.state_dict()["bias"])


def test_eq_8_the_gain_from_training_accuracies() -> None:
    """Known before: 0.5 each. In the epoch a trains 4 images, 3 right; b none: ((0.75 - 0.5) + 0) / 2 = 0.125."""
    tally = Tally(AB, torch.tensor([0.5, 0.5]))
    tally.open()
    tally.saw([seen("a", [1.0] * 4, [1, 1, 1, 0])])
    gain = tally.gain()
    assert gain.mean == 0.125
    assert gain.stderr == pytest.approx((2 * 0.75 * 0.25 / 4) ** 0.5 / 2)
    tally.open()
    tally.saw([seen("a", [1.0], [1]), seen("b", [1.0], [0])])
    assert tally.gain().mean == (0.25 - 0.5) / 2  # from 0.75 to 1, from 0.5 to 0


def test_eq_8_an_attack_whose_accuracy_is_not_known_yet_gains_nothing() -> None:
    tally = Tally(AB, None)
    tally.open()
    tally.saw([seen("a", [1.0], [1])])
    assert tally.gain().mean == 0


def test_eq_9_accuracy_loss_and_tradeoff() -> None:
    """a: 10 (1 - 0.5) + 1 * (1 + 3) / 2 + 0.5 * (0.1 - 0.3) = 6.9; b: 10 * 0.4 + 2 + 0.5 * 0.2 = 6.1;
    p(a) = 1 / (1 + e^-0.8) = 0.68997."""
    sampler = cas([0.5, 0.6], [[1.0, 2.0], [7.0, 7.0], [3.0, 2.0]], [[0.1, -0.3], [0.0, 0.2]], w1=10, w2=1, w3=0.5)
    assert probabilities(sampler, [0, 2], warm_up=False) == pytest.approx([0.68997, 0.31003], abs=1e-5)
    # b trains images 0 and 2: loss 4 and 1, one right. acc[b] = 0.9 * 0.6 + 0.1 * 0.5 = 0.59: b 4.1 + 2.5 + 0.1 = 6.7
    sampler.observe(batch_of([0, 2]), [seen("b", [4.0, 1.0], [0, 1])])
    assert probabilities(sampler, [0, 2], warm_up=False) == pytest.approx([0.54983, 0.45017], abs=1e-5)
    # image 1 has the new accuracy and its old loss: a 5 + 7 - 0.1, b 4.1 + 7 + 0.1: 0.7 apart
    assert probabilities(sampler, [1], warm_up=False)[0] == pytest.approx(1 / (1 + math.exp(-0.7)))


def test_eq_9_with_the_factor_of_eq_6() -> None:
    sampler = cas([0.5, 0.5], [[1.0, 0.0]], weights=(3.0, 1.0), w1=10, w2=1, w3=0.5)
    assert probabilities(sampler, [0], warm_up=False)[0] == pytest.approx(3 * math.e / (3 * math.e + 1))


@pytest.mark.parametrize(("off", "odds"), [("w1", 2 - 0.1), ("w2", 10 * 0.1 - 0.1), ("w3", 10 * 0.1 + 2)])
def test_eq_9_a_weight_of_0_drops_its_term(off: str, odds: float) -> None:
    """a against b: 0.1 less accurate, its loss 2 more, its trade-off 0.2 less."""
    settings: dict[str, Any] = {"w1": 10.0, "w2": 1.0, "w3": 0.5} | {off: 0.0}
    sampler = cas([0.5, 0.6], [[3.0, 1.0]], [[-0.2, 0.0], [0.0, 0.0]], **settings)
    p = probabilities(sampler, [0], warm_up=False)
    assert math.log(p[0] / p[1]) == pytest.approx(odds, abs=1e-6)


def test_alg_1_warm_up_comes_first_and_both_phases_update_accuracy_and_loss() -> None:
    """4 epochs, the first half warm-up. In the warm-up a loss that was never met, 2.0, cannot weigh."""
    train, of = toy_images(32), toy_attacks("pgd-l2", "hsv")
    made = method("cas", averaging={"gain": "train"}, sampler={"w2": 5.0})
    sampler = made.sampler
    met: list[int] = []

    def report(epoch: int, history: list[dict[str, object]]) -> bool:
        met.append(int((sampler.state_dict()["loss"] != 2.0).sum()))
        return True

    recipe = Recipe(epochs=4, lr=0.01, batch_size=16)
    fitted = tune("cas", Biased(0.0, 0.0, 0.0), train, of, recipe, method=made, report=report, importance=ones(of))
    assert [record["phase"] for record in fitted.history] == ["warm-up", "warm-up", "dynamic", "dynamic"]
    # the two accuracies start equal and hardly move apart: in the warm-up their odds stay near 1, after it w2 speaks
    odds = [record["probabilities"]["hsv"] / record["probabilities"]["pgd-l2"] for record in fitted.history]
    assert all(abs(math.log(o)) < 0.2 for o in odds[:2])
    assert abs(math.log(odds[2])) > 1
    assert met[0] == 32  # each image met one attack
