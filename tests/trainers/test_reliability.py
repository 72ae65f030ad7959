"""Signs of an evaluation that says too much, on verdicts made by hand and on models that hide their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trainer_toys import toy_images

import attacks
from trainers.evaluate import Verdict, evaluate, judge_attacked, judge_clean, protocol
from trainers.reliability import Probe, doubts, probes

N = 100
OF = {name: attacks.get(name) for name in ("linf", "pgd-linf", "l2", "fog")}


def verdict(attack: str, robust: int, norm: str | None = "linf", **more: Any) -> Verdict:
    """The first `robust` of 100 images are robust."""
    family = "semantic" if norm is None else "lp"
    return Verdict(attack, family, 0.1, 10, torch.arange(N) < robust, 1.0, 1.0, norm=norm, **more)


def test_probes_ask_for_more_steps_and_for_an_unbounded_attack() -> None:
    found = probes(OF, protocol("quick"))
    assert [probe.label for probe in found] == ["linf@4x", "pgd-linf@4x", "l2@4x", "fog@4x", "linf@unbounded"]
    assert [probe.num_steps for probe in found] == [40, 40, 40, 40, 20]
    assert found[-1].epsilon == 0.5
    assert probes({"fog": OF["fog"]}, protocol("full")) == [Probe("fog", 160)]


def test_an_attack_that_more_steps_make_stronger_has_not_converged() -> None:
    """On the 50 images probed: 3 of them more are over 2 points, 1 is not."""
    found = [verdict("linf", 40), verdict("pgd-linf", 40), verdict("fog", 40, None)]
    probed = {Probe("linf", 40): torch.arange(50) < 37, Probe("fog", 40): torch.arange(50) < 39}
    assert doubts(found, OF, probed) == {"linf": {"unconverged"}, "pgd-linf": set(), "fog": set()}


def test_what_survives_an_unbounded_attack_marks_every_lp_row() -> None:
    found = [verdict("linf", 40), verdict("l2", 40, "l2"), verdict("fog", 40, None)]
    probe = Probe("linf", 10, 0.5)
    marked = doubts(found, OF, {probe: torch.arange(50) < 2})
    assert marked == {"linf": {"survives-unbounded"}, "l2": {"survives-unbounded"}, "fog": set()}
    assert not any(doubts(found, OF, {probe: torch.arange(50) < 1}).values())


def test_queries_that_break_what_gradients_do_not() -> None:
    """Of 100 images 2 are broken by queries alone: over 1 %. Another norm is not concerned."""
    queries: Any = type("Queries", (type(OF["pgd-linf"]),), {"gradient_free": True})
    of = OF | {"queries": queries(epsilon=0.1, num_steps=10, step_size=0.1)}
    found = [verdict("linf", 40), verdict("queries", 38), verdict("l2", 60, "l2")]
    marked = doubts(found, of, {})
    assert marked == {"linf": {"black-box-stronger"}, "queries": {"black-box-stronger"}, "l2": set()}
    assert not any(doubts([verdict("linf", 40), verdict("queries", 39)], of, {}).values())
    assert not any(doubts([verdict("linf", 40), verdict("pgd-linf", 37), verdict("queries", 37)], of, {}).values())


def test_the_square_stage_of_autoattack_is_such_queries() -> None:
    of = {"autoattack-linf": OF["linf"]}
    stages = [("apgd-ce", 50), ("fab-t", 45), ("square", 40)]
    found = [verdict("autoattack-linf", 40)]
    found += [verdict(f"autoattack-linf/{name}", robust, conditional=True) for name, robust in stages]
    assert all(flags == {"black-box-stronger"} for flags in doubts(found, of, {}).values())
    found[-1] = verdict("autoattack-linf/square", 45, conditional=True)
    assert not any(doubts(found, of, {}).values())


class Rounded(nn.Module):
    """Bright or dark, told by a step: its gradient is 0 everywhere, so that no white-box attack moves anything."""

    def forward(self, x: Tensor) -> Tensor:
        z = (20 * (x.mean((1, 2, 3)) - 0.4)).round() + 0 * x.sum((1, 2, 3))
        return torch.stack([-z, z], 1)


def test_a_model_without_gradients_is_found_out() -> None:
    images = toy_images(20, classes=2)
    rows = torch.arange(20)
    with torch.no_grad():
        labels = Rounded()(images.floats(rows)).argmax(1)
    images = type(images)(images.images, labels, images.ids)
    linf, probe = attacks.get("linf").with_steps(5), Probe("linf", 5, 0.5)
    found = list(evaluate(Rounded(), images, {"linf": linf}, protocol=protocol("quick", 5), seed=0))
    assert found[1].robust.all()
    unbounded = attacks.get("linf", epsilon=0.5).with_steps(5)
    clean = judge_clean(Rounded(), images, rows)
    judged = judge_attacked(Rounded(), images, rows, unbounded, "linf", clean, any_iterate=True, seed=0)
    marked = doubts(found, {"linf": linf}, {probe: judged.robust})
    assert marked["linf"] == {"survives-unbounded"}


class Random(nn.Module):
    """Adds noise to its logits in eval mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + torch.rand(len(x), 1) * torch.tensor([1.0, 0.0, 0.0])


class Infinite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) / (x.mean((2, 3)) > 0.3)


@pytest.mark.parametrize(("model", "flag"), [(Random(), "stochastic"), (Infinite(), "non-finite")])
def test_models_whose_logits_cannot_be_trusted(model: nn.Module, flag: str) -> None:
    fog = {"fog": attacks.get("fog").with_steps(1)}
    found = list(evaluate(model, toy_images(12), fog, protocol=protocol("quick", 1), seed=0))
    assert [flag in verdict.flags for verdict in found] == [True, True]


def test_a_sound_model_has_no_flags() -> None:
    from trainer_toys import toy_net

    fog = {"fog": attacks.get("fog").with_steps(1)}
    found = list(evaluate(toy_net(), toy_images(12), fog, protocol=protocol("quick", 1), seed=0))
    assert [verdict.flags for verdict in found] == [(), ()]


def test_a_weak_attack_says_so() -> None:
    weak = {"pgd-l1": attacks.get("pgd-l1").with_steps(1)}
    _, found = evaluate(Rounded(), toy_images(4, classes=2), weak, protocol=protocol("quick", 1), seed=0)
    assert found.flags == ("weak-attack",)
