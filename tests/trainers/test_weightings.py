"""The weightings, each on an example worked by hand."""

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
from trainers.parts import objectives, weightings
from trainers.recipe import Recipe
from trainers.weightings.gairat import Gairat, burn_in_epochs
from trainers.weightings.mail import Mail
from trainers.weightings.vir import Vir

ATTACKS = list(toy_attacks("linf", "pgd-l2", steps=10).values())


def view(kappa: list[int], attack: str = "linf") -> View:
    n, steps = len(kappa), torch.tensor(kappa)
    return View(attack, torch.zeros(n, 3, 2, 2), torch.zeros(n), steps > 0, steps)


def weights(of: Any, clean: list[list[float]] | None, adv: list[list[float]], y: list[int], epoch: int = 0) -> Tensor:
    of.start(ATTACKS, 2)
    p = None if clean is None else torch.tensor(clean)
    made: Tensor = of(p, torch.tensor(adv), view([0] * len(y)), torch.tensor(y), epoch)
    return made


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


class TestGairat:
    def test_vir_eq_2(self) -> None:
        """z = -1 + 5 (1 - 2 kappa / 10) for kappa 0, 4, 5, 10: 4, 0, -1, -6."""
        expected = [(1 + math.tanh(z)) / 2 for z in (4, 0, -1, -6)]
        assert expected[1] == 0.5
        raw = Gairat(burn_in=0.0).raw(torch.tensor([0, 4, 5, 10]), 10)
        assert raw.tolist() == pytest.approx(expected, rel=1e-4)

    def test_the_weights_of_the_batch_sum_to_its_size(self) -> None:
        """kappa 0 and 4: 0.99966 and 0.5, their sum 1.49966: 1.33319 and 0.66681."""
        made = Gairat(burn_in=0.0)
        made.start(ATTACKS, 1)
        w = made(None, torch.zeros(2, 2), view([0, 4]), torch.zeros(2).long(), 0)
        assert w.tolist() == pytest.approx([1.33318, 0.66682], abs=1e-5)

    def test_where_every_image_withstands_every_step_all_weigh_1(self) -> None:
        made = Gairat(burn_in=0.0, lam=-20.0)
        made.start(ATTACKS, 1)
        w = made(None, torch.zeros(3, 2), view([10, 10, 10]), torch.zeros(3).long(), 0)
        assert w.tolist() == pytest.approx([1.0] * 3)

    def test_the_other_functions(self) -> None:
        kappa = torch.tensor([0, 4, 10])
        sigmoids = Gairat("sigmoid").raw(kappa, 10).tolist()
        assert sigmoids == pytest.approx([sigmoid(4), 0.5, sigmoid(-6)])
        assert Gairat("discrete").raw(kappa, 10).tolist() == pytest.approx([1.0, 7 / 11, 1 / 11])

    def test_the_steps_are_those_of_the_attack_over_all_restarts(self) -> None:
        """kappa 10 of 20 steps: as 5 of 10. A view of several attacks: the fewest of theirs, at most all."""
        made = Gairat(burn_in=0.0)
        twice = toy_attacks("fog", steps=10)["fog"]
        object.__setattr__(twice, "num_restarts", 2)
        made.start([*ATTACKS, twice], 1)
        y, p = torch.zeros(2).long(), torch.zeros(2, 2)
        assert torch.allclose(made(None, p, view([10, 0], "fog"), y, 0), made(None, p, view([5, 0]), y, 0))
        assert torch.equal(made(None, p, view([5, 0], "msd"), y, 0), made(None, p, view([5, 0]), y, 0))
        assert torch.equal(made(None, p, view([12, 0], "msd"), y, 0), made(None, p, view([10, 0]), y, 0))


class TestMail:
    def test_vir_eq_3_and_4(self) -> None:
        """p_y less the largest other: 0.7 - 0.2 = 0.5 and 0.1 - 0.6 = -0.5; gamma 2, beta 0.25: -2 * 0.25 = -0.5 and
        -2 * -0.75 = 1.5."""
        adv, y = [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], [0, 2]
        w = weights(Mail(gamma=2.0, beta=0.25, factor=1.0, burn_in=0.0), None, adv, y)
        assert w.tolist() == pytest.approx([sigmoid(-0.5), sigmoid(1.5)])
        tripled = weights(Mail(gamma=2.0, beta=0.25, burn_in=0.0), None, adv, y)
        assert tripled.tolist() == pytest.approx([3 * sigmoid(-0.5), 3 * sigmoid(1.5)])
        normalised = weights(Mail(gamma=2.0, beta=0.25, normalise=True, burn_in=0.0), None, adv, y)
        total = sigmoid(-0.5) + sigmoid(1.5)
        assert normalised.tolist() == pytest.approx([2 * sigmoid(-0.5) / total, 2 * sigmoid(1.5) / total])

    def test_normalised_weights_are_numbers_however_steep(self) -> None:
        """Both round to 0 before they are scaled; they differ by exp(400)."""
        w = weights(Mail(gamma=1000.0, beta=0.0, normalise=True, burn_in=0.0), None, [[0.9, 0.1], [0.7, 0.3]], [0, 0])
        assert w.tolist() == [0.0, 2.0]

    def test_the_codes_slope_and_bias_are_the_defaults(self) -> None:
        """3 sigmoid(10 * (max other - p_y - 0.5)): 1 - 0 - 0.5 = 0.5."""
        w = weights(Mail(burn_in=0.0), None, [[0.0, 1.0]], [0])
        assert w.tolist() == pytest.approx([3 * sigmoid(5.0)])


class TestVir:
    CLEAN, ADV, Y = [[0.5, 0.5], [0.25, 0.75]], [[0.25, 0.75], [0.25, 0.75]], [0, 1]
    KL = 0.5 * math.log(4 / 3)

    def test_eq_5_and_6_alone(self) -> None:
        """alpha exp(-gamma p_y): p_y = 0.5 and 0.75; KL: 0.5 ln 2 + 0.5 ln 2/3 and 0."""
        settings: dict[str, Any] = {"alpha": 7.0, "gamma": 10.0, "beta": 0.007, "burn_in": 0.0}
        s_v = weights(Vir(score="s_v", **settings), self.CLEAN, self.ADV, self.Y)
        assert s_v.tolist() == pytest.approx([7 * math.exp(-5), 7 * math.exp(-7.5)])
        s_d = weights(Vir(score="s_d", **settings), self.CLEAN, self.ADV, self.Y)
        assert s_d.tolist() == pytest.approx([self.KL, 0.0], abs=1e-6)

    def test_eq_7(self) -> None:
        w = weights(Vir(burn_in=0.0), self.CLEAN, self.ADV, self.Y)
        assert w.tolist() == pytest.approx([7 * math.exp(-5) * self.KL + 0.007, 0.007], abs=1e-6)

    def test_it_is_finite_and_not_negative_where_probabilities_are_0_or_alike(self) -> None:
        w = weights(Vir(burn_in=0.0, gamma=0.0, beta=0.0), [[1.0, 0.0], [0.1, 0.9]], [[0.0, 1.0], [0.1, 0.9]], [0, 1])
        assert float(w[0]) == pytest.approx(7 * 87.3, rel=1e-3)  # -ln of the smallest fp32
        assert 0 <= float(w[1]) < 1e-5


class TestBurnIn:
    @pytest.mark.parametrize(
        ("share", "epochs", "first"),
        [
            (76 / 115, 115, 76),  # vir, Alg. 1: w = 1 if epoch <= 76, counted from 1
            (76 / 120, 120, 76),  # MAIL
            (0.5, 120, 60),  # GAIRAT
            (76 / 115, 20, 13),
            (76 / 115, 2, 1),
            (76 / 115, 1, 0),
            (0.0, 5, 0),
            (1.0, 5, 5),
            (0.3, 10, 3),  # 0.3 * 10 is 3 in fp64, 0.29 * 100 is not 29
            (0.29, 100, 29),
        ],
    )
    def test_share_in_epochs(self, share: float, epochs: int, first: int) -> None:
        assert burn_in_epochs(share, epochs) == first

    @pytest.mark.parametrize("made", [Gairat(burn_in=0.5), Mail(burn_in=0.5), Vir(burn_in=0.5)])
    def test_all_images_weigh_1_until_it_ends(self, made: Any) -> None:
        """Two epochs, half of them burn-in."""
        made.start(ATTACKS, 2)
        p, y = torch.tensor([[0.3, 0.7], [0.6, 0.4]]), torch.tensor([0, 0])
        first, second = (made(p, p.flip(0), view([2, 7]), y, epoch) for epoch in (0, 1))
        assert first.tolist() == [1.0, 1.0]
        assert second[0] != second[1]


def test_the_papers_hyper_parameters_are_the_defaults() -> None:
    assert (Vir().alpha, Vir().gamma, Vir().beta, Vir().burn_in) == (7, 10, 0.007, 76 / 115)
    assert (Gairat().function, Gairat().lam) == ("tanh", -1)
    assert (Mail().gamma, Mail().beta, Mail().factor, Mail().normalise) == (10, -0.5, 3, False)
    assert [weightings.get(name) for name in ("gairat", "mail", "vir")] == [Gairat, Mail, Vir]
    assert (Gairat.clean, Mail.clean, Vir.clean) == (False, False, True)


@pytest.mark.parametrize(
    ("made", "wrong", "rule"),
    [
        (Gairat, {"function": "tanhh"}, "unknown function of gairat 'tanhh': did you mean 'tanh'"),
        (Gairat, {"lam": math.inf}, "expected lam between -20 and 20, got inf"),
        (Gairat, {"burn_in": 1.5}, "expected burn_in between 0 and 1, got 1.5"),
        (Mail, {"gamma": 0.0}, "expected gamma > 0, got 0"),
        (Mail, {"factor": -3.0}, "expected factor > 0, got -3"),
        (Mail, {"beta": math.nan}, "expected a finite beta, got nan"),
        (Mail, {"burn_in": 60.0}, "expected burn_in between 0 and 1, got 60"),
        (Vir, {"alpha": -1.0}, "expected alpha >= 0, got -1"),
        (Vir, {"gamma": math.nan}, "expected gamma >= 0, got nan"),
        (Vir, {"beta": -0.1}, "expected beta >= 0, got -0.1"),
        (Vir, {"score": "sv"}, "unknown score of vir 'sv'"),
        (Vir, {"burn_in": -0.1}, "expected burn_in between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(made: Any, wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        made(**wrong)


@pytest.mark.parametrize("objective", ["ce", "trades"])
@pytest.mark.parametrize("name", ["gairat", "mail", "vir"])
def test_it_trains(name: str, objective: str) -> None:
    attacks: dict[str, Attack] = {"pgd-linf": PGDLinf(epsilon=0.03, num_steps=2, step_size=0.02, random_start=True)}
    weighting: Any = weightings.get(name)(burn_in=0.5)  # type: ignore[call-arg]
    weighting.start(list(attacks.values()), 4)
    of = replace(method("sat"), objective=objectives.get(objective)(), weighting=weighting)
    recipe = Recipe(epochs=4, batch_size=16, lr=0.02, schedule="constant")
    history = fit(toy_net(), toy_images(), attacks, of, recipe, importance=ones(attacks), seed=0).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]


class Noting(Vir):
    """VIR that notes what it gave to which class, by epoch."""

    def __call__(self, p_clean: Tensor | None, p_adv: Tensor, view: View, y: Tensor, epoch: int) -> Tensor:
        w = super().__call__(p_clean, p_adv, view, y, epoch)
        noted: list[tuple[int, int, float]] = self.__dict__.setdefault("noted", [])
        noted += zip([epoch] * len(y), y.tolist(), w.tolist(), strict=True)
        return w


def test_an_epoch_records_the_mean_weight_of_each_class() -> None:
    """Class 3 has no image; class 0 has half of them. In the burn-in all weigh 1."""
    attacks = toy_attacks("pgd-linf", steps=2)
    images = toy_images(32, classes=4)
    images.labels[:] = torch.tensor([0, 0, 1, 2]).repeat(8)
    weighting = Noting(burn_in=0.5)
    of = replace(method("sat"), weighting=weighting)
    recipe = Recipe(epochs=3, batch_size=12, lr=0.02, schedule="constant")
    history = fit(toy_net(4), images, attacks, of, recipe, importance=ones(attacks), seed=0).history
    for epoch, record in enumerate(history):
        given = {str(c): [w for e, k, w in weighting.__dict__["noted"] if (e, k) == (epoch, c)] for c in range(3)}
        assert [len(weights) for weights in given.values()] == [16, 8, 8]
        assert record["class_weights"] == pytest.approx({c: sum(ws) / len(ws) for c, ws in given.items()}, rel=1e-6)
    assert history[0]["class_weights"] == {"0": 1.0, "1": 1.0, "2": 1.0}
    assert len(set(history[2]["class_weights"].values())) == 3


def test_nothing_is_recorded_where_all_images_count_the_same() -> None:
    attacks = toy_attacks("pgd-linf")
    recipe = Recipe(epochs=1, batch_size=16, lr=0.02)
    fitted = fit(toy_net(), toy_images(), attacks, method("sat"), recipe, importance=ones(attacks), seed=0)
    assert "class_weights" not in fitted.history[0]
    assert [weightings.get(name).weighs for name in ("gairat", "mail", "vir", "none")] == [True, True, True, False]
