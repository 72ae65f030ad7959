"""What each, max and msd share: AdaptiveBudget (adaptive-budget, Alg. 2) and who leads a batch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from attacks import Attack, View
from attacks.base import _frozen
from attacks.errors import InputError, unknown
from attacks.losses import cross_entropy
from trainers.domination import Names, streaks
from trainers.parts import Batch, Loss, Record

NORMS = {"none": 2, "l1": 1, "l2": 2}
"""The orders; that of "none" is for tracking."""


def factors(norms: Sequence[float], low: float, high: float) -> list[float]:
    """|g_p| / |g_mid| in [low, high] (Alg. 2, lines 10-15; App. C.2). g_mid is the median, of an even number the mean
    of the middle two: of three norms the middle one's budget stays, as printed. All 1 if a norm is not finite."""
    if not all(map(math.isfinite, norms)):
        return [1.0] * len(norms)
    middle = statistics.median(norms)
    ratios = [n / middle if middle else math.inf if n else 1.0 for n in norms]
    return [min(max(ratio, low), high) for ratio in ratios]


def gradient_norm(model: nn.Module, x: Tensor, y: Tensor, loss: Loss | None, norm: str, gradient: str) -> Tensor:
    """The norm () of the gradient of the batch's mean loss at x with respect to all parameters, or to x. Eval mode, as
    the attacks see it; leaves the model, its gradients and statistics alone. Costs one forward, one backward."""
    with _frozen(model), torch.enable_grad():
        x = x.detach().requires_grad_(gradient == "input")
        of = [x] if gradient == "input" else [p for p in model.parameters() if p.requires_grad]
        values = (loss or cross_entropy)(model(x).float(), y)
        grads = torch.autograd.grad(values.mean(), of, allow_unused=True)
    sizes = [torch.linalg.vector_norm(g, NORMS[norm]) for g in grads if g is not None]
    size: Tensor = torch.linalg.vector_norm(torch.stack(sizes), NORMS[norm])
    return size


def comparable(attack: Attack, loss: Loss | None) -> bool:
    """Whether the loss in the attack's View is the given one, or cross entropy, and not one of its own."""
    return loss is not None or type(attack).objective is Attack.objective


@torch.no_grad()
def comparable_losses(
    model: nn.Module, batch: Batch, attacks: Sequence[Attack], views: Sequence[View], loss: Loss | None
) -> Tensor:
    """(k, B): the losses in the Views, and the cross entropy of the results of an attack with a loss of its own, which
    costs a forward."""

    def ce(x: Tensor) -> Tensor:
        with _frozen(model):
            return cross_entropy(model(x).float(), batch.y)

    return torch.stack([v.loss if comparable(a, loss) else ce(v.x) for a, v in zip(attacks, views, strict=True)])


@dataclass
class Players:
    """The adversaries of one batch after another. The first six fields are those of the inners.

    adaptive, gradient: "l1" or "l2", the norm of the "parameter" or "input" gradient that moves the budgets; "none".
    clip_low, clip_high: how far, times the base budget, from which every batch starts anew.
    scale_steps: step sizes move along, where an attack has one (APGD's always do); the paper does not say.
    track: measure the l2 norms where nothing adapts.
    Readings: the gradient is of the mean loss that attacks maximise, cross entropy where one has a loss of its own, on
    this worker's share of the batch: several workers have budgets of their own. No budget exceeds max_epsilon.
    """

    adaptive: str
    gradient: str
    clip_low: float
    clip_high: float
    scale_steps: bool
    track: bool
    _budgets: dict[str, list[float]] = field(default_factory=dict)
    _won: dict[str, list[Tensor]] = field(default_factory=dict)
    _leaders: list[tuple[Names, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.adaptive not in NORMS:
            raise unknown("norm for adaptive", self.adaptive, NORMS)
        if self.gradient not in ("parameter", "input"):
            raise unknown("gradient", self.gradient, ("parameter", "input"))
        if not 0 < self.clip_low <= 1 <= self.clip_high < math.inf:
            raise InputError(f"expected 0 < clip_low <= 1 <= clip_high, got {self.clip_low} and {self.clip_high}")

    @property
    def by_gradient(self) -> bool:
        """Whether gradients tell who leads."""
        return self.adaptive != "none" or self.track

    def at_budgets(
        self, model: nn.Module, batch: Batch, names: Names, attacks: Sequence[Attack], loss: Loss | None, seeds: Tensor
    ) -> list[Attack]:
        """The attacks at this batch's budgets: as they are, or after a run of each and a look at its gradient."""
        made = list(attacks)
        if self.adaptive != "none":
            if len(made) < 2:
                raise InputError(f"expected several attacks on a batch under adaptive budgets, got {len(made)}")
            norms = self._norms(model, batch, (a(model, batch.x, batch.y, seeds=seeds, loss=loss) for a in made), loss)
            self._leaders.append((names, norms.argmax()))
            moved = factors(norms.tolist(), self.clip_low, self.clip_high)
            made = [self._scaled(attack, factor) for attack, factor in zip(made, moved, strict=True)]
        for name, attack in zip(names, made, strict=True):
            self._budgets.setdefault(name, []).append(attack.epsilon)
        return made

    def _scaled(self, attack: Attack, factor: float) -> Attack:
        changed: dict[str, Any] = {"epsilon": min(attack.epsilon * factor, attack.max_epsilon)}
        if self.scale_steps and hasattr(attack, "step_size"):
            changed["step_size"] = attack.step_size * factor
        return replace(attack, **changed)

    def _norms(self, model: nn.Module, batch: Batch, xs: Iterable[Tensor], loss: Loss | None) -> Tensor:
        return torch.stack([gradient_norm(model, x, batch.y, loss, self.adaptive, self.gradient) for x in xs])

    def watch(
        self, model: nn.Module, batch: Batch, names: Names, xs: Iterable[Tensor], loss: Loss | None, free: Tensor | None
    ) -> None:
        """Note who led: by the gradients at xs if they are tracked (else xs is not touched), or by `free` (k,)."""
        strength = self._norms(model, batch, xs, loss) if self.track and self.adaptive == "none" else free
        if self.adaptive == "none" and strength is not None:
            self._leaders.append((names, strength.argmax()))

    def won(self, names: Names, shares: Tensor) -> None:
        """Note the share (k,) of the images that each won."""
        for name, share in zip(names, shares.unbind(), strict=True):
            self._won.setdefault(name, []).append(share)

    def record(self) -> Record:
        """Since the last call, this worker's: mean budgets; of several players, `domination`: see `streaks`; `wins.A`,
        where images are won, is the mean over the batches of A's share."""
        budgets = {name: statistics.fmean(used) for name, used in self._budgets.items()}
        row: dict[str, dict[str, float]] = {"budgets": budgets} if budgets else {}
        if len(budgets) > 1:
            row["domination"] = self._domination(list(budgets))
        self._budgets, self._won, self._leaders = {}, {}, []
        return row

    def _domination(self, names: Names) -> dict[str, float]:
        wins = {f"wins.{name}": float(torch.stack(shares).mean()) for name, shares in self._won.items()}
        if not self._leaders:
            return wins
        places = torch.stack([place for _, place in self._leaders]).tolist()
        led = [players[place] for (players, _), place in zip(self._leaders, places, strict=True)]
        return {"by_gradient": float(self.by_gradient)} | streaks(names, led) | wins
