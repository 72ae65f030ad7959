"""Every attack on held-out images: one verdict bit per image and attack, in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attacks import Attack
from attacks.errors import InputError, unknown
from attacks.noise import derive
from trainers.data import ImageSet


@dataclass(frozen=True)
class Protocol:
    """How a verdict is reached. `num_steps` replaces each attack's own (step sizes scaled), None keeps it. With
    `any_iterate` an image is broken when any iterate breaks it; otherwise the attack's last iterate decides."""

    name: str
    num_steps: int | None
    any_iterate: bool

    def attack(self, attack: Attack) -> Attack:
        return attack if self.num_steps is None else attack.with_steps(self.num_steps)


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("quick", num_steps=10, any_iterate=True),
        Protocol("full", num_steps=None, any_iterate=True),
        Protocol("as_published", num_steps=None, any_iterate=False),
    )
}


def protocol(name: str, num_steps: int | None = None) -> Protocol:
    """The protocol of that name; other steps than its own make another protocol, `quick-5`."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    chosen = PROTOCOLS[name]
    if num_steps is None or num_steps == chosen.num_steps:
        return chosen
    if num_steps < 1:
        raise InputError(f"expected evaluation.num_steps >= 1, got {num_steps}")
    return replace(chosen, name=f"{name}-{num_steps}", num_steps=num_steps)


@dataclass(frozen=True)
class Verdict:
    """`robust` (N,) bool on the CPU: right on the clean image and on the adversarial one. `mean_loss` is the mean over
    all N images of the cross entropy of the image that decided (the clean one where that is already wrong)."""

    attack: str
    family: str
    epsilon: float
    num_steps: int
    robust: Tensor
    mean_loss: float
    seconds: float


def evaluate(
    model: nn.Module,
    images: ImageSet,
    attacks: Mapping[str, Attack],
    *,
    protocol: Protocol,
    seed: int,
    batch_size: int = 128,
) -> Iterator[Verdict]:
    """Yields the verdicts of "clean", then of every attack. Images that the model gets wrong when clean are not
    attacked, and under `any_iterate` an image leaves the attack once it is broken: neither changes a verdict. Whatever
    an attack says, the verdict is a fresh eval-mode forward in fp32 on the image it returned. Memory is O(batch_size).

    The draws for an image depend on (seed, attack's name, image's id) alone.
    """
    model.eval()
    start = perf_counter()
    right, loss = _clean(model, images, batch_size)
    yield Verdict("clean", "clean", 0.0, 0, right.cpu(), float(loss.mean()), perf_counter() - start)
    for name, attack in attacks.items():
        start = perf_counter()
        robust, losses = right.clone(), loss.clone()
        for rows in _batches(right.nonzero().squeeze(1), batch_size):
            robust[rows], losses[rows] = _attacked(model, images, rows, name, protocol, attack, seed)
        used, bits, mean_loss = protocol.attack(attack), robust.cpu(), float(losses.mean())
        yield Verdict(name, used.family, used.epsilon, used.num_steps, bits, mean_loss, perf_counter() - start)


def correct_by_attack(
    model: nn.Module, images: ImageSet, attacks: Mapping[str, Attack], *, seed: int, batch_size: int = 128
) -> Tensor:
    """(N, number of attacks) bool: is the last iterate still classified right? For probes during training."""
    last = Protocol("probe", num_steps=None, any_iterate=False)
    everything = torch.arange(len(images), device=images.images.device)
    correct = torch.zeros(len(images), len(attacks), dtype=torch.bool, device=images.images.device)
    for j, (name, attack) in enumerate(attacks.items()):
        for rows in _batches(everything, batch_size):
            correct[rows, j] = _attacked(model, images, rows, name, last, attack, seed)[0]
    return correct.cpu()


def image_seeds(ids: Tensor, seed: int, attack: str) -> Tensor:
    """The int64 seeds (B,) that an evaluation gives to an attack for these images."""
    return derive(ids, seed, *attack.encode())


def _batches(rows: Tensor, batch_size: int) -> Sequence[Tensor]:
    """The rows in batches, none of them empty."""
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


def _attacked(
    model: nn.Module, images: ImageSet, rows: Tensor, name: str, protocol: Protocol, attack: Attack, seed: int
) -> tuple[Tensor, Tensor]:
    x, y = images.floats(rows), images.labels[rows]
    with exact_fp32():
        view = protocol.attack(attack).run(
            model, x, y, seeds=image_seeds(images.ids[rows], seed, name), stop_when_broken=protocol.any_iterate
        )
        return _judge(model, view.x, y)


def _clean(model: nn.Module, images: ImageSet, batch_size: int) -> tuple[Tensor, Tensor]:
    device = images.images.device
    right, loss = torch.zeros(len(images), dtype=torch.bool, device=device), torch.zeros(len(images), device=device)
    with exact_fp32():
        for rows in _batches(torch.arange(len(images), device=device), batch_size):
            right[rows], loss[rows] = _judge(model, images.floats(rows), images.labels[rows])
    return right, loss


@torch.no_grad()
def _judge(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Is it right (a NaN logit is no right answer), and the cross entropy."""
    model.eval()
    logits = model(x)
    top, label = logits.max(1)
    return (label == y) & (top == top), cross_entropy(logits, y, reduction="none")


@contextmanager
def exact_fp32() -> Iterator[None]:
    """No TF32 in convolutions while a verdict is reached (it is off for matrix products by default)."""
    before = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.backends.cudnn.conv.fp32_precision = before  # type: ignore[attr-defined]
