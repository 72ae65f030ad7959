"""Every attack on held-out images: one verdict bit per image and attack, in fp32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attacks import Attack, View
from attacks.errors import InputError, unknown
from attacks.noise import derive
from attacks.precision import exact_fp32
from trainers.data import ImageSet
from trainers.worst import Broken, of_batch, worst


@dataclass(frozen=True)
class Protocol:
    """How a verdict is reached. `num_steps` replaces each attack's own (step sizes scaled), None keeps it. With
    `any_iterate` an image is broken when any iterate breaks it; otherwise what the attack returned decides.
    `by_autoattack`: the lp norms are judged by AutoAttack (standard)."""

    name: str
    num_steps: int | None
    any_iterate: bool
    by_autoattack: bool = False

    def attack(self, attack: Attack) -> Attack:
        return attack if self.num_steps is None else attack.with_steps(self.num_steps)

    def names(self, names: Iterable[str]) -> tuple[str, ...]:
        """The attacks that judge in place of these."""
        judge = {norm: f"autoattack-{norm}" for norm in ("linf", "l2", "l1")} if self.by_autoattack else {}
        return tuple(dict.fromkeys(judge.get(name, name) for name in names))


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("quick", num_steps=10, any_iterate=True),
        Protocol("train", num_steps=10, any_iterate=False),
        Protocol("full", num_steps=None, any_iterate=True),
        Protocol("as_published", num_steps=None, any_iterate=False),
        Protocol("autoattack", num_steps=None, any_iterate=True, by_autoattack=True),
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


STOCHASTIC, NON_FINITE, WEAK = "stochastic", "non-finite", "weak-attack"
"""Flags: two forwards in eval mode differ; a logit was no finite number (either may hide a gradient); the attack is
known to overstate robustness."""
FLAGS = (NON_FINITE, STOCHASTIC, WEAK)


@dataclass(frozen=True)
class Verdict:
    """`robust` (N,) bool on the CPU: right on the clean image and on the adversarial one. `mean_loss` is the mean over
    all N images of the cross entropy of the image that decided (the clean one where that is already wrong), `predicted`
    (N,) the class that the model gave to that image, NO_CLASS where no logit was a number: `robust` where it is the
    label. Neither, and no seconds, for a stage of an attack (`conditional`: it saw only what the stages before it had
    left). `flags`: reasons to doubt it. `worst`: what it broke with the highest loss, where that was asked for."""

    attack: str
    family: str
    epsilon: float
    num_steps: int
    robust: Tensor
    mean_loss: float | None
    seconds: float | None
    flags: tuple[str, ...] = ()
    conditional: bool = False
    norm: str | None = None
    predicted: Tensor | None = None
    worst: tuple[Broken, ...] = ()


NO_CLASS = -1


@dataclass(frozen=True)
class Judged:
    """What one attack did to one batch, on the CPU: (B,) each. `stages` as in View, the clean verdict included."""

    robust: Tensor
    loss: Tensor
    predicted: Tensor
    flags: frozenset[str]
    seconds: float
    stages: tuple[tuple[str, Tensor], ...] = ()
    worst: tuple[Broken, ...] = ()


def evaluate(
    model: nn.Module,
    images: ImageSet,
    attacks: Mapping[str, Attack],
    *,
    protocol: Protocol,
    seed: int,
    batch_size: int = 128,
    keep_worst: bool = False,
) -> Iterator[Verdict]:
    """Yields the verdicts of "clean", then of every attack, each followed by those of its stages. Images that the model
    gets wrong when clean are not attacked, and under `any_iterate` an image leaves the attack once it is broken:
    neither changes a verdict. Whatever an attack says, the verdict is a fresh eval-mode forward in fp32 on the image it
    returned. Memory is O(batch_size).

    The draws for an image depend on (seed, attack's name, image's id) alone.
    """
    batches = slices(len(images), batch_size)
    clean = [judge_clean(model, images, rows) for rows in batches]
    yield from verdicts("clean", None, clean)
    for name, attack in attacks.items():
        used = protocol.attack(attack)
        how: dict[str, Any] = {"any_iterate": protocol.any_iterate, "seed": seed, "keep_worst": keep_worst}
        judged = (
            judge_attacked(model, images, rows, used, name, before, **how)
            for rows, before in zip(batches, clean, strict=True)
        )
        yield from verdicts(name, used, judged)


def slices(n: int, batch_size: int) -> list[Tensor]:
    """The rows 0 to n - 1 in batches."""
    return [torch.arange(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]


def judge_clean(model: nn.Module, images: ImageSet, rows: Tensor) -> Judged:
    """The images as they are; a batch is looked at twice, for the flags."""
    start = perf_counter()
    x, y = images.floats(rows), images.labels[rows]
    with exact_fp32():
        found, again = _judge(model, x, y), _judge(model, x, y)
    flags = _flags(found.logits) | ({STOCHASTIC} if _differ(found.logits, again.logits) else set())
    seconds = perf_counter() - start
    return Judged(found.right.cpu(), found.loss.cpu(), found.predicted.cpu(), frozenset(flags), seconds)


def judge_attacked(
    model: nn.Module,
    images: ImageSet,
    rows: Tensor,
    attack: Attack,
    name: str,
    clean: Judged,
    *,
    any_iterate: bool,
    seed: int,
    keep_worst: bool = False,
) -> Judged:
    """One batch under an attack, which sees the images that are right when clean. `name` keys the draws."""
    start, right = perf_counter(), clean.robust
    if not bool(right.any()):
        return replace(clean, seconds=perf_counter() - start)
    view, found = _attacked(model, images, rows[right], name, attack, any_iterate, seed)

    def whole(of_clean: Tensor, attacked: Tensor) -> Tensor:
        made = of_clean.clone()
        made[right] = attacked.cpu()
        return made

    return Judged(
        whole(right, found.right),
        whole(clean.loss, found.loss),
        whole(clean.predicted, found.predicted),
        clean.flags | _flags(found.logits),
        perf_counter() - start,
        tuple((stage, whole(right, left)) for stage, left in view.stages),
        of_batch(images, rows[right], view.x, ~found.right, found.loss, found.predicted) if keep_worst else (),
    )


def verdicts(name: str, attack: Attack | None, batches: Iterable[Judged]) -> Iterator[Verdict]:
    """The verdict that the batches add up to, then those of the attack's stages; no attack for "clean"."""
    judged: list[Judged] = []
    kept: tuple[Broken, ...] = ()
    for one in batches:
        kept = worst((*kept, *one.worst))
        judged.append(replace(one, worst=()))
    found = frozenset().union(*(one.flags for one in judged))
    flags = tuple(sorted(found | {WEAK} if attack is not None and attack.weak else found))
    about = ("clean", 0.0, 0) if attack is None else (attack.family, attack.epsilon, attack.num_steps)
    norm = None if attack is None else attack.norm
    robust, loss = torch.cat([one.robust for one in judged]), torch.cat([one.loss for one in judged])
    given, seconds = torch.cat([one.predicted for one in judged]), sum(one.seconds for one in judged)
    yield Verdict(name, *about, robust, float(loss.mean()), seconds, flags, norm=norm, predicted=given, worst=kept)
    stages: dict[str, list[Tensor]] = {stage: [] for one in judged for stage, _ in one.stages}
    for one in judged:
        held = dict(one.stages)
        for stage, parts in stages.items():
            parts.append(held.get(stage, one.robust))  # a batch of which nothing was left has no such stage
    for stage, parts in stages.items():
        yield Verdict(f"{name}/{stage}", *about, torch.cat(parts), None, None, flags, True, norm)


def correct_by_attack(
    model: nn.Module, images: ImageSet, attacks: Mapping[str, Attack], *, seed: int, batch_size: int = 128
) -> Tensor:
    """(N, number of attacks) bool: is the last iterate still classified right? For probes during training."""
    correct = torch.zeros(len(images), len(attacks), dtype=torch.bool, device=images.images.device)
    for j, (name, attack) in enumerate(attacks.items()):
        for rows in slices(len(images), batch_size):
            correct[rows, j] = _attacked(model, images, rows, name, attack, False, seed)[1].right
    return correct.cpu()


def image_seeds(ids: Tensor, seed: int, attack: str) -> Tensor:
    """The int64 seeds (B,) that an evaluation gives to an attack for these images."""
    return derive(ids, seed, *attack.encode())


class _Judgement(NamedTuple):
    """Is it right, the cross entropy, the class given, the logits."""

    right: Tensor
    loss: Tensor
    predicted: Tensor
    logits: Tensor


def _attacked(
    model: nn.Module, images: ImageSet, rows: Tensor, name: str, attack: Attack, any_iterate: bool, seed: int
) -> tuple[View, _Judgement]:
    model.eval()
    x, y = images.floats(rows), images.labels[rows]
    with exact_fp32():
        seeds = image_seeds(images.ids[rows], seed, name)
        view = attack.run(model, x, y, seeds=seeds, stop_when_broken=any_iterate)
        return view, _judge(model, view.x, y)


@torch.no_grad()
def _judge(model: nn.Module, x: Tensor, y: Tensor) -> _Judgement:
    """A NaN logit is no right answer."""
    model.eval()
    logits = model(x)
    top, label = logits.max(1)
    predicted = label.where(top == top, NO_CLASS)
    return _Judgement(predicted == y, cross_entropy(logits, y, reduction="none"), predicted, logits)


def _flags(logits: Tensor) -> set[str]:
    return set() if bool(logits.isfinite().all()) else {NON_FINITE}


def _differ(logits: Tensor, again: Tensor) -> bool:
    """By more than round-off."""
    return not torch.allclose(logits, again, rtol=1e-3, atol=1e-4, equal_nan=True)
