"""Phase I: what it measures, what it leaves behind, and how it is kept. Its equations: test_equations.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from trainer_toys import Biased, same, toy_attacks, toy_images, toy_net

from attacks.errors import InputError
from trainers.recipe import Recipe
from trainers.step import Diverged
from trainers.tradeoff import Prior, measure

RECIPE = Recipe(lr=0.05, batch_size=16)
OF = toy_attacks("pgd-l2", "hsv", "fog")


@pytest.fixture(scope="module")
def prior() -> Prior:
    return measure(toy_net(), toy_images(80), OF, RECIPE, seed=0)


def test_the_model_is_left_as_it_was() -> None:
    model = toy_net().train()
    model.get_submodule("layer1").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    measure(model, toy_images(80), OF, RECIPE, seed=0)
    assert same(model.state_dict(), before)
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_model_is_left_as_it_was_when_it_diverges() -> None:
    model = Biased(0.0, 1e30, -1e30)
    before = model.bias.tolist()
    with pytest.raises(Diverged):
        measure(model, toy_images(80), OF, Recipe(lr=1e38, batch_size=8), seed=0)
    assert model.bias.tolist() == before


def test_shapes_and_ranges(prior: Prior) -> None:
    assert prior.attacks == ("pgd-l2", "hsv", "fog")
    assert prior.accuracy.shape == (3,)
    assert prior.loss.shape == (80, 3)
    assert prior.tradeoff.shape == (3, 3)
    assert 0 <= prior.accuracy.min() <= prior.accuracy.max() <= 1
    assert -1 <= prior.tradeoff.min() <= prior.tradeoff.max() <= 1
    assert prior.seconds > 0


def test_the_loss_is_2_where_an_attack_was_not_met(prior: Prior) -> None:
    """80 images less 32 for the probe in 3 batches of 16: each image meets one attack or, of the probe, none."""
    assert prior.probe == 32
    met = (prior.loss != 2.0).sum(1)
    assert met.bincount().tolist() == [32, 48]
    assert (prior.loss != 2.0).sum(0).tolist() == [16, 16, 16]


@pytest.mark.parametrize(
    ("n", "names", "asked", "probe"),
    [
        (60, ("hsv",), None, 30),  # 32, but at most half
        (100, ("hsv",), None, 50),  # 100 / (1 * 2)
        (101, ("hsv",), None, 50),
        (200, ("hsv", "pgd-l2"), None, 33),  # 200 / (2 * 3) = 33.3
        (180, ("hsv", "pgd-l2"), None, 32),  # 30: at least 32
        (100, ("hsv",), 7, 7),
    ],
)
def test_the_probe_is_n_over_m_m_plus_1_images(n: int, names: tuple[str, ...], asked: int | None, probe: int) -> None:
    prior = measure(Biased(0.0, 1.0, 2.0), toy_images(n), toy_attacks(*names), RECIPE, seed=0, probe=asked)
    assert prior.probe == probe
    assert int((prior.loss == 2.0).all(1).sum()) == probe


def test_batches_are_as_small_as_it_takes_for_every_attack_to_train() -> None:
    """64 images, 32 for the probe, 32 left: with batches of 128 only one of three attacks would train."""
    prior = measure(toy_net(), toy_images(64), OF, Recipe(batch_size=128, lr=0.05), seed=0)
    assert (prior.loss != 2.0).sum(0).tolist() == [11, 11, 10]


def test_too_few_images_are_refused() -> None:
    with pytest.raises(InputError, match="at least 12 training images for phase I with 3 attacks, got 11"):
        measure(toy_net(), toy_images(11), OF, RECIPE, seed=0)
    assert measure(toy_net(), toy_images(12), OF, RECIPE, seed=0).probe == 6


def test_the_same_seed_measures_the_same_and_another_does_not(prior: Prior) -> None:
    again = measure(toy_net(), toy_images(80), OF, RECIPE, seed=0)
    assert torch.equal(again.loss, prior.loss)
    assert torch.equal(again.tradeoff, prior.tradeoff)
    assert not torch.equal(measure(toy_net(), toy_images(80), OF, RECIPE, seed=1).loss, prior.loss)


def test_the_cost_is_one_epoch_and_m_plus_1_times_m_attacks_on_the_probe() -> None:
    class Counted(Biased):
        trained = evaluated = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.trained += len(x)
            else:
                self.evaluated += len(x)
            return super().forward(x)

    model: nn.Module = Counted(0.0, 0.1, 0.2)
    measure(model, toy_images(80), toy_attacks("pgd-l2", "hsv", steps=2), RECIPE, seed=0)
    assert model.trained == 48
    assert model.evaluated == 48 * 2 + 3 * 2 * 32 * (2 + 1)  # each attack 2 steps, on the probe a verdict more


def test_it_is_kept_as_it_is(prior: Prior) -> None:
    found = Prior.loads(prior.dumps())
    assert (found.attacks, found.probe, found.seconds) == (prior.attacks, prior.probe, prior.seconds)
    for name in ("accuracy", "loss", "tradeoff"):
        assert torch.equal(getattr(found, name), getattr(prior, name))


def cut(data: bytes) -> bytes:
    return data[:-9]


def empty(data: bytes) -> bytes:
    return b""


def text(data: bytes) -> bytes:
    return b"attack,accuracy\nlinf,0.3\n"


def other_tensors(data: bytes) -> bytes:
    from safetensors.torch import save

    return save({"w": torch.zeros(3)}, {"attacks": "a,b", "probe": "1", "seconds": "0"})


def no_facts(data: bytes) -> bytes:
    from safetensors.torch import load, save

    return save(load(data))


def other_attacks(data: bytes) -> bytes:
    from safetensors.torch import load, save

    return save(load(data), {"attacks": "a,b", "probe": "1", "seconds": "0"})


@pytest.mark.parametrize("damage", [cut, empty, text, other_tensors, no_facts, other_attacks])
def test_what_is_no_prior_is_refused_in_one_line(prior: Prior, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InputError, match=r"^expected a prior \(safetensors") as e:
        Prior.loads(damage(prior.dumps()))
    assert "\n" not in str(e.value)
