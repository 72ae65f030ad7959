"""AutoAttack behind its fence: the same verdicts as pyautoattack's own, and none of its traps."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import random
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from attack_toys import Toy, images, small_net
from digits_net import EPSILON, trained
from torch import Tensor, nn

import attacks
from attacks import losses
from attacks.evaluation import ensemble, foreign
from attacks.evaluation.autoattack import AutoAttack
from attacks.evaluation.foreign import Part

NORMS = ("linf", "l2", "l1")
VERSIONS = ("apgd-ce", "apgd-t", "fab-t", "square", "autoattack")
VARIANTS = ("autoattack-plus", "autoattack-rand", "autoattack-custom")
NAMES = [f"{version}-{norm}" for version in (*VERSIONS, *VARIANTS) for norm in NORMS]
STAGES = {
    "autoattack": ["apgd-ce", "apgd-t", "fab-t", "square"],
    "autoattack-plus": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
    "autoattack-rand": ["apgd-ce", "apgd-dlr"],
    "autoattack-custom": ["apgd-ce", "apgd-t"],
}


def made(name: str, epsilon: float, num_steps: int) -> AutoAttack:
    attack: Any = attacks.get(name, "digits", epsilon=epsilon)
    return attack.with_steps(num_steps)  # type: ignore[no-any-return]


def theirs(version: str, norm: str, epsilon: float, num_steps: int, seed: int, net: Any, x: Tensor, y: Tensor) -> Any:
    """pyautoattack's run_standard_evaluation, its attacks made anew for fewer steps, their other settings its own."""
    from pyautoattack import AutoAttack as Theirs
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    kind = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    whole = Theirs(net, eps=epsilon, norm=kind, seed=seed, version=version)
    for label, remade in (("apgd", APGDAttack), ("apgd_targeted", APGDAttack_targeted)):
        old = getattr(whole, label)
        new = remade(net, n_iter=num_steps, norm=kind, eps=epsilon, device="cpu", logger=old.logger)
        for key in ("n_restarts", "eot_iter", "use_largereps", "n_target_classes"):
            setattr(new, key, getattr(old, key, None))
        setattr(whole, label, new)
    whole.fab.n_iter, whole.square.n_queries = num_steps, 50 * num_steps
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flags = []
        for count in range(1, len(whole.attacks_to_run) + 1):
            if count < len(whole.attacks_to_run) and version == "plus":
                continue
            part: Any = whole
            order, part.attacks_to_run = part.attacks_to_run, part.attacks_to_run[:count]
            x_adv, y_adv = part.run_standard_evaluation(x, y, batch_size=len(x))
            part.attacks_to_run = order
            flags.append(y_adv == y)
    return x_adv, flags


@pytest.mark.parametrize(
    ("version", "norm"),
    [("standard", "linf"), ("standard", "l2"), ("standard", "l1"), ("rand", "l2"), ("plus", "linf")],
)
def test_the_verdicts_are_those_of_pyautoattack(version: str, norm: str) -> None:
    net, x, y = trained()
    x, y, seeds = x[:48], y[:48], torch.arange(48) + 5
    epsilon, steps = EPSILON[norm] * (0.7 if norm == "l1" else 1.2), 6
    name = f"autoattack-{norm}" if version == "standard" else f"autoattack-{version}-{norm}"
    view = made(name, epsilon, steps).run(net, x, y, seeds=seeds)
    x_adv, flags = theirs(version, norm, epsilon, steps, foreign.global_seed(seeds), net, x, y)
    for mine, other in zip(reversed(view.stages), reversed(flags), strict=False):
        assert torch.equal(mine[1], other), mine[0]
    assert torch.equal(view.robust_all, flags[-1])
    assert 2 < view.robust_all.sum() < 46
    torch.testing.assert_close(view.x, x_adv, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_stages_images_and_budget(name: str) -> None:
    """The stages shrink, the images are inside the budget, and a plain forward agrees with every verdict."""
    net, x, y = trained()
    x, y = x[:24], y[:24].clone()
    y[3] = (y[3] + 1) % 10
    norm = name.rsplit("-", 1)[1]
    attack = made(name, EPSILON[norm] * 1.5, 3)
    view = attack.run(net, x, y, seeds=torch.arange(24))
    kind = name.removesuffix(f"-{norm}")
    assert [stage for stage, _ in view.stages] == STAGES.get(kind, [kind])
    flags = torch.stack([(net(x).argmax(1) == y), *[flag for _, flag in view.stages]])
    assert (flags[1:] <= flags[:-1]).all()
    assert torch.equal(view.robust_all, flags[-1])
    assert torch.equal(view.steps_correct, flags[1:].sum(0))
    assert torch.equal(net(view.x).argmax(1) == y, view.robust_all)
    assert flags[-1].sum() < flags[0].sum()
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    length = torch.linalg.vector_norm((view.x - x).double().flatten(1), ord=order, dim=1)
    assert length.max() <= attack.epsilon * (1 + 1e-5)
    assert view.x.min() >= 0
    assert view.x.max() <= 1
    untouched = view.robust_all | ~flags[0]
    assert torch.equal(view.x[untouched], x[untouched])
    torch.testing.assert_close(view.loss, losses.cross_entropy(net(view.x), y))
    assert not attack.draws_per_image
    assert pickle.loads(pickle.dumps(attack)) == attack


def linear_batch(classes: int, batch: int, side: int) -> tuple[Any, Tensor, Tensor]:
    weights = torch.randn(classes, side * side, generator=torch.Generator().manual_seed(2))
    x = 0.4 + 0.2 * torch.rand(batch, 1, side, side, generator=torch.Generator().manual_seed(1))

    def model(x: Tensor) -> Tensor:
        assert len(x), "an empty batch"
        return (x - 0.5).flatten(1) @ weights.T

    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("batch", [1, 5])
def test_any_number_of_classes_and_images(classes: int, norm: str, batch: int) -> None:
    """Each of their six attacks breaks all within a budget that is ample, and none within one that is tiny."""
    model, x, y = linear_batch(classes, batch, 10)
    for epsilon, steps, broken in (({"linf": 0.3, "l2": 3.0, "l1": 30.0}[norm], 8, True), (1e-5, 1, False)):
        for component in foreign.NAMES:
            attack: Any = dataclasses.replace(
                made(f"autoattack-custom-{norm}", epsilon, steps), components=(component,)
            )  # type: ignore[call-arg]
            view = attack.run(model, x, y, seeds=torch.arange(batch))
            assert bool((~view.robust_all).all()) == broken, component
            assert bool(view.robust_all.all()) != broken, component


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_reach_the_optimum(classes: int) -> None:
    """A linear model, the budget a little above and below the analytic distance: the stand-in for DLR aims right."""
    model, x, y = linear_batch(classes, 20, 6)
    weights, logits = model(torch.eye(36).reshape(36, 1, 6, 6) + 0.5).T, model(x)
    slope = (weights[y][:, None] - weights).abs().sum(2)
    distance = ((logits.gather(1, y[:, None]) - logits) / slope).scatter(1, y[:, None], torch.inf).amin(1)
    epsilon = float(distance.median())
    for component in ("apgd-dlr", "apgd-t", "fab", "fab-t"):
        if component == "apgd-dlr" and classes == 3:
            continue  # three classes have the DLR of pyautoattack itself, which divides by another logit's distance
        attack: Any = dataclasses.replace(made("autoattack-custom-linf", epsilon, 40), components=(component,))  # type: ignore[call-arg]
        robust = attack.run(model, x, y, seeds=torch.arange(20)).robust_all
        assert robust[distance > epsilon * 1.0001].all()
        assert not robust[distance < epsilon * 0.98].any(), component


@pytest.mark.parametrize("name", ["autoattack-plus-linf", "autoattack-plus-l2", "autoattack-plus-l1"])
@pytest.mark.parametrize("flat", [False, True])
def test_nothing_escapes(
    name: str, flat: bool, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Random states, weights' gradients, prints, log records and (errors here) warnings: theirs warn of zeros."""
    net, x = small_net(1), images(4, 1, 16, 16)
    with torch.no_grad():
        net[6].weight *= not flat
        y = net(x).argmax(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.initial_seed()  # type: ignore[index]
    modes = [module.training for module in net.train().modules()]
    with caplog.at_level(logging.DEBUG):
        made(name, 0.05, 2).run(net, x, y, seeds=torch.arange(4))
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # type: ignore[index]
    assert states[2] == random.getstate()
    assert states[3] == torch.initial_seed()
    assert modes == [module.training for module in net.modules()]
    assert all(weight.grad is None and weight.requires_grad for weight in net.parameters())
    assert not caplog.records
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


class Odd(nn.Module):
    """Logits that are of no use: `kind` of them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net, self.kind = small_net(1), kind

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        if self.kind == "flat":
            return logits * 0
        if self.kind == "nan":
            return logits * torch.nan
        moved = (
            (x - CLEAN[: len(x)]).flatten(1).abs().amax(1) > 1e-6 if len(x) == len(CLEAN) else x.flatten(1).sum(1) > 1e9
        )
        return torch.where(moved[:, None], torch.nan, logits)


CLEAN = images(3, 1, 16, 16)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["flat", "nan", "nan once moved"])
def test_useless_logits(kind: str, norm: str) -> None:
    net = Odd(kind)
    y = net.net(CLEAN).argmax(1) if kind == "nan once moved" else torch.zeros(3, dtype=torch.int64)
    view = made(f"autoattack-plus-{norm}", 0.1, 2).run(net, CLEAN, y, seeds=torch.arange(3))
    assert view.x.isfinite().all()
    assert view.robust_all.all() == (kind == "flat")
    assert not view.robust_all.any() or kind == "flat"
    if kind != "nan once moved":
        assert torch.equal(view.x, CLEAN)


def test_no_survivors(toy: Toy) -> None:
    sizes: list[int] = []

    def model(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return toy.net(x)  # type: ignore[no-any-return]

    view = made("autoattack-linf", 0.1, 2).run(model, toy.x, (toy.y + 1) % 5, seeds=toy.seeds)
    assert sizes == [4]
    assert not view.robust_all.any()
    assert len(view.stages) == 4
    assert torch.equal(view.x, toy.x)


def test_misclassified_images_are_left_out(toy: Toy) -> None:
    y, sizes = toy.y.clone(), list[int]()
    y[1] = (y[1] + 1) % 5

    def model(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return toy.net(x)  # type: ignore[no-any-return]

    made("apgd-ce-l2", 1e-4, 2).run(model, toy.x, y, seeds=toy.seeds)
    assert sizes[0] == 4
    assert set(sizes[1:]) == {3}


def test_square_asks_5000_queries_and_no_backward() -> None:
    assert foreign._QUERIES_PER_STEP * attacks.get("square-linf").num_steps == 5000
    net, x, y = trained()
    calls = {"forward": 0}

    class Blind(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            calls["forward"] += 1
            return net(x)  # type: ignore[no-any-return]

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise AssertionError("a backward")

    for norm in NORMS:
        calls["forward"] = 0
        view = made(f"square-{norm}", 1.5 * EPSILON[norm], 4).run(Blind.apply, x[:60], y[:60], seeds=torch.arange(60))
        assert 200 <= calls["forward"] <= 206
        assert view.robust_all.sum() < (net(x[:60]).argmax(1) == y[:60]).sum() - 5, "progress"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_budget_breaks_more(version: str, norm: str) -> None:
    net, x, y = trained()
    left = []
    for share in (0.5, 1, 2):
        attack = made(f"{version}-{norm}", EPSILON[norm] * share, 3)
        left.append(int(attack.run(net, x[:100], y[:100], seeds=torch.arange(100)).robust_all.sum()))
    assert int((net(x[:100]).argmax(1) == y[:100]).sum()) > left[0] > left[1] + 3 > left[2] + 6, left


@pytest.mark.parametrize(("version", "forwards"), [("autoattack-rand", 125), ("autoattack-plus", 219)])
def test_forwards(version: str, forwards: int, toy: Toy) -> None:
    """Of an image that survives 2 steps and 100 queries, 5 classes: 20 for each gradient; 5 restarts of three parts.

    Rand: 2 parts of 1 + 20 * 3 + 1, and the clean one. Plus: 17 + 17 for APGD, 32 for FAB, 104 for Square, 18 and 30
    for 4 targets of APGD and FAB, and the clean one.
    """
    calls: list[int] = []

    def model(x: Tensor) -> Tensor:
        calls.append(len(x))
        return toy.net(x)  # type: ignore[no-any-return]

    made(f"{version}-linf", 1e-6, 2).run(model, toy.x, toy.y, seeds=toy.seeds)
    assert calls == [4] * forwards


def test_seeds(toy: Toy) -> None:
    """The batch's seeds, in any order, decide all draws."""
    attack = made("apgd-ce-linf", 0.05, 3)
    first, again, other = (attack(toy.net, toy.x, toy.y, seeds=seeds) for seeds in
                           (toy.seeds, toy.seeds.clone(), toy.seeds + 1))  # fmt: skip
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert foreign.global_seed(toy.seeds) == foreign.global_seed(toy.seeds.flip(0))
    assert foreign.global_seed(toy.seeds) != foreign.global_seed(toy.seeds[:3])
    assert 0 <= foreign.global_seed(torch.tensor([-(2**63), 2**63 - 1])) < 2**63


def test_restarts_break_no_less(toy: Toy) -> None:
    one = made("apgd-ce-linf", 0.01, 2)
    single = one.run(toy.net, toy.x, toy.y, seeds=toy.seeds)
    several = dataclasses.replace(one, num_restarts=3).run(toy.net, toy.x, toy.y, seeds=toy.seeds)
    assert (several.robust_all <= single.robust_all).all()


def test_components_in_the_order_given() -> None:
    net, x, y = trained()
    attack: Any = dataclasses.replace(made("autoattack-custom-linf", 0.1, 2), components=("square", "fab-t"))  # type: ignore[call-arg]
    view = attack.run(net, x[:8], y[:8], seeds=torch.arange(8))
    assert [stage for stage, _ in view.stages] == ["square", "fab-t"]


@pytest.mark.parametrize("components", [(), ("apgd",), ("apgd-ce", "pgd"), "apgd-ce"])
def test_impossible_components(components: Any) -> None:
    with pytest.raises(
        attacks.errors.InputError, match=r"expected components among apgd-ce, .*, square, got .*custom-l2"
    ):
        dataclasses.replace(attacks.get("autoattack-custom-l2"), components=components)  # type: ignore[call-arg]


def test_it_takes_no_other_loss(toy: Toy) -> None:
    with pytest.raises(attacks.errors.InputError, match="expected loss=None, for this attack has losses of its own"):
        attacks.get("autoattack-linf")(toy.net, toy.x, toy.y, seeds=toy.seeds, loss=losses.margin)


@pytest.mark.parametrize(("height", "width"), [(h, w) for h in (4, 5, 9, 11, 12, 16, 18, 24, 28) for w in (h, 28, 33)])
def test_sizes_that_square_overruns_are_refused_and_others_run(height: int, width: int) -> None:
    net, x = small_net(1), images(2, 1, height, width)
    y = net(x).argmax(1)
    for norm in ("l2", "l1"):
        attack = dataclasses.replace(made(f"square-{norm}", 0.01, 1))
        if foreign.fits(Part("square"), norm, height, width):
            attack.run(net, x, y, seeds=y)
            continue
        with pytest.raises(attacks.errors.InputError, match=f"such as 32, got {height}x{width}"):
            attack.run(net, x, y, seeds=y)
        bare = foreign._make(Part("square"), foreign.Budget(norm, 0.01, 1, 5, 0), net, x.device)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), pytest.raises((RuntimeError, ZeroDivisionError)):
            bare.perturb(x, y)
    assert foreign.fits(Part("square"), "linf", height, width)


@pytest.mark.parametrize("norm", NORMS)
def test_what_they_return_is_not_trusted(norm: str, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images far outside the budget, not finite, or in fp64 are brought in or dropped, and judged anew."""

    def far(part: Any, budget: Any, model: Any, x: Tensor, y: Tensor) -> Tensor:
        wrong = x.double() + 3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        wrong[0, 0, 0, 0] = torch.nan
        wrong[1] = torch.inf
        return wrong

    monkeypatch.setattr(foreign, "perturb", far)
    attack = made(f"apgd-ce-{norm}", {"linf": 0.02, "l2": 0.5, "l1": 5.0}[norm], 1)
    view = attack.run(toy.net, toy.x, toy.y, seeds=toy.seeds)
    assert view.x.dtype == torch.float32
    assert torch.equal(toy.net(view.x).argmax(1) == toy.y, view.robust_all)
    assert view.robust_all[:2].all()
    assert torch.equal(view.x[:2], toy.x[:2])


@pytest.mark.parametrize("norm", NORMS)
def test_confined(norm: str) -> None:
    """What is inside stays, bit for bit; what is outside comes to the ball, as near to it as fp32 allows."""
    attack = made(f"apgd-ce-{norm}", {"linf": 0.1, "l2": 1.0, "l1": 10.0}[norm], 1)
    x = images(6, 3, 12, 12)
    near = (x + 1e-4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert torch.equal(ensemble.confined(near, x, attack), near)
    far = torch.rand(x.shape, generator=torch.Generator().manual_seed(2))
    length = ensemble._norm(ensemble.confined(far, x, attack) - x, norm)
    assert (length <= attack.epsilon * (1 + 1e-5)).all()
    assert (length >= attack.epsilon * 0.99).all()
    far[2, 0, 0, 0] = torch.nan
    assert torch.equal(ensemble.confined(far, x, attack)[2], x[2])


def test_the_model_may_return_a_tensor_that_is_not_to_be_changed(toy: Toy) -> None:
    """Square writes into the logits: here they are what the model keeps."""
    kept: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        kept.append(toy.net(x))
        return kept[-1]

    made("square-linf", 0.05, 1).run(model, toy.x, toy.y, seeds=toy.seeds)
    assert all(logits.isfinite().all() for logits in kept)


def test_importing_the_attacks_does_not_import_it() -> None:
    code = "import sys, attacks; attacks.names(); assert 'attacks.evaluation.foreign' in sys.modules"
    check = f"{code}; assert not {{'pyautoattack', 'tensorflow'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
    import pyautoattack  # noqa: F401

    assert "tensorflow" not in sys.modules
