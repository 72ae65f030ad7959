"""Fast minimum norm in l-infinity: the smallest perturbation that misclassifies, judged by whether it fits the budget.

Source: Pintor et al. 2021 and its code, Fast-Minimum-Norm-FMN-Attack@1d2e600; VIR runs 100 steps of it.
Symbols: delta the perturbation, radius the ball that it is in (their epsilon, for each image), gamma the radius's step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from attacks import geometry, losses
from attacks.base import ATTACKS, Attack, Loss, Model, View, evaluate
from attacks.evaluation.ensemble import OwnLoss
from attacks.geometry import per_image
from attacks.progress import Progress

_BEYOND = 1.001  # times the way to the tangent's crossing


@dataclass
class _State:
    """Per-image tensors, (B, ...) each; `smallest` is the least norm of an adversarial delta, infinite before one."""

    clean: Tensor
    y: Tensor
    delta: Tensor
    radius: Tensor
    worst: Tensor
    best: Tensor
    best_margin: Tensor
    smallest: Tensor

    def keep(self, rows: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[rows])


@ATTACKS.register("fmn-100")
@dataclass(frozen=True, kw_only=True)
class FMN(OwnLoss, Attack):
    """The result is the smallest adversarial image found if it lies within epsilon, else the last iterate, clipped.

    An iterate outside the epsilon ball is no verdict on the image: it counts as correct in View.robust_all and
    steps_correct. The search itself does not know epsilon: budgets differ in the verdict only. It draws nothing.
    step_size: the l2 length of the first step, annealed to a hundredth by a cosine; gamma likewise, 0.05 to 0.001.
    Cost: num_steps forwards and input-backwards. Deviations: until an adversarial image is found the radius goes a
    thousandth beyond where the tangent crosses (theirs ends there, and where a model is locally linear so does the
    image, on the boundary and not over it); a gradient of 0 leaves the image where it is (theirs divides by it); with
    stop_when_broken an image leaves as soon as it is broken within epsilon.
    """

    name: ClassVar[str] = "fmn-100"
    family: ClassVar[str] = "lp"
    norm: ClassVar[str] = "linf"
    max_epsilon: ClassVar[float] = 1.0

    step_size: float = 1.0
    gamma: float = 0.05

    def objective(self, logits: Tensor, y: Tensor) -> Tensor:
        return losses.margin(logits, y)

    def _run(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss, final_forward: bool, stop: bool
    ) -> View:
        progress, state = Progress(x, stop), _begin(x, y)
        for step in range(self.num_steps):
            annealed = (1 + math.cos(math.pi * step / self.num_steps)) / 2
            self._step(model, state, loss, progress, annealed)
            rows = progress.survivors()
            if rows is not None:
                state.keep(rows)
                if not len(rows):
                    return progress.view(self.name)
        fits = state.smallest <= self.epsilon
        last = geometry.project_linf(state.delta, self.epsilon)
        x_adv = state.clean + torch.where(per_image(fits, last), state.best, last)
        if final_forward:
            logits, values = evaluate(model, loss, x_adv, state.y)
            progress.add(x_adv, logits, state.y, values, counts=False)
        progress.hold(x_adv, values if final_forward else torch.where(fits, state.best_margin, progress.loss))
        return progress.view(self.name)

    def _step(self, model: Model, state: _State, loss: Loss, progress: Progress, annealed: float) -> None:
        with torch.enable_grad():
            z = (state.clean + state.delta).detach().requires_grad_()
            logits, values = evaluate(model, loss, z, state.y)
            (grad,) = torch.autograd.grad(values.sum(), z)
        logits, values = logits.detach(), values.detach()
        norm = state.delta.flatten(1).abs().amax(1)
        top, label = logits.max(1)
        adversarial = (label != state.y) | (top != top)
        progress.add(z.detach(), _judged(logits, state.y, norm <= self.epsilon), state.y, values)
        found = state.smallest < torch.inf
        smaller = adversarial & (norm < state.smallest)
        state.smallest = torch.where(smaller, norm, state.smallest)
        state.best = torch.where(per_image(smaller, state.best), state.delta, state.best)
        state.best_margin = torch.where(smaller, values, state.best_margin)
        state.radius = _radius(state, adversarial, found, norm, values, grad, 0.001 + (self.gamma - 0.001) * annealed)
        length = self.step_size * (0.01 + 0.99 * annealed)
        delta = torch.add(state.delta, geometry.steepest_l2(grad), alpha=length)
        reach = per_image(state.radius, delta)
        state.delta = (state.clean + delta.clamp(-reach, reach)).clamp_(0, 1) - state.clean


def _begin(x: Tensor, y: Tensor) -> _State:
    none = torch.zeros_like(x)
    never = x.new_full((len(x),), torch.inf)
    worst = torch.maximum(x, 1 - x).flatten(1).amax(1)
    return _State(x, y, none, never, worst, none, x.new_zeros(len(x)), never)


def _radius(
    state: _State, adversarial: Tensor, found: Tensor, norm: Tensor, margin: Tensor, grad: Tensor, gamma: float
) -> Tensor:
    """Inwards where the iterate is adversarial, outwards where an earlier one was, else where the tangent crosses."""
    slope = grad.flatten(1).abs().sum(1).clamp_min(torch.finfo(grad.dtype).tiny)
    ahead = torch.where(found, state.radius * (1 + gamma), (norm + margin.abs() / slope) * _BEYOND)
    radius = torch.where(adversarial, torch.minimum(state.radius * (1 - gamma), state.smallest), ahead)
    return torch.minimum(radius.nan_to_num(torch.inf), state.worst)


def _judged(logits: Tensor, y: Tensor, inside: Tensor) -> Tensor:
    """The logits, those of images outside the ball replaced by ones that say the label."""
    said = torch.zeros_like(logits).scatter_(1, y[:, None], 1.0)
    return torch.where(inside[:, None], logits, said)
