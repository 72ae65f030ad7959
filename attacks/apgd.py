"""APGD as E-AT trains with it: `linf`, `l2`, `l1`. Step sizes adapt per image; the best iterate is the result.

Source: Croce and Hein 2020 ("Reliable evaluation", algorithm 1), 2021 ("Mind the box") for l1;
robust-finetuning@0201a49, `apgd_train`: clean start, cross entropy, the last backward is left out.
Symbols: eta the step size, x_best the iterate of highest loss.
Deviations: nothing waits for the device; at the first checkpoint the loss of the first iterate is compared with that
of the start, where the authors' index -1 reads a row of zeros (as_published=True keeps that).
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import geometry
from attacks.base import ATTACKS, Attack, Loss, Model, View, evaluate
from attacks.geometry import per_image
from attacks.progress import Progress


@dataclass
class _State:
    """Per-image tensors, (B, ...) each. rank and support are l1's: rank + 1 coordinates move, support have moved."""

    clean: Tensor
    y: Tensor
    x: Tensor
    previous: Tensor
    grad: Tensor
    eta: Tensor
    loss: Tensor
    best: Tensor
    best_grad: Tensor
    best_loss: Tensor
    rises: Tensor
    checked_loss: Tensor
    reduced: Tensor
    rank: Tensor
    support: Tensor

    def keep(self, rows: Tensor) -> None:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name)[rows])

    def restart(self, chosen: Tensor) -> None:
        """The images chosen (B,) go on from their best iterate."""
        chosen = per_image(chosen, self.x)
        self.x = torch.where(chosen, self.best, self.x)
        self.grad = torch.where(chosen, self.best_grad, self.grad)


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Cost: num_steps + 1 forwards, num_steps input-backwards. View.loss is that of View.x, the best iterate.

    random_start: begin at a random point of the ball instead of the clean image (a KL loss needs that).
    """

    family: ClassVar[str] = "lp"
    first_eta: ClassVar[float]  # times epsilon

    random_start: bool = False

    @abstractmethod
    def draw(self, x: Tensor, seeds: Tensor) -> Tensor:
        """A random start."""

    @abstractmethod
    def checkpoints(self) -> set[int]:
        """After how many steps eta is reconsidered: known beforehand."""

    @abstractmethod
    def move(self, state: _State, step: int) -> Tensor:
        """The next iterate. A NaN gradient moves nothing: sgn(NaN) is 0 in torch."""

    @abstractmethod
    def adapt(self, state: _State, period: int) -> None:
        """Reconsider eta, `period` steps after the last time."""

    def watch(self, state: _State, before: Tensor, step: int) -> None:
        """Note what `adapt` needs of a step, from the loss before it to state.loss."""

    def _run(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss, final_forward: bool, stop: bool
    ) -> View:
        progress, checkpoints, checked = Progress(x, stop), self.checkpoints(), 0
        state = self._begin(x, y, seeds)
        _evaluate(model, state, loss, progress, backward=True)
        for step in range(self.num_steps):
            state.previous, state.x, before = state.x, self.move(state, step), state.loss
            _evaluate(model, state, loss, progress, backward=step + 1 < self.num_steps)
            self.watch(state, before, step)
            if step + 1 in checkpoints:
                self.adapt(state, step + 1 - checked)
                checked = step + 1
            rows = progress.survivors()
            if rows is not None:
                state.keep(rows)
                if not len(rows):
                    return progress.view(self.name)
        progress.hold(state.best, state.best_loss)
        return progress.view(self.name)

    def _begin(self, x: Tensor, y: Tensor, seeds: Tensor) -> _State:
        start = self.draw(x, seeds) if self.random_start else x
        none, size = x.new_zeros(len(x)), x[0].numel()
        return _State(
            clean=x, y=y, x=start, previous=start, grad=x, best=start, best_grad=x,
            eta=x.new_full((len(x), 1, 1, 1), self.first_eta * self.epsilon),
            loss=none, best_loss=none - torch.inf, checked_loss=none - torch.inf,
            rises=none, reduced=torch.ones_like(y, dtype=torch.bool),
            rank=torch.full_like(y, math.ceil(0.05 * size) - 1), support=none + size,
        )  # fmt: skip


def _evaluate(model: Model, state: _State, loss: Loss, progress: Progress, backward: bool) -> None:
    """Loss and, if asked, the gradient at state.x; keeps the best."""
    with torch.set_grad_enabled(backward):
        x = state.x.detach().requires_grad_(backward)
        logits, values = evaluate(model, loss, x, state.y)
        if backward:
            (state.grad,) = torch.autograd.grad(values.sum(), x)
    state.loss = values.detach()
    progress.add(state.x, logits.detach(), state.y, state.loss, counts=backward)
    better = state.loss > state.best_loss
    wide = per_image(better, state.x)
    state.best = torch.where(wide, state.x, state.best)
    state.best_loss = torch.where(better, state.loss, state.best_loss)
    if backward:
        state.best_grad = torch.where(wide, state.grad, state.best_grad)


@dataclass(frozen=True, kw_only=True)
class _Momentum(APGD):
    """The l-infinity and the l2 variant differ in direction and projection only."""

    first_eta: ClassVar[float] = 2.0

    as_published: bool = False

    def checkpoints(self) -> set[int]:
        n = self.num_steps
        period, shrink, least = (max(int(share * n), 1) for share in (0.22, 0.03, 0.06))
        marks, mark = set(), period
        while mark <= n:
            marks.add(mark)
            period = max(period - shrink, least)
            mark += period
        return marks

    def move(self, state: _State, step: int) -> Tensor:
        """Two projections: of x + eta * direction = z, then of x + a (z - x) + (1 - a) (x - previous), a = 0.75."""
        target = self.project(state.clean, torch.addcmul(state.x, state.eta, self.direction(state.grad)))
        if step == 0:
            return target
        mixed = torch.lerp(state.x, target, 0.75).add_(state.x - state.previous, alpha=0.25)
        return self.project(state.clean, mixed)

    def watch(self, state: _State, before: Tensor, step: int) -> None:
        if step == 0 and self.as_published:
            before = torch.zeros_like(before)
        state.rises = state.rises + (state.loss > before)

    def adapt(self, state: _State, period: int) -> None:
        """Halve eta and restart where the loss oscillated, or the best did not move since a check without halving."""
        oscillates = state.rises <= 0.75 * period
        stands = (state.checked_loss >= state.best_loss) & ~state.reduced
        state.reduced = oscillates | stands
        state.checked_loss = state.best_loss
        state.rises = torch.zeros_like(state.rises)
        state.eta = torch.where(per_image(state.reduced, state.eta), state.eta / 2, state.eta)
        state.restart(state.reduced)

    @abstractmethod
    def direction(self, grad: Tensor) -> Tensor:
        """The steepest step of size 1."""

    @abstractmethod
    def project(self, clean: Tensor, x: Tensor) -> Tensor:
        """x brought into the ball around the clean image, then into the box."""


@ATTACKS.register("linf")
@dataclass(frozen=True, kw_only=True)
class Linf(_Momentum):
    name: ClassVar[str] = "linf"
    norm: ClassVar[str] = "linf"
    max_epsilon: ClassVar[float] = 1.0

    def direction(self, grad: Tensor) -> Tensor:
        return grad.sign()

    def project(self, clean: Tensor, x: Tensor) -> Tensor:
        return x.clamp(clean - self.epsilon, clean + self.epsilon).clamp_(0, 1)

    def draw(self, x: Tensor, seeds: Tensor) -> Tensor:
        return self.project(x, x + geometry.random_linf(seeds, x.shape[1:], self.epsilon))


@ATTACKS.register("l2")
@dataclass(frozen=True, kw_only=True)
class L2(_Momentum):
    name: ClassVar[str] = "l2"
    norm: ClassVar[str] = "l2"

    def direction(self, grad: Tensor) -> Tensor:
        return geometry.steepest_l2(grad)

    def project(self, clean: Tensor, x: Tensor) -> Tensor:
        return (clean + geometry.project_l2(x - clean, self.epsilon)).clamp_(0, 1)

    def draw(self, x: Tensor, seeds: Tensor) -> Tensor:
        return self.project(x, x + geometry.random_l2(seeds, x.shape[1:], self.epsilon))


@ATTACKS.register("l1")
@dataclass(frozen=True, kw_only=True)
class L1(APGD):
    """No momentum: a step moves the coordinates of largest gradient, 5 % of them at first, by eta in all.

    At a checkpoint their number follows the support of the best perturbation, and eta starts anew where that shrank.
    """

    name: ClassVar[str] = "l1"
    norm: ClassVar[str] = "l1"
    first_eta: ClassVar[float] = 1.0

    def checkpoints(self) -> set[int]:
        period = max(int(0.04 * self.num_steps), 1)
        return set(range(period, self.num_steps + 1, period))

    def move(self, state: _State, step: int) -> Tensor:
        size = state.grad.abs()
        least = geometry.descending(size.flatten(1)).gather(1, state.rank[:, None])
        way = state.grad.sign() * (size >= per_image(least, size))
        eta = state.eta / way.flatten(1).count_nonzero(1).clamp_min(1)[:, None, None, None]
        return self._project(state.clean, torch.addcmul(state.x - state.clean, way, eta))

    def adapt(self, state: _State, period: int) -> None:
        support = (state.best != state.clean).flatten(1).sum(1, dtype=torch.float32)
        shrunk = support < 0.95 * state.support
        state.support = support
        state.rank = torch.rsub(support, -0.01, alpha=-1 / 1.5).long()  # ceil(support / 1.5) - 1, not below 0
        eta = (state.eta / 1.5).masked_fill(per_image(shrunk, state.eta), self.epsilon)
        state.eta = eta.clamp(self.epsilon / 10, self.epsilon)
        state.restart(shrunk)

    def _project(self, x: Tensor, delta: Tensor) -> Tensor:
        return x + geometry.project_l1_box(x, delta, self.epsilon)

    def draw(self, x: Tensor, seeds: Tensor) -> Tensor:
        return self._project(x, geometry.random_l1(seeds, x.shape[1:], self.epsilon))
