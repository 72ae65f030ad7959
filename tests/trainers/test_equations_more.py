"""What the four papers compute, and where a worked example of it is; here those of whole steps: weights before, weights
after. `test_x.py::eq_5` stands for the tests of that name.

cas-three-phase
    Eq. 1-10             test_equations.py::eq_1 ... eq_10 (8 and 10 together)
    Alg. 1, 2-9          test_equations.py::eq_2_and_3, eq_4; test_tradeoff.py (which batches, what is left behind)
    Alg. 1, 11-16, 20-24 test_equations.py::eq_5, eq_6, eq_9, alg_1; the draw: test_samplers.py::draw
    Alg. 1, 17 and 25    here
    Alg. 1, 18 and 26    test_equations.py::eq_7, eq_8
cas-bandit
    Eq. 1-4              bounds on risks: no code computes them
    Eq. 5-7, 9, 10       test_samplers_more.py::eq_5 ... eq_10; against whole histories: agrees_with_whole_histories
    Eq. 8                test_objectives.py::cas_bandit_eq_8; its step: here
    Eq. 11               test_calibrate.py
    Alg. 1, 1-9          test_samplers_more.py; the draw: test_samplers.py::draw
    Alg. 1, 10-14        here; the records: test_samplers_more.py::algorithm_1
    Alg. 2, 3            background (UCB, Thompson sampling): not used
vir
    Eq. 1                here, the epoch of burn-in
    Eq. 2-7              test_weightings.py::vir_eq_2, vir_eq_3_and_4, eq_5_and_6, eq_7
    Eq. 8, 10            here
    Eq. 9                test_objectives.py::vir_eq_9
    Eq. 11-13            a proof about two Gaussians
    Alg. 1, 5-9          here (line 5's noise: see Vir); more of PGD: tests/attacks
    Alg. 1, 10-14        here; line 12's epoch: test_weightings.py::BurnIn
adaptive-budget
    Eq. 1                here, MAX
    Eq. 2, 3             test_svm.py, with Theorems 1 and 3
    Eq. 4, 5             steps of proofs
    Alg. 1, MAX          test_adaptive_budget.py::algorithm_1_max; its step: here
    Alg. 1, AVG          here
    Alg. 1, MSD          here, step by step; test_msd.py::algorithm_1_msd
    Alg. 2, 3-5, 10-15   test_adaptive_budget.py::algorithm_2; its step: here
    Table 5              test_domination.py::table_5s
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from inner_toys import pixel_attacks, pixel_batch, seeds_of
from torch import Tensor, nn

from attacks import Attack, View
from attacks.base import Loss, Model, evaluate
from attacks.lp import PGDL2, PGDLinf
from trainers import methods
from trainers.data import ImageSet
from trainers.inner.msd import Msd
from trainers.loop import Fitted, fit
from trainers.parts import Method
from trainers.recipe import Recipe
from trainers.tradeoff import Prior


class Slope(nn.Module):
    """Of an image of one pixel s: logits (w s, 0), w = 1, so that p = sigmoid(w s) of label 0, CE = log(1 + e^(-w s))
    and dCE/dw = -s sigmoid(-w s)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        s = self.w * x.sum((1, 2, 3))
        return torch.stack([s, 0 * s], 1)


@dataclass(frozen=True, kw_only=True)
class Darker(Attack):
    """The pixel goes down by epsilon, whatever the loss."""

    name: ClassVar[str] = "darker"
    family: ClassVar[str] = "toy"

    num_steps: int = 1

    def _run(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss, final_forward: bool, stop: bool
    ) -> View:
        logits, values = evaluate(model, loss, x - self.epsilon, y)
        right = logits.argmax(1) == y
        return View(self.name, x - self.epsilon, values, right, right.long())


def composed(**parts: Any) -> Method:
    """SAT with CE, but for the parts given: a name, or a name with its settings."""
    names = methods.entry("sat").parts() | parts
    return methods.compose({kind: {"name": part} if isinstance(part, str) else part for kind, part in names.items()})


def step_on(made: Method, of: list[Attack], *pixels: float, lr: float = 1.0, epochs: int = 1, **more: Any) -> Fitted:
    """One batch an epoch of images of label 0, the pixels given; plain gradient descent."""
    n = len(pixels)
    grey = torch.tensor([round(255 * pixel) for pixel in pixels], dtype=torch.uint8).view(n, 1, 1, 1)
    images = ImageSet(grey, torch.zeros(n, dtype=torch.int64), torch.arange(n))
    recipe = Recipe(epochs=epochs, batch_size=n, lr=lr, momentum=0.0, weight_decay=0.0, schedule="constant")
    named, settings = {attack.name: attack for attack in of}, {"importance": {a.name: 1.0 for a in of}} | more
    return fit(Slope(), images, named, made, recipe, seed=0, **settings)


def weight(fitted: Fitted) -> float:
    return float(fitted.model.state_dict()["w"])


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def ce(z: float) -> float:
    return math.log1p(math.exp(-z))


def fall(s: float, w: float = 1.0) -> float:
    """-dCE/dw."""
    return s * sigmoid(-w * s)


def test_cas_three_phase_alg_1_lines_17_and_25_what_a_batch_leaves_behind() -> None:
    """Pixels 0.4 and 0.8, linf 0.1: 0.3 and 0.7, both right. acc: 0.9 * 0.5 + 0.1 * 1; loss: log(1 + e^-0.3) and
    log(1 + e^-0.7), of the weights before the update. The other attack, of importance 0, is left as it was."""
    of: list[Attack] = pixel_attacks()[:2]
    prior = Prior(("pgd-linf", "pgd-l2"), torch.tensor([0.5, 0.6]), torch.full((2, 2), 2.0), torch.zeros(2, 2), 1, 0.0)
    made, importance = composed(sampler="cas"), {"pgd-linf": 1.0, "pgd-l2": 0.0}
    step_on(made, of, 0.4, 0.8, prior=prior, importance=importance)
    after = made.sampler.state_dict()
    assert after["accuracy"].tolist() == pytest.approx([0.55, 0.6])
    assert after["loss"].flatten().tolist() == pytest.approx([0.554355, 2.0, 0.403186, 2.0], abs=1e-6)


def test_cas_bandit_eq_8_and_alg_1_lines_10_to_14_one_iteration() -> None:
    """Pixel 0.4, linf 0.1: 0.3. beta 0.75: dL/dw = -(0.75 * 0.3 * 0.425557 + 0.25 * 0.4 * 0.401312) = -0.135882; with
    lr 2, w = 1.271763. Before: N = 1, 1. After: N = 2, 1, and L of linf is the adversarial 0.554355, not L_total."""
    made = composed(sampler={"name": "cas-bandit", "window": 2}, objective={"name": "hybrid", "beta": 0.75})
    fitted = step_on(made, pixel_attacks()[:2], 0.4, 0.4, lr=2.0, importance={"pgd-linf": 1.0, "pgd-l2": 0.0})
    assert weight(fitted) == pytest.approx(1.271763, abs=1e-6)
    after = made.sampler.state_dict()
    assert after["picks"].tolist() == [2.0, 1.0]
    assert after["log_losses"].tolist() == [pytest.approx([0.0, math.log(0.554355)], abs=1e-5), [0.0, 0.0]]
    assert fitted.history[0]["losses"] == pytest.approx({"pgd-linf": 0.554355}, abs=1e-6)


def test_vir_eq_1_and_8_and_alg_1_two_epochs_the_first_of_burn_in() -> None:
    """Pixels 0.4, 0.8. PGD, two steps of 0.08 in a ball of 0.1: 0.32, 0.24 -> 0.3, and 0.7.
    Epoch 1, all weights 1: w = 1 + 2 (0.3 * 0.425557 + 0.7 * 0.331812) / 2 = 1.359936.
    Epoch 2: p = 0.632736 and 0.747995, p' = 0.600604 and 0.721508; S_v = 7 e^(-2 p) = 1.974741 and 1.568186;
    S_d = 0.002173 and 0.001782; weights 0.104292 and 0.102794;
    w = 1.359936 + (0.104292 * 0.3 * 0.399396 + 0.102794 * 0.7 * 0.278492) = 1.392471."""
    vir = {"name": "vir", "alpha": 7.0, "gamma": 2.0, "beta": 0.1, "burn_in": 0.5}
    attack: list[Attack] = [PGDLinf(epsilon=0.1, num_steps=2, step_size=0.08)]
    assert weight(step_on(composed(), attack, 0.4, 0.8, lr=2.0)) == pytest.approx(1.359936, abs=1e-6)
    assert weight(step_on(composed(weighting=vir), attack, 0.4, 0.8, lr=2.0, epochs=2)) == pytest.approx(
        1.392471, abs=2e-6
    )


def test_vir_eq_10_the_weight_is_the_divergences_alone_and_has_no_gradient() -> None:
    """Pixels 0.6, 0.8, each 0.4 darker. p = 0.645656, 0.689974, p' = 0.549834, 0.598688;
    KL = p log(p / p') + (1 - p) log((1 - p) / (1 - p')) = 0.018913, 0.017904;
    dKL/dw = s p (1 - p) (s - s') + s' (p' - p) = 0.054908 - 0.019164, 0.068451 - 0.036515;
    weights 8 e^(-3 p) KL + 1.6 = 1.621809, 1.618076; dCE/dw = -0.212606, -0.248020;
    dL/dw: the mean of -0.212606 + 5 * 1.621809 * 0.035744 and -0.248020 + 5 * 1.618076 * 0.031936 = 0.043799."""
    vir = {"name": "vir", "alpha": 8.0, "gamma": 3.0, "beta": 1.6, "burn_in": 0.0}
    made = composed(objective={"name": "trades", "beta": 5.0}, weighting=vir)
    assert weight(step_on(made, [Darker(epsilon=0.4)], 0.6, 0.8)) == pytest.approx(1 - 0.043799, abs=2e-6)


PIXEL = 0.8
REACHED = (0.7, 0.6, 0.2)
"""From the pixel under linf 0.1, l2 0.2, l1 0.6."""


@pytest.mark.parametrize(
    ("inner", "update"),
    [
        ("each", sum(map(fall, REACHED)) / 3),  # gamma = 1/3 each: (0.232269 + 0.212606 + 0.090033) / 3
        ("max", fall(0.2)),  # gamma = 0, 0, 1: l1 has the largest loss
        ("msd", fall(0.2)),  # of one step the candidates are what the attacks reach
    ],
)
def test_adaptive_budget_eq_1_and_alg_1_the_update(inner: str, update: float) -> None:
    made = composed(sampler="every", inner=inner)
    assert weight(step_on(made, pixel_attacks(), PIXEL, PIXEL)) == pytest.approx(1 + update, abs=1e-6)


def test_adaptive_budget_alg_1_msd_step_by_step() -> None:
    """Pixel 0.8; linf in a ball of 0.1 by 0.1, l2 in one of 0.3 by 0.08. delta 0 -> linf -0.1, l2 -0.08: -0.1. From
    there linf stays at -0.1, l2 goes to -0.18: that. Then linf is cut back to -0.1, l2 goes to -0.26: that."""
    players: list[Attack] = [
        PGDLinf(epsilon=0.1, num_steps=3, step_size=0.1),
        PGDL2(epsilon=0.3, num_steps=3, step_size=0.08),
    ]
    for steps, delta, linf_won in ((1, -0.1, 1), (2, -0.18, 1 / 2), (3, -0.26, 1 / 3)):
        inner, batch = Msd(), pixel_batch(PIXEL)
        cut = [replace(player, num_steps=steps) for player in players]
        (view,) = inner.views(Slope(), batch, cut, None, seeds_of(batch))
        assert float(view.x) == pytest.approx(PIXEL + delta)
        assert float(view.loss) == pytest.approx(ce(PIXEL + delta))
        assert inner.record()["domination"]["wins.pgd-linf"] == pytest.approx(linf_won)


def test_adaptive_budget_alg_2_the_update_is_at_the_new_budgets() -> None:
    """At linf 0.1, l2 0.2 the parameter's gradients are 0.7 * 0.331812 = 0.232269 and 0.6 * 0.354344 = 0.212606; their
    mean 0.222437, for of two the median is that: budgets 0.1 * 1.044197 and 0.2 * 0.955803, pixels 0.695580 and
    0.608839; the update is the mean of 0.695580 * 0.332793 and 0.608839 * 0.352324 = 0.222996."""
    made = composed(sampler="every", inner={"name": "each", "adaptive": "l2"})
    fitted = step_on(made, pixel_attacks()[:2], PIXEL, PIXEL)
    assert fitted.history[0]["budgets"] == pytest.approx({"pgd-linf": 0.1044197, "pgd-l2": 0.1911605}, abs=1e-6)
    assert weight(fitted) == pytest.approx(1.222996, abs=2e-6)
