"""A companion run: what one epoch of another training would have made of the same weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from attacks import Attack
from attacks.errors import unknown
from trainers.averaging.ema import snapshot
from trainers.inner.natural import Natural
from trainers.objectives.ce import CrossEntropy
from trainers.parts import State
from trainers.step import Step
from trainers.weightings.none import Equal

CLEAN = "clean"


def one_epoch(kind: str, step: Step, start: State, batches: Sequence[Tensor], epoch: int, any_attack: Attack) -> State:
    """The state dict after one epoch from `start` on the same batches and schedule, with an SGD of its own.

    The one kind is "clean": cross entropy on clean images (RAMP's theta_n, SPEC D). Costs one forward and one backward
    pass per image. `step.model` is left alone.
    """
    if kind != CLEAN:
        raise unknown("companion", kind, [CLEAN])
    model = copy.deepcopy(step.model)
    model.load_state_dict(start)
    recipe = step.recipe
    optimizer = recipe.optimizer(model.parameters())
    own = replace(
        step,
        model=model,
        net=step.workers.wrap(model),
        optimizer=optimizer,
        inner=Natural(),
        objective=CrossEntropy(),
        weighting=Equal(),
    )
    for i, index in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(epoch, i, len(batches))
        own(own.batch(index, epoch, i), [any_attack])
    step.workers.agree_on_buffers(model, None)
    return snapshot(model)
