"""MAX: each image's worst attack makes the training batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from attacks import Attack, View
from trainers.inner.adaptive_budget import Players, comparable_losses
from trainers.parts import Batch, Loss, Record, inners


@inners.register("max")
@dataclass
class Max:
    """One View, "max": of each image the result of the attack with the largest loss, of equal ones the first (Tramer
    and Boneh 2019; adaptive-budget, Alg. 1). It is robust where it is under every attack; its steps_correct are the
    fewest.

    The losses compared are those of the returned images, from the eval-mode model, as in RAMP's MAX (robust_union
    compares in train mode): a forward more of an attack that returns an iterate it has not evaluated. They are what
    the objective says that attacks maximise, or cross entropy, for which an attack with a loss of its own (ppgd) costs
    one more. So k attacks and up to 2 k forwards; `adaptive` about twice that: k attacks, k forwards and backwards for
    the norms, and all of it. `track` adds those k alone.

    The options are those of Players. Who leads a batch is told by the gradients if they are measured; else by how many
    images an attack won.
    """

    adaptive: str = "none"
    gradient: str = "parameter"
    clip_low: float = 0.5
    clip_high: float = 2.0
    scale_steps: bool = False
    track: bool = False

    def __post_init__(self) -> None:
        options = (self.adaptive, self.gradient, self.clip_low, self.clip_high, self.scale_steps, self.track)
        self._players = Players(*options)

    def views(
        self, model: nn.Module, batch: Batch, attacks: Sequence[Attack], loss: Loss | None, seeds: Tensor
    ) -> list[View]:
        names = [attack.name for attack in attacks]
        players = self._players.at_budgets(model, batch, names, attacks, loss, seeds)
        views = [a.run(model, batch.x, batch.y, seeds=seeds, loss=loss, final_forward=True) for a in players]
        losses = comparable_losses(model, batch, players, views, loss)
        worst = losses.argmax(0)
        shares = one_hot(worst, len(views)).float().mean(0)
        self._players.won(names, shares)
        self._players.watch(model, batch, names, (view.x for view in views), loss, shares)
        return [_worst(views, losses, worst)]

    def record(self) -> Record:
        return self._players.record()


def _worst(views: Sequence[View], losses: Tensor, worst: Tensor) -> View:
    x = views[0].x
    for j, view in enumerate(views[1:], 1):
        x = torch.where((worst == j)[:, None, None, None], view.x, x)
    robust = torch.stack([view.robust_all for view in views]).all(0)
    steps = torch.stack([view.steps_correct for view in views]).amin(0)
    return View("max", x, losses.gather(0, worst[None])[0], robust, steps)
