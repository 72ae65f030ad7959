"""pyautoattack's attacks, fenced: nothing of theirs reaches the caller but images.

What is fenced: the global random state (set by their seed, then put back); the device (theirs is "cpu" by default);
more targets than there are classes; the targeted DLR loss under four classes and the DLR loss under three, which crash
(the plain margin to the same target stands in); a schedule of three radii in fewer than three steps, which crashes
(left out); FAB's .backward(), which adds to the weights' gradients (here only the input gets one); Square on logits
that are NaN, or tied with the label, which runs it on an empty batch; its change of the model's output in place; its
grid in l2 and l1, which overruns images of some sizes (refused); their prints, warnings and log.
What they return is not trusted: attacks.evaluation.ensemble projects, checks and judges it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks import losses, noise
from attacks.base import Model

NAMES = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
_QUERIES_PER_STEP = 50  # of Square: 5000 for 100 steps of the others
_THEIR_NORM = {"linf": "Linf", "l2": "L2", "l1": "L1"}
_QUIET = logging.Logger("quiet", logging.CRITICAL + 1)


@dataclass(frozen=True)
class Part:
    """One attack of theirs and its settings. radii: APGD in 3, 2 and 1 epsilon in turn. eot: gradients averaged."""

    name: str
    restarts: int = 1
    targets: int = 9
    eot: int = 1
    radii: bool = False


@dataclass(frozen=True)
class Budget:
    """What all parts of one run share."""

    norm: str
    epsilon: float
    num_steps: int
    num_classes: int
    seed: int


def global_seed(seeds: Tensor) -> int:
    """One seed for their global generator from those of a batch, (B,) int64, in any order. Waits for the device."""
    return int(noise.derive(seeds, 0).sum()) & (2**63 - 1)


def fits(part: Part, norm: str, height: int, width: int) -> bool:
    """Whether Square's first pattern in l2 and l1, a grid of squares of a fifth of the height, stays in the image."""
    if part.name != "square" or norm == "linf":
        return True
    side = height // 5
    return side > 0 and all((height % 5) // 2 + size // side * side <= size or side == 1 for size in (height, width))


def perturb(part: Part, budget: Budget, model: Model, x: Tensor, y: Tensor) -> Tensor:
    """Their images for x (B, C, H, W), all correctly classified, B >= 1: unchanged where they found nothing."""
    with _random_state_kept():
        made = _make(part, budget, _guarded(model), x.device)
        images: Tensor = made.perturb(x.clone(), y.clone()).detach()
    return images


def _make(part: Part, budget: Budget, model: Model, device: torch.device) -> Any:
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack

    shared = {"norm": _THEIR_NORM[budget.norm], "eps": budget.epsilon, "seed": budget.seed, "device": device}
    shared |= {"n_restarts": part.restarts}
    targets = min(part.targets, budget.num_classes - 1)
    if part.name == "square":
        queries = _QUERIES_PER_STEP * budget.num_steps
        return _judging(SquareAttack(model, p_init=0.8, n_queries=queries, resc_schedule=False, **shared))
    shared |= {"n_iter": budget.num_steps}
    if part.name.startswith("fab"):
        return FABAttack_PT(model, targeted=part.name == "fab-t", n_target_classes=targets, **shared)
    shared |= {"eot_iter": part.eot, "logger": _QUIET, "use_largereps": part.radii and budget.num_steps >= 3}
    if part.name == "apgd-t":
        apgd = APGDAttack_targeted(model, n_target_classes=targets, **shared)
    else:
        apgd = APGDAttack(model, loss=part.name.removeprefix("apgd-"), **shared)
    return _few_classes(apgd, budget.num_classes)


def _few_classes(apgd: Any, num_classes: int) -> Any:
    """DLR divides by a difference of logits ranked 1 and 3, or 1, 3 and 4 if targeted: without those, by nothing."""
    if num_classes < 3:
        apgd.dlr_loss = losses.margin
    if num_classes < 4:
        apgd.dlr_loss_targeted = lambda logits, y: _logit(logits, apgd.y_target) - _logit(logits, y)
    return apgd


def _logit(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None])[:, 0]


def _judging(square: Any) -> Any:
    """Square, for which an image is broken where its margin is not above 0, be it 0 or NaN: it is left alone then."""
    theirs = square.margin_and_loss

    def margin_and_loss(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        margin, loss = theirs(x, y)
        broken = ~(margin > 0)
        return margin.masked_fill(broken, -1).clamp_max(1e30), loss.masked_fill(broken, -1).clamp_max(1e30)

    square.margin_and_loss = margin_and_loss
    return square


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Their torch.random.manual_seed seeds every GPU, too, or on a machine that has not used one yet, will."""
    used, seeded = torch.cuda.is_initialized(), torch.initial_seed()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count())) if used else []):
        yield
    if torch.cuda.is_available() and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seeded)


def _guarded(model: Model) -> Model:
    """The model, its logits the caller's own to change; a backward goes to the input only, as often as it is asked."""

    def call(x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            logits: Tensor = _InputGradient.apply(x, model)  # type: ignore[no-untyped-call]
            return logits
        return model(x).clone()

    return call


class _InputGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Model) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.logits = model(ctx.x)
        logits: Tensor = ctx.logits.detach().clone()
        return logits

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return torch.autograd.grad(ctx.logits, ctx.x, grad, retain_graph=True)[0], None
