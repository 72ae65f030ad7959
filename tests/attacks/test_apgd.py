"""APGD against a slow reference that follows E-AT's apgd_train image by image, with every decision on the host."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

import attacks
from attacks.apgd import APGD
from attacks.geometry import project_l1_box


class Bumpy:
    """Logits with waves: along the way of an attack the loss rises and falls."""

    def __init__(self, classes: int = 3, dtype: torch.dtype = torch.float32, frequency: float = 9.0) -> None:
        generator = torch.Generator().manual_seed(5)
        self.weights = torch.randn(3 * 6 * 6, 40, generator=generator).to(dtype)
        self.head = torch.randn(40, classes, generator=generator).to(dtype)
        self.frequency = frequency

    def __call__(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weights * self.frequency / 6).sin() @ self.head


def slow_project(norm: str, clean: Tensor, x: Tensor, epsilon: float) -> Tensor:
    delta = x - clean
    if norm == "linf":
        return (clean + delta.clamp(-epsilon, epsilon)).clamp(0, 1)
    if norm == "l2":
        length = float(delta.norm())
        return (clean + delta / (length + 1e-12) * min(epsilon, length)).clamp(0, 1)
    return clean + project_l1_box(clean.float(), delta.float(), epsilon).double()


def slow_step(norm: str, grad: Tensor, eta: float, share: float) -> Tensor:
    if norm == "linf":
        return eta * grad.sign()
    if norm == "l2":
        return eta * grad / grad.norm()
    n = grad.numel()
    rank = min(max(math.floor((1 - share) * n + 1e-9), 0), n - 1)
    sparse = grad * (grad.abs() >= grad.abs().flatten().sort().values[rank])
    return eta * sparse.sign() / sparse.sign().abs().sum()


def slow_apgd(
    norm: str, model: Bumpy, x: Tensor, y: Tensor, epsilon: float, n_iter: int, as_published: bool
) -> tuple[Tensor, float, bool]:
    """One image (1, C, H, W) in float64: x_best, loss_best, correct at every iterate."""

    def look(z: Tensor) -> tuple[float, Tensor, bool]:
        z = z.detach().requires_grad_()
        logits = model(z)
        loss = torch.nn.functional.cross_entropy(logits, y)
        return loss.item(), torch.autograd.grad(loss, z)[0], bool(logits.argmax(1) == y)

    x = x.double()
    current = old = best = x
    loss, grad, robust = look(x)
    loss_best = last_check = loss
    start_loss, grad_best, reduced, losses = loss, grad, True, []
    k = max(int(0.22 * n_iter), 1) if norm != "l1" else max(int(0.04 * n_iter), 1)
    eta, share, support_old, counter = (2.0 if norm != "l1" else 1.0) * epsilon, 0.05, x.numel(), 0
    for i in range(n_iter):
        target = slow_project(norm, x, current + slow_step(norm, grad, eta, share), epsilon)
        if norm != "l1":
            a = 0.75 if i > 0 else 1.0
            target = slow_project(norm, x, current + a * (target - current) + (1 - a) * (current - old), epsilon)
        current, old = target, current
        loss, grad, correct = look(current)
        robust = robust and correct
        losses.append(loss)
        if loss > loss_best:
            best, grad_best, loss_best = current, grad, loss
        counter += 1
        if counter < k:
            continue
        counter = 0
        if norm == "l1":
            support = int((best != x).sum())
            share = support / x.numel() / 1.5
            shrunk = support < 0.95 * support_old
            eta = epsilon if shrunk else max(eta / 1.5, epsilon / 10)
            support_old, restart = support, shrunk
        else:
            before = [0.0 if as_published else start_loss, *losses]
            rises = sum(losses[j] > before[j] for j in range(i + 1 - k, i + 1))
            restart = rises <= 0.75 * k or (not reduced and last_check >= loss_best)
            reduced, last_check = restart, loss_best
            eta = eta / 2 if restart else eta
            k = max(k - max(int(0.03 * n_iter), 1), max(int(0.06 * n_iter), 1))
        if restart:
            current, grad = best, grad_best
    return best, loss_best, robust


@pytest.mark.parametrize("num_steps", [1, 10, 40])
@pytest.mark.parametrize(
    ("norm", "epsilon", "as_published"),
    [
        ("linf", 0.06, False),
        ("linf", 0.06, True),
        ("l2", 0.4, False),
        ("l2", 0.4, True),
        ("l1", 2.0, False),
        ("l1", 0.5, False),
        ("l1", 8.0, False),
    ],
)
def test_follows_the_slow_reference(norm: str, epsilon: float, num_steps: int, as_published: bool) -> None:
    x = torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    x = torch.where(x < 0.1, 0, torch.where(x > 0.9, 1, x))
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    attack = attacks.get(norm, epsilon=epsilon).with_steps(num_steps)
    if as_published:
        attack = dataclasses.replace(attack, as_published=True)
    frequency = 30.0 if norm == "linf" else 9.0  # so high that the first step often lowers the loss
    view = attack.run(Bumpy(frequency=frequency), x, y, seeds=torch.arange(6))
    exact = Bumpy(dtype=torch.float64, frequency=frequency)
    for i in range(6):
        best, loss, robust = slow_apgd(norm, exact, x[i : i + 1], y[i : i + 1], epsilon, num_steps, as_published)
        assert float(view.loss[i]) == pytest.approx(loss, rel=2e-3)
        torch.testing.assert_close(view.x[i].double(), best[0], rtol=0, atol=2e-3)
        assert bool(view.robust_all[i]) == robust


@pytest.mark.parametrize(
    ("name", "num_steps", "expected"),
    [
        ("linf", 10, {2, 3, 4, 5, 6, 7, 8, 9, 10}),
        ("l2", 100, {22, 41, 57, 70, 80, 87, 93, 99}),
        ("l1", 10, set(range(1, 11))),
        ("l1", 100, set(range(4, 101, 4))),
        ("linf", 1, {1}),
    ],
)
def test_checkpoints(name: str, num_steps: int, expected: set[int]) -> None:
    attack = attacks.get(name).with_steps(num_steps)
    assert isinstance(attack, APGD)
    assert attack.checkpoints() == expected


def test_the_best_iterate_is_returned_not_the_last() -> None:
    x = torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    seen: list[Tensor] = []
    model = Bumpy()

    def spied(z: Tensor) -> Tensor:
        seen.append(torch.nn.functional.cross_entropy(model(z.detach()), y, reduction="none"))
        return model(z)

    for name in ("linf", "l2", "l1"):
        seen.clear()
        view = attacks.get(name).with_steps(10).run(spied, x, y, seeds=torch.arange(6))
        assert torch.equal(view.loss, torch.stack(seen).amax(0))
        assert (view.loss >= seen[0]).all()
        assert (view.loss > seen[-1]).any()


def test_longer_is_stronger() -> None:
    x = torch.rand(32, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    y = torch.arange(32) % 3
    for name in ("linf", "l2", "l1"):
        attack = attacks.get(name, epsilon={"linf": 0.06, "l2": 0.4, "l1": 2.0}[name])
        short, long = (attack.with_steps(n).run(Bumpy(), x, y, seeds=torch.arange(32)) for n in (3, 60))
        assert long.loss.mean() > short.loss.mean() + 0.05
