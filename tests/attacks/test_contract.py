"""What attacks/base.py promises, for every attack in the registry: a new attack is tested by being registered."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from attack_toys import Features, Toy, images, small_net
from torch import Tensor, nn
from torch.nn import functional as F

import attacks
from attacks.apgd import APGD
from attacks.base import ATTACKS, Attack
from attacks.errors import InputError
from attacks.evaluation.ensemble import OwnLoss
from attacks.evaluation.spsa import SPSA
from attacks.latent import LatentAttack
from attacks.perceptual.ppgd import PPGD

NAMES = attacks.names()
FOREIGN = [name for name in NAMES if not ATTACKS.get(name).draws_per_image]
"""pyautoattack's: they draw by batch, their steps wait for the device, and in three norms they are the same code. The
whole contract is held by one of each kind here, a short one by all; tests/attacks/test_autoattack.py has the rest."""
CHOSEN = {"apgd-ce-linf", "apgd-t-l2", "fab-t-l1", "square-linf", "autoattack-linf"}
OWN = [name for name in NAMES if name not in FOREIGN]
CLIMBING = [
    name
    for name in OWN
    if issubclass(ATTACKS.get(name), LatentAttack | APGD | PPGD) and not issubclass(ATTACKS.get(name), SPSA)
]
"""One forward for each iterate, and every iterate is a verdict."""
OWN_LOSS = [name for name in NAMES if issubclass(ATTACKS.get(name), OwnLoss)]
STEPS = 5
every_attack = pytest.mark.parametrize("name", [*OWN, *sorted(CHOSEN)])
every_own_attack = pytest.mark.parametrize("name", OWN)
every_climbing_attack = pytest.mark.parametrize("name", CLIMBING)


def made(name: str, dataset: str = "cifar10", epsilon: float | str | None = None) -> Attack:
    """In one run, its distances measured by a toy."""
    return dataclasses.replace(attacks.get(name, dataset, epsilon), num_restarts=1).bind(Features())


def short(name: str, dataset: str = "cifar10") -> Attack:
    return made(name, dataset).with_steps(2 if name in FOREIGN else STEPS)


def norm(name: str, delta: Tensor) -> Tensor:
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[str(ATTACKS.get(name).norm)]
    return torch.linalg.vector_norm(delta.double().flatten(1), ord=order, dim=1)


def proper(x_adv: Tensor, x: Tensor) -> bool:
    return bool(
        x_adv.shape == x.shape
        and x_adv.dtype == torch.float32
        and not x_adv.requires_grad
        and x_adv.isfinite().all()
        and x_adv.min() >= 0
        and x_adv.max() <= 1
    )


@every_attack
def test_name_family_and_frozen(name: str) -> None:
    attack = attacks.get(name)
    assert type(attack).name == name == attack.name
    assert ATTACKS.get(name) is type(attack)
    assert attack.family in {"lp", "perceptual", "semantic"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.epsilon = 1.0  # type: ignore[misc]
    assert dataclasses.replace(attack, num_steps=3).num_steps == 3


@every_own_attack
def test_output_is_detached_finite_in_the_box_and_changed(name: str, toy: Toy) -> None:
    view = short(name).run(toy.net, toy.x, toy.y, seeds=toy.seeds)
    assert proper(view.x, toy.x)
    assert view.attack == name
    assert not view.loss.requires_grad
    assert view.loss.shape == view.robust_all.shape == view.steps_correct.shape == (4,)
    assert view.robust_all.dtype == torch.bool
    assert view.steps_correct.dtype == torch.int64
    assert ((view.x - toy.x).flatten(1).abs().amax(1) > 0).all()


@every_own_attack
def test_attack_raises_the_loss(name: str, toy: Toy) -> None:
    with torch.no_grad():
        before = F.cross_entropy(toy.net(toy.x), toy.y)
        after = F.cross_entropy(toy.net(short(name)(toy.net, toy.x, toy.y, seeds=toy.seeds)), toy.y)
    assert after > before


@every_attack
@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_inside_the_budget(name: str, level: str, toy: Toy) -> None:
    attack = made(name, epsilon=level).with_steps(2 if name in FOREIGN else STEPS)
    attack = dataclasses.replace(attack, **({"step_size": 10.0} if hasattr(attack, "step_size") else {}))
    if attack.family == "lp":
        x_adv = attack(toy.net, toy.x, toy.y, seeds=toy.seeds)
        assert norm(name, x_adv - toy.x).max() <= attack.epsilon * (1 + 1e-5) + 1e-6
    if isinstance(attack, LatentAttack):
        rendered = spy(attack)
        rendered.attack.run(toy.net, toy.x, toy.y, seeds=toy.seeds)
        assert len(rendered.latents) == STEPS + 1
        for latent, scene in rendered.latents:
            torch.testing.assert_close(attack.project(latent, scene), latent, rtol=1e-6, atol=1e-7)


@dataclasses.dataclass
class Spied:
    attack: Attack
    latents: list[tuple[Tensor, tuple[Tensor, ...]]]


def spy(attack: LatentAttack) -> Spied:
    """The same attack, whose rendered latents are kept."""
    latents = []
    made: Any = type(attack)

    class Spy(made):  # type: ignore[misc]
        def render(self, x: Tensor, latent: Tensor, scene: tuple[Tensor, ...]) -> Tensor:
            latents.append((latent.detach().clone(), scene))
            return super().render(x, latent, scene)  # type: ignore[no-any-return]

    fields = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}
    return Spied(Spy(**fields), latents)


@every_attack
def test_model_inputs_and_random_states_are_left_alone(name: str, toy: Toy) -> None:
    net = toy.net.train()
    net[3].eval()
    net[0].weight.requires_grad_(False)
    net[6].weight.grad = torch.ones_like(net[6].weight)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    x, y, seeds = toy.x.clone(), toy.y.clone(), toy.seeds.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    short(name)(net, toy.x, toy.y, seeds=toy.seeds)

    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert [p.requires_grad for p in net.parameters()] == [False, *[True] * 5]
    assert [p.grad is None for p in net.parameters()] == [True, True, True, True, False, True]
    assert torch.equal(net[6].weight.grad, torch.ones_like(net[6].weight))
    assert torch.equal(x, toy.x)
    assert torch.equal(y, toy.y)
    assert torch.equal(seeds, toy.seeds)
    assert not toy.x.requires_grad


@every_attack
def test_modes_come_back_after_an_error(name: str, toy: Toy) -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            raise RuntimeError("out of memory")

    net = nn.Sequential(Fails()).train()
    with pytest.raises(RuntimeError, match="out of memory"):
        short(name)(net, toy.x, toy.y, seeds=toy.seeds)
    assert all(module.training for module in net.modules())


@every_attack
def test_eval_mode_whatever_the_mode_before(name: str, toy: Toy) -> None:
    expected = short(name)(toy.net.eval(), toy.x, toy.y, seeds=toy.seeds)
    assert torch.equal(expected, short(name)(toy.net.train(), toy.x, toy.y, seeds=toy.seeds))


@every_attack
def test_same_seed_same_bits(name: str, toy: Toy) -> None:
    first, again = (short(name).run(toy.net, toy.x, toy.y, seeds=toy.seeds) for _ in range(2))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.loss, again.loss)
    one, two = (short(name)(toy.net, toy.x, toy.y, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)


@every_climbing_attack
def test_another_seed_is_another_start(name: str, toy: Toy) -> None:
    attack = with_random_start(short(name))
    first, other = (first_iterate(attack, toy, toy.seeds + shift) for shift in (0, 100))
    assert ((first - other).flatten(1).abs().amax(1) > 0).all()
    assert torch.equal(first[1:3], first_iterate(attack, toy, toy.seeds)[1:3])
    x_adv = attack(toy.net, toy.x, toy.y, seeds=toy.seeds)
    assert proper(x_adv, toy.x)
    if attack.family == "lp":
        assert norm(name, x_adv - toy.x).max() <= attack.epsilon * (1 + 1e-5) + 1e-6


def with_random_start(attack: Attack) -> Attack:
    return dataclasses.replace(attack, random_start=True) if hasattr(attack, "random_start") else attack


def first_iterate(attack: Attack, toy: Toy, seeds: Tensor) -> Tensor:
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return toy.net(x)

    attack.run(model, toy.x, toy.y, seeds=seeds)
    return seen[0]


@every_own_attack
def test_draws_do_not_depend_on_the_batch(name: str, toy: Toy) -> None:
    """A linear model whose sums are taken image by image: matrix products round differently in another batch."""
    weights = torch.randn(3 * 32 * 32, 2, generator=torch.Generator().manual_seed(0))

    def model(x: Tensor) -> Tensor:
        return (x.flatten(1)[:, :, None] * weights).sum(1) / 300

    attack, y = with_random_start(short(name)), torch.tensor([0, 1, 1, 0])
    whole = attack(model, toy.x, y, seeds=toy.seeds)
    for part in ([0], [1, 2, 3], [3, 1]):
        alone = attack(model, toy.x[part], y[part], seeds=toy.seeds[part])
        differs = (alone - whole[part]).abs() > 1e-4
        assert differs.float().mean() < 0.01, f"{differs.float().mean():.3f} of the pixels differ"


@every_attack
def test_start_does_not_depend_on_the_batch(name: str, toy: Toy) -> None:
    attack = short(name)
    if isinstance(attack, LatentAttack):
        latent, scene = attack.start(toy.x, toy.seeds)
        for i in range(4):
            alone, beside = attack.start(toy.x[i : i + 1], toy.seeds[i : i + 1])
            torch.testing.assert_close(alone, latent[i : i + 1], rtol=1e-6, atol=0)
            for one, all_of_them in zip(beside, scene, strict=True):
                torch.testing.assert_close(one, all_of_them[i : i + 1], rtol=1e-5, atol=1e-6)


@every_attack
@pytest.mark.parametrize("batch", [1, 3])
def test_misclassified_images(name: str, batch: int, toy: Toy) -> None:
    x, y, seeds = toy.x[:batch], (toy.y[:batch] + 1) % 5, toy.seeds[:batch]
    view = short(name).run(toy.net, x, y, seeds=seeds, final_forward=True)
    assert proper(view.x, x)
    assert not view.robust_all.any()


@every_attack
def test_channels_last(name: str, toy: Toy) -> None:
    last = toy.x.to(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    expected = short(name)(toy.net, toy.x, toy.y, seeds=toy.seeds)
    assert torch.equal(expected, short(name)(toy.net, last, toy.y, seeds=toy.seeds))


@every_attack
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_images(name: str, value: float, toy: Toy) -> None:
    x = torch.full_like(toy.x, value)
    assert proper(short(name)(toy.net, x, toy.y, seeds=toy.seeds), x)


@every_attack
def test_outer_grad_modes(name: str, toy: Toy) -> None:
    attack = short(name)
    expected = attack(toy.net, toy.x, toy.y, seeds=toy.seeds)
    with torch.no_grad():
        assert torch.equal(expected, attack(toy.net, toy.x, toy.y, seeds=toy.seeds))
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        copies = toy.x.clone(), toy.y.clone(), toy.seeds.clone()
        x_adv = attack(toy.net, copies[0], copies[1], seeds=copies[2])
    assert torch.equal(expected, x_adv)
    live = toy.x.clone().requires_grad_()
    assert not attack(toy.net, live, toy.y, seeds=toy.seeds).requires_grad
    assert live.grad is None


@every_attack
def test_outer_autocast_reaches_the_model_only(name: str, toy: Toy) -> None:
    dtypes = set()

    def model(x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        logits = toy.net(x)
        dtypes.add(logits.dtype)
        return logits

    with torch.autocast("cpu", dtype=torch.bfloat16):
        view = short(name).run(model, toy.x, toy.y, seeds=toy.seeds)
    assert dtypes == {torch.bfloat16}
    assert proper(view.x, toy.x)
    assert view.loss.dtype == torch.float32


WANTED = [(3, 28, 28), (1, 28, 28), (1, 32, 32), (3, 64, 64)]


@every_attack
@pytest.mark.parametrize("shape", [*WANTED, (3, 30, 26), (2, 32, 32), (3, 5, 5)])
def test_other_shapes_work_or_are_refused(name: str, shape: tuple[int, int, int]) -> None:
    x, y = images(2, *shape), torch.tensor([0, 1])
    refusal = ""
    try:
        x_adv = short(name)(small_net(shape[0]), x, y, seeds=y)
    except InputError as error:
        refusal = str(error)
    else:
        assert proper(x_adv, x)
    assert not refusal or f"(attacks.{name})" in refusal
    assert not refusal or shape not in WANTED


@every_attack
def test_nan_logits_are_not_robust_and_leave_the_image_finite(name: str, toy: Toy) -> None:
    def model(x: Tensor) -> Tensor:
        return toy.net(x) * torch.nan

    y = torch.zeros_like(toy.y)  # what argmax says of a row of NaN
    view = short(name).run(model, toy.x, y, seeds=toy.seeds, final_forward=True)
    assert proper(view.x, toy.x)
    assert not view.robust_all.any()
    assert not view.steps_correct.any()


@every_attack
def test_flat_loss(name: str, toy: Toy) -> None:
    """A zero gradient moves nothing and divides nothing by zero."""
    view = short(name).run(lambda x: toy.net(x) * 0, toy.x, toy.y, seeds=toy.seeds)
    assert proper(view.x, toy.x)


@pytest.mark.parametrize("name", [name for name in OWN if name not in {*OWN_LOSS, "spsa"}])
def test_tiny_gradients_are_gradients(name: str, toy: Toy) -> None:
    """The step is scale free: a loss a million times smaller gives the same images."""

    attack = short(name)

    def tiny(logits: Tensor, y: Tensor) -> Tensor:
        return attack.objective(logits, y) * 2.0**-40

    expected = attack(toy.net, toy.x, toy.y, seeds=toy.seeds)
    torch.testing.assert_close(attack(toy.net, toy.x, toy.y, seeds=toy.seeds, loss=tiny), expected)


@every_attack
def test_final_forward_evaluates_the_result(name: str, toy: Toy) -> None:
    attack = short(name)
    view = attack.run(toy.net, toy.x, toy.y, seeds=toy.seeds, final_forward=True)
    with torch.no_grad():
        logits = toy.net(view.x)
    torch.testing.assert_close(view.loss, attack.objective(logits, toy.y))
    assert not (view.robust_all & (logits.argmax(1) != toy.y)).any()


@every_climbing_attack
def test_verdicts_count_every_evaluated_iterate(name: str, toy: Toy) -> None:
    """Compared with what the model itself saw: the forwards that it was asked for."""
    correct: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        logits = toy.net(x)
        correct.append(logits.detach().argmax(1) == toy.y)
        return logits

    view = short(name).run(model, toy.x, toy.y, seeds=toy.seeds, final_forward=True)
    assert len(correct) == STEPS + 1
    assert torch.equal(view.robust_all, torch.stack(correct).all(0))
    assert torch.equal(view.steps_correct, torch.stack(correct[:STEPS]).sum(0))


@every_climbing_attack
def test_stopping_when_broken_changes_no_verdict(name: str) -> None:
    net, x, seeds = small_net(), images(24, seed=1), torch.arange(24)
    with torch.no_grad():
        y = net(x).argmax(1)
    y[::5] = (y[::5] + 1) % 5
    correct: list[Tensor] = []

    def model(z: Tensor) -> Tensor:
        logits = net(z)
        correct.append(logits.detach().argmax(1) == y[: len(z)])
        return logits  # type: ignore[no-any-return]

    attack = made(name, epsilon="low").with_steps(12)
    full = attack.run(model, x, y, seeds=seeds, final_forward=True)
    until_broken = torch.stack(correct[:12]).cumprod(0).sum(0)
    correct.clear()
    some = attack.run(model, x, y, seeds=seeds, final_forward=True, stop_when_broken=True)
    assert proper(some.x, x)
    assert torch.equal(full.robust_all, some.robust_all)
    torch.testing.assert_close(full.x[full.robust_all], some.x[full.robust_all])
    assert torch.equal(some.steps_correct, until_broken)
    with torch.no_grad():
        assert (net(some.x).argmax(1) != y)[~some.robust_all].all(), "x is the iterate that broke it"
    if full.robust_all.float().mean() < 0.7:
        assert min(map(len, correct)) < 24, "the broken were still attacked"


@every_attack
def test_all_broken_stops(name: str, toy: Toy) -> None:
    calls: list[int] = []

    def model(x: Tensor) -> Tensor:
        calls.append(len(x))
        return toy.net(x)  # type: ignore[no-any-return]

    attack = made(name).with_steps(40)
    view = attack.run(model, toy.x, (toy.y + 1) % 5, seeds=toy.seeds, final_forward=True, stop_when_broken=True)
    assert len(calls) < 10
    assert not view.robust_all.any()


@every_attack
def test_steps_keep_the_way(name: str) -> None:
    attack = attacks.get(name)
    shorter: Any = attack.with_steps(7)
    assert shorter.num_steps == 7
    assert shorter.epsilon == attack.epsilon
    if isinstance(attack, LatentAttack):
        assert shorter.step_size * 7 == pytest.approx(attack.step_size * attack.num_steps)


@every_attack
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -0.03}, r"expected epsilon > 0, got -0.03 \(attacks\."),
        ({"epsilon": float("nan")}, "expected epsilon > 0, got nan"),
        ({"epsilon": float("inf")}, "expected epsilon > 0, got inf"),
        ({"num_steps": 0}, "expected num_steps >= 1, got 0"),
    ],
)
def test_impossible_knobs(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(attacks.get(name), **change)


@every_attack
def test_impossible_batches(name: str, toy: Toy) -> None:
    attack, seeds = short(name), toy.seeds
    with pytest.raises(InputError, match="exactly one of seeds and generator"):
        attack(toy.net, toy.x, toy.y)
    with pytest.raises(InputError, match="exactly one of seeds and generator"):
        attack(toy.net, toy.x, toy.y, seeds=seeds, generator=torch.Generator())
    with pytest.raises(InputError, match=r"expected seeds of shape \(4,\)"):
        attack(toy.net, toy.x, toy.y, seeds=seeds[:3])
    with pytest.raises(InputError, match=r"expected images of shape \(B, C, H, W\)"):
        attack(toy.net, (toy.x * 255).byte(), toy.y, seeds=seeds)
    with pytest.raises(InputError, match=r"expected labels of shape \(4,\), int64"):
        attack(toy.net, toy.x, toy.y[:3], seeds=seeds)
    refusal = "losses of its own" if name in OWN_LOSS else "one number for each image"
    with pytest.raises(InputError, match=refusal):
        attack(toy.net, toy.x, toy.y, seeds=seeds, loss=F.cross_entropy)


@pytest.mark.parametrize("name", FOREIGN)
def test_every_foreign_attack_keeps_the_core_of_the_contract(name: str, toy: Toy) -> None:
    x, y, seeds = toy.x[:2], toy.y[:2], toy.seeds[:2]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    before = {key: value.clone() for key, value in toy.net.state_dict().items()}
    first, again = (made(name).with_steps(1).run(toy.net.train(), x, y, seeds=seeds) for _ in range(2))
    assert proper(first.x, x)
    assert torch.equal(first.x, again.x)
    assert norm(name, first.x - x).max() <= made(name).epsilon * (1 + 1e-5) + 1e-6
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert all(module.training for module in toy.net.modules())
    assert all(torch.equal(before[key], value) for key, value in toy.net.state_dict().items())
    assert all(p.grad is None for p in toy.net.parameters())
