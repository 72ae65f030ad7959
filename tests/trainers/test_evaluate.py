"""Verdicts: one bit per image and attack, that no batch, no order and no dropping can change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from trainer_toys import toy_attacks, toy_images, toy_net

import attacks
from attacks import Attack, View
from attacks.errors import InputError
from attacks.latent import LatentAttack, Scene
from attacks.lp import PGDLinf
from attacks.precision import exact_fp32
from trainers.data import ImageSet
from trainers.evaluate import (
    PROTOCOLS,
    Protocol,
    Verdict,
    correct_by_attack,
    evaluate,
    image_seeds,
    protocol,
)
from trainers.recipe import Recipe
from trainers.worst import Broken, worst

ANY, LAST = Protocol("any", None, any_iterate=True), Protocol("last", None, any_iterate=False)


class Bright(nn.Module):
    """Class 0 for images brighter than 1/2 on average, at 20 times the difference; else class 1."""

    def forward(self, x: Tensor) -> Tensor:
        z = 20 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([z, -z], 1)


def grey(*levels: int, label: int = 0) -> ImageSet:
    """Uniform images of these grey levels, 0 to 255."""
    n = len(levels)
    pixels = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 8, 8).contiguous()
    return ImageSet(pixels, torch.full((n,), label), torch.arange(n) + 100)


def verdicts(
    model: nn.Module, images: ImageSet, of: dict[str, Attack], how: Protocol = ANY, **more: int
) -> list[Verdict]:
    return list(evaluate(model, images, of, protocol=how, **{"seed": 0, **more}))


def bits(model: nn.Module, images: ImageSet, attack: Attack, how: Protocol = ANY, **more: int) -> list[bool]:
    found: list[bool] = verdicts(model, images, {attack.name: attack}, how, **more)[1].robust.tolist()
    return found


@dataclass(frozen=True, kw_only=True)
class Shift(LatentAttack):
    """Brightness x + latent; begins at -epsilon, and every step adds step_size whatever the gradient says."""

    name: ClassVar[str] = "shift"
    family: ClassVar[str] = "semantic"

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        return torch.full_like(x[:, :1, :1, :1], -self.epsilon), ()

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        return (x + latent).clamp(0, 1)

    def ascend(self, latent: Tensor, grad: Tensor, x: Tensor, scene: Scene, step: int) -> Tensor:
        return latent + self.step_size

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent


def test_verdicts_on_images_whose_margin_is_known() -> None:
    """linf 0.1 moves the mean by 0.1: grey levels below 0.6 * 255 = 153 break, those below 128 are wrong already."""
    images, linf = grey(100, 130, 150, 156, 200), PGDLinf(epsilon=0.1, num_steps=4, step_size=0.05)
    clean, attacked = verdicts(Bright(), images, {"pgd-linf": linf})
    assert clean.robust.tolist() == [False, True, True, True, True]
    assert attacked.robust.tolist() == [False, False, False, True, True]
    assert (clean.attack, clean.family, clean.epsilon, clean.num_steps) == ("clean", "clean", 0.0, 0)
    assert (attacked.attack, attacked.family, attacked.epsilon, attacked.num_steps) == ("pgd-linf", "lp", 0.1, 4)
    assert attacked.robust.dtype == torch.bool
    assert clean.predicted.tolist() == [1, 0, 0, 0, 0]
    assert attacked.predicted.tolist() == [1, 1, 1, 0, 0]
    assert attacked.seconds > 0


def test_the_mean_loss_is_that_of_the_images_that_decided() -> None:
    """One image wrong when clean: its clean loss counts; one robust: that of its last iterate, 0.1 darker."""
    images = grey(102, 204)  # 0.4 and 0.8: z = -2 and 6; attacked at 0.7: z = 4
    linf = PGDLinf(epsilon=0.1, num_steps=3, step_size=0.1)
    clean, attacked = verdicts(Bright(), images, {"pgd-linf": linf})
    ce = torch.nn.functional.softplus  # of -2 z
    assert clean.mean_loss == pytest.approx(float(ce(torch.tensor([4.0, -12.0])).mean()), abs=1e-6)
    assert attacked.mean_loss == pytest.approx(float(ce(torch.tensor([4.0, -8.0])).mean()), abs=1e-6)


@pytest.mark.parametrize("how", [ANY, LAST])
def test_an_image_that_is_wrong_when_clean_is_never_robust(how: Protocol) -> None:
    """Shift from -0.2 in one step of 0.6: the last iterate is 0.4 brighter, and right."""
    healing = Shift(epsilon=0.2, num_steps=1, step_size=0.6)
    images = grey(100, 110)
    assert bits(Bright(), images, healing, how) == [False, False]
    assert correct_by_attack(Bright(), images, {"shift": healing}, seed=0).tolist() == [[True], [True]]


def test_any_iterate_and_the_last_one() -> None:
    """From -0.3 to 0 in three steps: 0.7 is broken on the way and right at the end, 0.9 stays right."""
    swing, images = Shift(epsilon=0.3, num_steps=3, step_size=0.1), grey(179, 230)
    assert bits(Bright(), images, swing, ANY) == [False, True]
    assert bits(Bright(), images, swing, LAST) == [True, True]
    # from -0.05 down to -0.35: 0.7 breaks at the last iterate only, which both see
    sinking = Shift(epsilon=0.05, num_steps=3, step_size=0.1)
    falling = type("Falling", (Shift,), {"ascend": lambda self, latent, *rest: latent - self.step_size})
    sinking = falling(**dataclasses.asdict(sinking))
    assert bits(Bright(), images, sinking, ANY) == [False, True]
    assert bits(Bright(), images, sinking, LAST) == [False, True]


def test_a_model_that_is_always_wrong() -> None:
    found = verdicts(Bright(), grey(0, 10, 20), toy_attacks("linf", "fog"))
    assert [verdict.robust.tolist() for verdict in found] == [[False] * 3] * 3
    assert found[1].mean_loss == found[0].mean_loss


def test_a_logit_that_is_no_number_is_no_right_answer() -> None:
    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 2), torch.nan) * x.sum()

    (clean,) = verdicts(Blind(), grey(10, 200), {})
    assert clean.robust.tolist() == [False, False]
    assert clean.predicted.tolist() == [-1, -1]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A network that gets most toy images right, and not far from its boundary."""
    from trainer_toys import tune

    model = toy_net()
    recipe = Recipe(epochs=8, batch_size=16, lr=0.1, schedule="one-cycle")
    tune("sat", model, toy_images(96), toy_attacks("hsv"), recipe)
    return model


REAL = toy_attacks("linf", "l2", "pgd-l2", "pgd-l1", "fog", "hsv", steps=7)


@pytest.mark.parametrize("name", REAL)
def test_dropping_broken_images_changes_no_bit(trained: nn.Module, name: str) -> None:
    images = toy_images(40, seed=1)
    attack = dataclasses.replace(REAL[name], epsilon=attacks.get(name, epsilon="high").epsilon)
    x, y = images.floats(torch.arange(40)), images.labels
    view: View = attack.run(trained, x, y, seeds=image_seeds(images.ids, 0, name), final_forward=True)
    right = trained(x).argmax(1) == y
    found = torch.tensor(bits(trained, images, attack))
    assert torch.equal(found, right & view.robust_all)
    assert int(right.sum()) > 0


def test_something_breaks_and_something_holds(trained: nn.Module) -> None:
    """Else the tests around it would hold of any code."""
    found = verdicts(trained, toy_images(40, seed=1), REAL)
    broken = [int((found[0].robust & ~verdict.robust).sum()) for verdict in found[1:]]
    assert int(found[0].robust.sum()) > 20
    assert max(broken) > 3
    assert any(bool(verdict.robust.any()) for verdict in found[1:])


@pytest.mark.parametrize("how", [ANY, LAST])
def test_bits_do_not_depend_on_the_batch_size_or_the_order(trained: nn.Module, how: Protocol) -> None:
    images = toy_images(18, seed=2)
    order = torch.randperm(18, generator=torch.Generator().manual_seed(3))
    whole = verdicts(trained, images, REAL, how)
    for found in (verdicts(trained, images, REAL, how, batch_size=size) for size in (1, 7)):
        assert all(torch.equal(a.robust, b.robust) for a, b in zip(found, whole, strict=True))
        assert [a.mean_loss for a in found] == pytest.approx([b.mean_loss for b in whole], rel=1e-3)
    shuffled = verdicts(trained, images.subset(order), REAL, how)
    assert all(torch.equal(a.robust, b.robust[order]) for a, b in zip(shuffled, whole, strict=True))


@pytest.mark.parametrize("how", [ANY, LAST])
def test_robust_is_where_the_class_given_is_the_label(trained: nn.Module, how: Protocol) -> None:
    images = toy_images(40, seed=1)
    found = verdicts(trained, images, REAL, how, batch_size=16)
    assert all(torch.equal(one.robust, one.predicted == images.labels) for one in found)
    assert torch.equal(found[0].predicted, trained(images.floats()).argmax(1))
    wrong = [one.predicted[~one.robust] for one in found]
    assert set(torch.cat(wrong).tolist()) <= {0, 1, 2}
    assert sum(len(each) for each in wrong) > 10


@pytest.mark.parametrize("size", [5, 40])
def test_the_worst_images_are_the_broken_ones_of_the_highest_loss(trained: nn.Module, size: int) -> None:
    """Reached again here from what the attack itself returns; neither batches nor order matter."""
    order = torch.randperm(40, generator=torch.Generator().manual_seed(4))
    images = toy_images(40, seed=1)
    attack = dataclasses.replace(REAL["linf"], epsilon=0.2)
    found = list(
        evaluate(
            trained, images.subset(order), {"linf": attack}, protocol=LAST, seed=0, batch_size=size, keep_worst=True
        )
    )
    x, y = images.floats(), images.labels
    with exact_fp32():
        made = attack(trained, x, y, seeds=image_seeds(images.ids, 0, "linf"))
        logits = trained(made).detach()
        losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
        broken = (trained(x).argmax(1) == y) & (logits.argmax(1) != y)
    expected = sorted(broken.nonzero().flatten().tolist(), key=lambda i: -losses[i])[:3]
    assert len(expected) == 3
    worst = found[1].worst
    assert [one.image for one in worst] == images.ids[expected].tolist()
    assert [one.loss for one in worst] == pytest.approx(losses[expected].tolist(), rel=1e-3)
    for one, i in zip(worst, expected, strict=True):
        assert (one.label, one.predicted) == (int(y[i]), int(logits[i].argmax()))
        assert torch.equal(one.clean, images.images[i])
        assert float((one.attacked.float() / 255 - made[i]).abs().max()) <= 0.5 / 255 + 1e-4
    assert found[0].worst == ()
    assert verdicts(trained, images, {"linf": attack})[1].worst == ()


def test_a_loss_that_is_no_number_is_the_highest_and_equal_ones_go_by_id() -> None:
    blank = torch.zeros(1, 2, 2, dtype=torch.uint8)
    given = [(7, 1.0), (5, 1.0), (9, 0.5), (8, float("nan"))]
    found = worst(Broken(image, 0, 1, loss, blank, blank) for image, loss in given)
    assert [one.image for one in found] == [8, 5, 7]


def test_shares_of_the_images_have_the_bits_of_the_whole(trained: nn.Module) -> None:
    images = toy_images(31, seed=2)
    halves = [verdicts(trained, images.subset(torch.arange(a, b)), REAL) for a, b in ((0, 15), (15, 31))]
    for one, two, whole in zip(*halves, verdicts(trained, images, REAL), strict=True):
        assert torch.equal(torch.cat([one.robust, two.robust]), whole.robust)


def test_the_model_keeps_its_weights_and_statistics(trained: nn.Module) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    trained.train()
    verdicts(trained, toy_images(9), REAL)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_seeds_depend_on_seed_attack_and_image_alone() -> None:
    ids = torch.tensor([5, 1 << 32, 9])
    fog = image_seeds(ids, 0, "fog")
    assert torch.equal(image_seeds(ids.flip(0), 0, "fog").flip(0), fog)
    assert torch.equal(image_seeds(ids[1:], 0, "fog"), fog[1:])
    others = [fog, image_seeds(ids, 1, "fog"), image_seeds(ids, 0, "gof"), image_seeds(ids, 0, "hsv")]
    assert len(set(torch.cat(others).tolist())) == 12


def test_correct_by_attack_judges_the_last_iterate() -> None:
    """It is the probe of training: what the attack returned, whether or not the clean image was right."""
    swing, images = Shift(epsilon=0.3, num_steps=3, step_size=0.1), grey(179, 100)
    linf = PGDLinf(epsilon=0.1, num_steps=2, step_size=0.1)
    found = correct_by_attack(Bright(), images, {"shift": swing, "pgd-linf": linf}, seed=0, batch_size=1)
    assert found.tolist() == [[True, True], [False, False]]
    assert correct_by_attack(Bright(), images.subset(torch.arange(0)), {"shift": swing}, seed=0).shape == (0, 1)


def test_protocols_have_names() -> None:
    assert set(PROTOCOLS) == {"quick", "train", "full", "as_published", "autoattack"}
    assert protocol("quick") == protocol("quick", 10) == Protocol("quick", 10, True)
    assert protocol("quick", 5) == Protocol("quick-5", 5, True)
    assert protocol("full", 7) == Protocol("full-7", 7, True)
    assert protocol("as_published") == Protocol("as_published", None, False)
    with pytest.raises(InputError, match="unknown protocol 'quik': did you mean 'quick'"):
        protocol("quik")
    with pytest.raises(InputError, match="num_steps >= 1, got 0"):
        protocol("full", 0)


def test_a_protocol_sets_the_steps_and_keeps_the_reach() -> None:
    attack = PGDLinf(epsilon=0.1, num_steps=40, step_size=0.01)
    assert protocol("full").attack(attack) is attack
    short = protocol("quick", 5).attack(attack)
    assert isinstance(short, PGDLinf)
    assert short.num_steps == 5
    assert short.step_size == pytest.approx(0.08)
    (_, verdict) = verdicts(Bright(), grey(200), {"pgd-linf": attack}, protocol("quick", 5))
    assert verdict.num_steps == 5


def test_precision_is_restored_whatever_happens() -> None:
    convolution: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolution.fp32_precision
    with exact_fp32():
        assert convolution.fp32_precision == "ieee"
    assert convolution.fp32_precision == before
    with pytest.raises(KeyError), exact_fp32():
        raise KeyError
    assert convolution.fp32_precision == before
