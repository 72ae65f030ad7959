"""RAMP's gradient projection on an example worked by hand, and through fit()."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from trainer_toys import method, ones, same, toy_attacks, toy_images, toy_net

from attacks.errors import InputError
from trainers import methods
from trainers.averaging.ema import snapshot
from trainers.averaging.ramp import RampProjection
from trainers.loop import fit
from trainers.parts import Averaging, Method, State, averagings
from trainers.recipe import Recipe

RECIPE = Recipe(epochs=1, batch_size=16, lr=0.05)


def after(beta: float, old: Tensor, adversarial: Tensor, clean: Tensor) -> tuple[Tensor, float]:
    made = RampProjection(beta=beta)
    made.start(nn.Linear(1, 1), steps_per_epoch=3, epochs=2)
    merged = made.after_epoch({"w": old}, {"w": adversarial}, {"clean": {"w": clean}}, None, False)
    assert merged is not None
    return merged["w"], made.record()["cosine"]


def test_one_tensor() -> None:
    """theta (1, 1), g_a = (4, 0), g_n = (3, 4): their cosine is 12 / 20 = 0.6. With beta 0.25:
    (1, 1) + 0.25 * 0.6 * (3, 4) + 0.75 * (4, 0) = (4.45, 1.6)."""
    merged, cosine = after(0.25, torch.ones(2), torch.tensor([5.0, 1.0]), torch.tensor([4.0, 5.0]))
    assert merged.tolist() == pytest.approx([4.45, 1.6])
    assert cosine == pytest.approx(0.6)


def test_a_clean_step_that_opposes_adds_nothing() -> None:
    """g_n = (-3, 4), cosine -0.6: (1, 1) + 0.5 * (4, 0)."""
    merged, cosine = after(0.5, torch.ones(2), torch.tensor([5.0, 1.0]), torch.tensor([-2.0, 5.0]))
    assert merged.tolist() == [3.0, 1.0]
    assert cosine == pytest.approx(-0.6)


def test_a_tensor_that_did_not_move_stays() -> None:
    merged, cosine = after(0.5, torch.ones(2), torch.ones(2), torch.ones(2))
    assert merged.tolist() == [1.0, 1.0]
    assert cosine == 0.0


def test_tensors_are_merged_one_by_one_batch_norm_statistics_too_and_scalars_are_the_adversarial_ones() -> None:
    """weight: parallel, 1 + 0.5 * 1 * 2 + 0.5 * 4 = 4; running_mean: opposed, 0 + 0.5 * 8 = 4; the batch count: 7."""
    model = nn.BatchNorm2d(1)
    old, live, clean = snapshot(model), snapshot(model), snapshot(model)
    live["weight"], clean["weight"] = torch.tensor([5.0]), torch.tensor([3.0])
    live["running_mean"], clean["running_mean"] = torch.tensor([8.0]), torch.tensor([-6.0])
    live["num_batches_tracked"], clean["num_batches_tracked"] = torch.tensor(7), torch.tensor(9)
    made = RampProjection()
    merged = made.after_epoch(old, live, {"clean": clean}, None, False)
    assert merged is not None
    assert {name: value.tolist() for name, value in merged.items()} == {
        "weight": [4.0], "bias": [0.0], "running_mean": [4.0], "running_var": [1.0], "num_batches_tracked": 7,
    }  # fmt: skip
    assert made.record()["cosine"] == 0.0  # the mean of 1, 0, -1, 0


def test_variances_stay_positive() -> None:
    """theta + beta cos (n - theta) + (1 - beta)(a - theta) weighs theta by beta (1 - cos): never below 0."""
    generator = torch.Generator().manual_seed(0)
    for beta in (0.0, 0.5, 1.0):
        old, adversarial, clean = (torch.rand(50, generator=generator) for _ in range(3))
        assert bool((after(beta, old, adversarial, clean)[0] >= 0).all())


def trained(of: Method, epochs: int = 1) -> State:
    attacks = toy_attacks("linf")
    recipe = replace(RECIPE, epochs=epochs, schedule="constant")
    return snapshot(fit(toy_net(), toy_images(), attacks, of, recipe, importance=ones(attacks), seed=3).model)


def test_an_epoch_of_fit_ends_at_the_merged_weights() -> None:
    natural = methods.compose(
        {kind: {"name": name} for kind, name in methods.entry("sat").parts().items()} | {"inner": {"name": "natural"}}
    )
    old, adversarial, clean = snapshot(toy_net()), trained(method("sat")), trained(natural)
    merged = trained(replace(method("sat"), averaging=RampProjection()))
    for name, theta in old.items():
        if not theta.ndim:
            assert torch.equal(merged[name], adversarial[name])
            continue
        g_a, g_n = adversarial[name] - theta, clean[name] - theta
        cosine = float((g_a * g_n).sum() / (g_a.norm() * g_n.norm()).clamp(min=1e-8))
        expected = theta + 0.5 * max(0.0, cosine) * g_n + 0.5 * g_a
        torch.testing.assert_close(merged[name], expected)
    assert not same(merged, adversarial)


def test_it_remembers_nothing_and_averages_nothing() -> None:
    made: Averaging = RampProjection()
    made.start(toy_net(), 3, 2)
    assert made.state_dict() == {}
    assert made.weights() is None
    assert made.wants_gain is None
    assert made.companions == ("clean",)
    assert math.isnan(made.record()["cosine"])
    assert averagings.get("ramp") is RampProjection


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_beta_out_of_range_is_refused(beta: float) -> None:
    with pytest.raises(InputError, match="expected beta between 0 and 1"):
        RampProjection(beta=beta)
