"""AdaptiveBudget, MAX and the domination record on examples worked by hand; the exact cost of every inner."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from inner_toys import pixel_attacks, pixel_batch, seeds_of, toy_batch
from torch import Tensor, nn
from trainer_toys import Biased, same, told, toy_attacks, toy_images, toy_net, tune

from attacks import Attack, View
from attacks.base import Loss, Model, evaluate
from attacks.errors import InputError
from attacks.losses import margin
from attacks.lp import PGDL2, PGDLinf
from trainers import methods
from trainers.checkpoint import Folder
from trainers.inner.adaptive_budget import factors, gradient_norm
from trainers.inner.each import Each
from trainers.inner.max import Max
from trainers.inner.msd import Msd
from trainers.inner.single import Single
from trainers.parts import Inner, Method
from trainers.passes import Passes
from trainers.recipe import Recipe

LP = ("pgd-linf", "pgd-l2", "pgd-l1")
INNERS = (Each, Max, Msd)


class Line(nn.Module):
    """Logits (w s, t), s the sum of an image's pixels, w = 1: the gradient of the mean first logit is the mean s."""

    def __init__(self, t: float = 0.0) -> None:
        super().__init__()
        self.w, self.t = nn.Parameter(torch.tensor(1.0)), t

    def forward(self, x: Tensor) -> Tensor:
        s = self.w * x.sum((1, 2, 3))
        return torch.stack([s, self.t + 0 * s], 1)


def first_logit(logits: Tensor, y: Tensor) -> Tensor:
    return logits[:, 0]


@pytest.mark.parametrize(
    ("norms", "clip", "expected"),
    [
        ([1.0, 2.0, 8.0], (0.5, 2.0), [0.5, 1.0, 2.0]),  # 8 / 2 = 4, clipped
        ([8.0, 1.0, 2.0], (0.1, 10.0), [4.0, 0.5, 1.0]),
        ([1.0, 8.0, 2.0], (0.8, 3.0), [0.8, 3.0, 1.0]),
        ([3.0, 3.0, 3.0], (0.5, 2.0), [1.0, 1.0, 1.0]),
        ([3.0, 5.0], (0.5, 2.0), [0.75, 1.25]),  # the median is 4
        ([1.0, 2.0, 4.0, 5.0, 9.0], (0.1, 3.0), [0.25, 0.5, 1.0, 1.25, 2.25]),
        ([0.0, 0.0, 7.0], (0.5, 2.0), [1.0, 1.0, 2.0]),
        ([0.0, 0.0, 0.0], (0.5, 2.0), [1.0, 1.0, 1.0]),
        ([1.0, math.nan, 2.0], (0.5, 2.0), [1.0, 1.0, 1.0]),
    ],
)
def test_algorithm_2_lines_10_to_15_the_factor_of_each_budget(
    norms: list[float], clip: tuple[float, float], expected: list[float]
) -> None:
    assert factors(norms, *clip) == pytest.approx(expected)


def test_the_gradient_norm_of_the_parameters() -> None:
    """p = (1/4, 3/4). Label 0: dCE/dbias = (-3/4, 3/4); with as many of label 1, (1/4, -1/4), the mean is -+1/4."""
    model, x = Biased(0.0, math.log(3)), torch.zeros(2, 3, 2, 2)
    for labels, size in (([0, 0], 0.75), ([0, 1], 0.25)):
        y = torch.tensor(labels)
        assert float(gradient_norm(model, x, y, None, "l1", "parameter")) == pytest.approx(2 * size)
        assert float(gradient_norm(model, x, y, None, "l2", "parameter")) == pytest.approx(2**0.5 * size)


def test_the_gradient_norm_of_the_input() -> None:
    """The mean first logit of two images of four pixels: 1/2 for each of eight pixels."""
    x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    assert float(gradient_norm(Line(), x, y, first_logit, "l1", "input")) == pytest.approx(4)
    assert float(gradient_norm(Line(), x, y, first_logit, "l2", "input")) == pytest.approx(2**0.5)
    assert not x.requires_grad


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_algorithm_2_on_two_batches(norm: str) -> None:
    """At 0.2 the attacks reach 0.3, 0.4, 0.8, which are also the gradients: factors 0.75, 1, 2, budgets 0.075, 0.2,
    1.2. At 0: 0.1, 0.2, 0.6, factors 0.5, 1, 3 clipped to 2, from the base again: 0.05, 0.2, 1.2."""
    inner, model = Each(adaptive=norm), Line()
    for pixel, reached in ((0.2, [0.275, 0.4, 1.0]), (0.0, [0.05, 0.2, 1.0])):
        batch = pixel_batch(pixel)
        views = inner.views(model, batch, pixel_attacks(), first_logit, seeds_of(batch))
        assert [float(view.x) for view in views] == pytest.approx(reached)
        assert [view.attack for view in views] == list(LP)
    row = inner.record()
    assert row["budgets"] == pytest.approx(dict(zip(LP, [0.0625, 0.2, 1.2], strict=True)))
    assert row["domination"]["leads.pgd-l1"] == 1
    assert row["domination"]["by_gradient"] == 1
    assert inner.record() == {}


def test_the_input_gradient_moves_the_budgets_too() -> None:
    """Of -log(first logit): 1 / 0.3, 1 / 0.4, 1 / 0.8 at the pixels; factors 4/3, 1, 1/2. Their attack goes down."""
    inner, batch = Each(adaptive="l2", gradient="input"), pixel_batch(0.2)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return logits[:, 0].clamp(min=1e-3).log()

    inner.views(Line(), batch, pixel_attacks(), loss, seeds_of(batch))
    expected = dict(zip(LP, [0.1 * 4 / 3, 0.2, 0.3], strict=True))
    assert inner.record()["budgets"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("scale", "reached"), [(False, [0.275, 0.5]), (True, [0.275, 0.575])])
def test_step_sizes_stay_unless_asked(scale: bool, reached: list[float]) -> None:
    """Gradients 0.3 and 0.5 around 0.4: budgets 0.075 and 0.375; the one l2 step goes 0.3, or 0.375."""
    players = [PGDLinf(epsilon=0.1, num_steps=1, step_size=0.1), PGDL2(epsilon=0.3, num_steps=1, step_size=0.3)]
    inner, batch = Each(adaptive="l2", scale_steps=scale), pixel_batch(0.2)
    views = inner.views(Line(), batch, players, first_logit, seeds_of(batch))
    assert [float(view.x) for view in views] == pytest.approx(reached)
    assert inner.record()["budgets"] == pytest.approx({"pgd-linf": 0.075, "pgd-l2": 0.375})


def test_no_budget_exceeds_what_the_attack_allows() -> None:
    inner, batch = Each(adaptive="l2"), pixel_batch(0.0)
    players = [PGDLinf(epsilon=0.8, num_steps=1, step_size=1.0), PGDL2(epsilon=0.1, num_steps=1, step_size=1.0)]
    inner.views(Line(), batch, players, first_logit, seeds_of(batch))  # factors 16 / 9 and 1/2
    assert inner.record()["budgets"] == pytest.approx({"pgd-linf": 1.0, "pgd-l2": 0.05})


@dataclass(frozen=True, kw_only=True)
class Darker(Attack):
    """Every pixel goes down by epsilon; Brighter: up. Evaluates the image and, if asked, the result."""

    name: ClassVar[str] = "darker"
    family: ClassVar[str] = "toy"
    sign: ClassVar[int] = -1

    num_steps: int = 1

    def _run(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss, final_forward: bool, stop: bool
    ) -> View:
        logits, values = evaluate(model, loss, x, y)
        robust, steps = logits.argmax(1) == y, (logits.argmax(1) == y).long()
        x = x + self.sign * self.epsilon
        if final_forward:
            logits, values = evaluate(model, loss, x, y)
            robust = robust & (logits.argmax(1) == y)
        return View(self.name, x, values, robust, steps + self.sign + 1)  # two more of Brighter


class Brighter(Darker):
    name = "brighter"
    sign = 1


class Boaster(Brighter):
    """Its own loss is far larger than anyone's cross entropy."""

    name = "boaster"

    def objective(self, logits: Tensor, y: Tensor) -> Tensor:
        return margin(logits, y) + 100


def test_algorithm_1_max_takes_the_worst_result_of_each_image() -> None:
    """Logits (s, 0.4). Down by 0.3 hurts label 0: 0.5 breaks at 0.2, 0.9 is right at 0.6. Up hurts label 1: 0.8."""
    inner, batch = Max(), pixel_batch(0.5, 0.5, 0.9, y=[0, 1, 0])
    (view,) = inner.views(Line(0.4), batch, [Darker(epsilon=0.3), Brighter(epsilon=0.3)], None, seeds_of(batch))
    assert view.attack == "max"
    assert view.x.flatten().tolist() == pytest.approx([0.2, 0.8, 0.6])
    assert view.loss.tolist() == pytest.approx([math.log1p(math.exp(z)) for z in (0.2, 0.4, -0.2)])
    assert view.robust_all.tolist() == [False, False, True]  # the first is right under Brighter
    assert view.steps_correct.tolist() == [1, 0, 1]
    row = inner.record()
    assert row["budgets"] == {"darker": 0.3, "brighter": 0.3}
    assert row["domination"]["wins.darker"] == pytest.approx(2 / 3)
    assert row["domination"]["wins.brighter"] == pytest.approx(1 / 3)
    assert (row["domination"]["leads.darker"], row["domination"]["by_gradient"]) == (1, 0)


def test_max_of_equal_losses_takes_the_first_attack() -> None:
    batch = pixel_batch(0.5)
    for players, expected in (([Darker, Brighter], 0.2), ([Brighter, Darker], 0.8)):
        made = [player(epsilon=0.3) for player in players]
        (view,) = Max().views(Biased(0.0, 1.0), batch, made, None, seeds_of(batch))
        assert float(view.x) == pytest.approx(expected)


def test_max_compares_cross_entropies_where_an_attack_has_a_loss_of_its_own() -> None:
    batch, model, passes = pixel_batch(0.5), Line(), Passes()
    with passes.counted(model):
        (view,) = Max().views(model, batch, [Boaster(epsilon=0.3), Darker(epsilon=0.3)], None, seeds_of(batch))
    assert float(view.x) == pytest.approx(0.2)
    assert float(view.loss) == pytest.approx(math.log1p(math.exp(-0.2)))
    assert passes.forwards == 2 + 2 + 1  # the image and the result, and Boaster's result once more
    (view,) = Max().views(model, batch, [Boaster(epsilon=0.3), Darker(epsilon=0.3)], margin, seeds_of(batch))
    assert float(view.loss) == pytest.approx(-0.2)  # of a loss that is given, all have the same


def test_each_and_max_under_adaptive_run_the_attacks_at_the_recorded_budgets() -> None:
    net, (batch, seeds) = toy_net(), toy_batch()
    players = list(toy_attacks("linf", "fog", "hsv", steps=2).values())
    inner = Each(adaptive="l1", clip_low=0.7, clip_high=1.4)
    views = inner.views(net, batch, players, None, seeds)
    used = inner.record()["budgets"]
    shares = [used[player.name] / player.epsilon for player in players]
    assert sorted(shares)[1] == 1
    assert min(shares) >= 0.7 - 1e-9
    assert max(shares) <= 1.4 + 1e-9
    for view, player in zip(views, players, strict=True):
        at = replace(player, epsilon=used[player.name])
        assert torch.equal(view.x, at(net, batch.x, batch.y, seeds=seeds))


STEPS, K = 3, 3


@pytest.mark.parametrize(
    ("inner", "names", "forwards", "backwards"),
    [
        (Single(), LP[:1], STEPS, STEPS),
        (Each(), LP, K * STEPS, K * STEPS),
        (Each(), ("linf", "l2", "l1"), K * (STEPS + 1), K * STEPS),
        (Each(track=True), LP, K * STEPS + K, K * STEPS + K),
        (Each(adaptive="l2"), LP, 2 * K * STEPS + K, 2 * K * STEPS + K),
        (Max(), LP, K * (STEPS + 1), K * STEPS),
        (Max(), ("linf", "l2", "l1"), K * (STEPS + 1), K * STEPS),
        (Max(track=True), LP, K * (STEPS + 2), K * (STEPS + 1)),
        (Max(adaptive="l1"), LP, K * STEPS + K + K * (STEPS + 1), K * STEPS + K + K * STEPS),
        (Msd(), LP, (K + 1) * STEPS, STEPS),
        (Msd(), ("linf", "l2", "l1"), (K + 1) * STEPS, STEPS),
        (Msd(track=True), LP, (K + 1) * STEPS + K * (STEPS + 1), STEPS + K * (STEPS + 1)),
        (Msd(adaptive="l1", gradient="input"), LP, K * (STEPS + 1) + (K + 1) * STEPS, K * (STEPS + 1) + STEPS),
    ],
)
def test_passes_for_each_image(inner: Inner, names: tuple[str, ...], forwards: int, backwards: int) -> None:
    net, (batch, seeds), passes = toy_net(), toy_batch(), Passes()
    with passes.counted(net):
        inner.views(net, batch, list(toy_attacks(*names, steps=STEPS).values()), None, seeds)
    assert (passes.forwards, passes.backwards) == (4 * forwards, 4 * backwards)


def composed(inner: str, **settings: Any) -> Method:
    parts = {"objective": "ce", "weighting": "none", "averaging": "none"}
    named: dict[str, dict[str, Any]] = {kind: {"name": name} for kind, name in parts.items()}
    sampler = "sat" if inner == "single" else "every"
    return methods.compose(named | {"sampler": {"name": sampler}, "inner": {"name": inner, **settings}})


def trained_passes(inner: str, **settings: Any) -> float:
    made, recipe = composed(inner, **settings), Recipe(epochs=1, batch_size=16)
    fitted = tune("", toy_net(), toy_images(16), toy_attacks(*LP, steps=STEPS), recipe, method=made)
    return float(fitted.history[0]["forwards"] + fitted.history[0]["backwards"])


def test_a_training_step_of_avg_costs_k_single_ones_and_msd_less_than_max() -> None:
    single, each, worst, msd = (trained_passes(name) for name in ("single", "each", "max", "msd"))
    assert each == K * single
    assert msd < worst < each + K
    assert trained_passes("each", adaptive="l2") > 2 * each - 2 * K  # all but the training passes, twice


@pytest.mark.parametrize("inner", [*(made() for made in INNERS), *(made(adaptive="l2") for made in INNERS)])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(inner: Inner, training: bool) -> None:
    net, (batch, seeds) = toy_net().train(training), toy_batch()
    next(net.children()).eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    players = list(toy_attacks(*LP, steps=2).values())
    views = inner.views(net, batch, players, None, seeds)
    assert all(bool((p.grad == 7).all()) and p.requires_grad for p in net.parameters() if p.grad is not None)
    assert [module.training for module in net.modules()] == modes
    assert same(before, net.state_dict())
    assert not any(view.x.requires_grad or view.loss.requires_grad for view in views)
    with torch.no_grad():
        again = inner.views(net.eval(), batch, players, None, seeds)
    assert all(torch.equal(a.x, b.x) for a, b in zip(views, again, strict=True))


@pytest.mark.parametrize("made", INNERS)
def test_tracking_changes_nothing_but_what_is_known(made: type[Each | Max | Msd]) -> None:
    """Gradients 0.3, 0.4, 0.8 as in Algorithm 2's example: l1 leads. Free: of one step at 0.2 all report its loss."""
    batch, views = pixel_batch(0.2), []
    for track in (True, False):
        inner = made(track=track)
        views.append(inner.views(Line(), batch, pixel_attacks(), first_logit, seeds_of(batch)))
        row = inner.record()
        assert row["budgets"] == dict(zip(LP, [0.1, 0.2, 0.6], strict=True))
        assert row["domination"]["by_gradient"] == float(track)
        assert row["domination"]["leads.pgd-linf" if made is Each and not track else "leads.pgd-l1"] == 1
    assert all(torch.equal(a.x, b.x) for a, b in zip(*views, strict=True))


def test_each_compares_cross_entropies_where_an_attack_has_a_loss_of_its_own() -> None:
    """Logits (s, 0), label 0, pixel 0.5: 0.2 after Darker, whose loss was that of 0.5, and 0.8 after Boaster."""
    inner, batch, model, passes = Each(), pixel_batch(0.5), Line(), Passes()
    with passes.counted(model):
        inner.views(model, batch, [Boaster(epsilon=0.3), Darker(epsilon=0.3)], None, seeds_of(batch))
    assert passes.forwards == 1 + 1 + 1  # the image by both, and Boaster's result once more
    row = inner.record()["domination"]
    assert (row["leads.darker"], row["leads.boaster"], row["by_gradient"]) == (1, 0, 0)


def test_one_attack_dominates_nobody() -> None:
    batch = pixel_batch(0.5)
    for inner in (made() for made in INNERS):
        inner.views(Line(), batch, pixel_attacks()[:1], None, seeds_of(batch))
        assert inner.record() == {"budgets": {"pgd-linf": 0.1}}


@pytest.mark.parametrize("made", INNERS)
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"adaptive": "l3"}, "unknown norm for adaptive 'l3'"),
        ({"gradient": "weights"}, "unknown gradient 'weights'"),
        ({"clip_low": 0.0}, "clip_low <= 1"),
        ({"clip_low": 1.2}, "clip_low <= 1"),
        ({"clip_high": 0.9}, "1 <= clip_high"),
        ({"clip_high": math.inf}, "1 <= clip_high"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    made: type[Each | Max | Msd], settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(InputError, match=why):
        made(**settings)


@pytest.mark.parametrize("made", INNERS)
def test_one_attack_has_nothing_to_adapt_to(made: type[Each | Max | Msd]) -> None:
    batch = pixel_batch(0.5)
    with pytest.raises(InputError, match="several attacks"):
        made(adaptive="l2").views(Line(), batch, pixel_attacks()[:1], None, seeds_of(batch))


@pytest.mark.parametrize(("inner", "adaptive"), [("each", "l1"), ("max", "l2"), ("msd", "l2"), ("msd", "none")])
def test_a_resumed_run_records_what_an_undisturbed_one_does(inner: str, adaptive: str, tmp_path: Path) -> None:
    def go(files: Folder | None, stop: int = 9) -> Any:
        recipe, made = Recipe(epochs=2, batch_size=12, lr=0.05), composed(inner, adaptive=adaptive)
        of = toy_attacks("linf", "l2", "pgd-l1", steps=1)
        report = lambda epoch, _: epoch < stop  # noqa: E731
        return tune("", toy_net(), toy_images(24), of, recipe, method=made, files=files, report=report)

    whole = go(None)
    go(Folder(tmp_path), stop=1)
    rest = go(Folder(tmp_path))
    assert same(rest.model.state_dict(), whole.model.state_dict())
    assert told(rest.history) == told(whole.history)
    assert {*whole.history[0]["budgets"]} == {"linf", "l2", "pgd-l1"}
    assert whole.history[1]["domination"]["mean_streak"] >= 1
