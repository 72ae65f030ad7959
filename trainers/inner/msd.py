"""MSD: of several norms' steps, each image takes the one that raises its loss most, step after step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attacks import Attack, View
from attacks.apgd import APGD
from attacks.base import _frozen, evaluate
from attacks.catalogue import get
from attacks.errors import InputError
from attacks.losses import cross_entropy
from attacks.lp import PGD, PGDL1, PGDL2, PGDLinf
from trainers.inner.adaptive_budget import Players
from trainers.parts import Batch, Loss, Record, inners


def rule(attack: Attack) -> PGD:
    """The PGD whose step and ball MSD uses: the attack itself, or for an APGD, which has no step of its own, the pgd-*
    of its norm with its budget and number of steps, reaching num_steps * step_size / epsilon as far as on CIFAR-10."""
    if attack.num_restarts > 1:
        raise InputError(f"expected attacks without restarts under msd, got num_restarts {attack.num_restarts}")
    if isinstance(attack, APGD):
        twin = get(f"pgd-{attack.norm}", epsilon=attack.epsilon).with_steps(attack.num_steps)
        assert isinstance(twin, PGD)
        return replace(twin, random_start=attack.random_start)
    if isinstance(attack, PGD) and type(attack) in (PGDLinf, PGDL2, PGDL1):
        return attack
    raise InputError(
        f"expected attacks with an lp step and ball under msd (pgd-linf, pgd-l2, pgd-l1, linf, l2, l1), got "
        f"{attack.name}"
    )


def rules(attacks: Sequence[Attack]) -> list[PGD]:
    """The rule of each attack, all with the most steps of any, at their own step sizes (robust_union: 50 on CIFAR-10,
    where pgd-linf alone has 40). InputError for attacks that have none."""
    found = [rule(attack) for attack in attacks]
    most = max(each.num_steps for each in found)
    return [replace(each, num_steps=most) for each in found]


@inners.register("msd")
@dataclass
class Msd:
    """One View, "msd" (Maini et al. 2020; adaptive-budget, Alg. 1), of lp attacks only. From delta = 0 (or the first
    attack's random start), each step takes one gradient at x + delta, from it a candidate for each attack by its own
    step, ball and box, and of each image the candidate of largest loss, of equal ones that of the attack listed first
    (robust_union: last); delta is then in that attack's ball, not in the others'. The View is robust where every
    evaluated candidate was right; steps_correct counts the points from which a step was taken.

    keep_best: the result is the delta of largest loss after any step, the earliest of equal ones, as robust_union has
    it; else the last, as Alg. 1. Cost of a step: k + 1 forwards and one backward, where k attacks take k and k;
    nothing at the end. Deviations: eval mode; fp32; a NaN loss is never chosen.

    The options are those of Players. `adaptive` first runs each attack's PGD and takes the k gradients there: over
    twice the cost; so does `track`, without the change. Who leads a batch is told by the gradients if they are
    measured; else by how many of the images' steps an attack won.
    """

    adaptive: str = "none"
    gradient: str = "parameter"
    clip_low: float = 0.5
    clip_high: float = 2.0
    scale_steps: bool = False
    track: bool = False
    keep_best: bool = True

    def __post_init__(self) -> None:
        options = (self.adaptive, self.gradient, self.clip_low, self.clip_high, self.scale_steps, self.track)
        self._players = Players(*options)

    def views(
        self, model: nn.Module, batch: Batch, attacks: Sequence[Attack], loss: Loss | None, seeds: Tensor
    ) -> list[View]:
        names, base = [attack.name for attack in attacks], rules(attacks)
        players = self._players.at_budgets(model, batch, names, base, loss, seeds)
        at = [player for player in players if isinstance(player, PGD)]
        with torch.no_grad(), _frozen(model):
            view, shares = steepest(model, batch.x, batch.y, at, loss or cross_entropy, seeds, self.keep_best)
        self._players.won(names, shares)
        alone = (each(model, batch.x, batch.y, seeds=seeds, loss=loss) for each in base)
        self._players.watch(model, batch, names, alone, loss, shares)
        return [view]

    def record(self) -> Record:
        return self._players.record()


def steepest(
    model: nn.Module, x: Tensor, y: Tensor, rules: Sequence[PGD], loss: Loss, seeds: Tensor, keep_best: bool
) -> tuple[View, Tensor]:
    """The View, and the share (k,) of the images' steps that each rule won."""
    starts = [each.start(x, seeds) for each in rules]
    delta, scenes = starts[0][0], [scene for _, scene in starts]
    best, best_loss = delta, x.new_full((len(x),), -torch.inf)
    robust, steps = torch.ones_like(y, dtype=torch.bool), torch.zeros_like(y)
    won = x.new_zeros(len(rules))
    for step in range(rules[0].num_steps):
        grad, right = _look(model, x + delta, y, loss)
        candidates = [r.project(r.ascend(delta, grad, x, s, step), s) for r, s in zip(rules, scenes, strict=True)]
        delta, values, winner, all_right = _worst(model, x, y, loss, delta, candidates)
        robust, steps = robust & right & all_right, steps + right
        won = won + torch.stack([(winner == j).float().mean() for j in range(len(rules))])
        take = values > best_loss if keep_best else torch.ones_like(robust)
        best = torch.where(take[:, None, None, None], delta, best)
        best_loss = torch.where(take, values, best_loss)
    return View("msd", (x + best).clamp(0, 1), best_loss, robust, steps), won / rules[0].num_steps


def _look(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """The gradient of the summed loss with respect to x, and which images are right."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits, values = evaluate(model, loss, x, y)
        (grad,) = torch.autograd.grad(values.sum(), x)
    return grad, logits.detach().argmax(1) == y


def _worst(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, delta: Tensor, candidates: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each image the candidate of largest loss, that loss, its number, and whether all candidates were right; delta
    where no candidate has a loss. One forward a candidate: three at once are no faster on a CPU."""
    values, winner, all_right = x.new_full((len(x),), -torch.inf), torch.full_like(y, -1), torch.ones_like(y) > 0
    for j, candidate in enumerate(candidates):
        logits, found = evaluate(model, loss, x + candidate, y)
        take = found > values
        delta = torch.where(take[:, None, None, None], candidate, delta)
        values, winner = torch.where(take, found, values), torch.where(take, j, winner)
        all_right = all_right & (logits.argmax(1) == y)
    return delta, values, winner, all_right
