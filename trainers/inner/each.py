"""AVG: every attack makes a training batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from attacks import Attack, View
from trainers.inner.adaptive_budget import Players, comparable_losses
from trainers.parts import Batch, Loss, Record, inners


@inners.register("each")
@dataclass
class Each:
    """A View for each attack, whose losses the objective averages (Tramer and Boneh 2019; adaptive-budget, Alg. 1): one
    update from k views, not robust_union's k updates on CIFAR-10. Costs k times `single`; `adaptive` over twice that:
    the k attacks, k forwards and backwards for the norms, and the attacks again. `track` costs those k alone.

    The options are those of Players. Who leads a batch is told by the gradients if they are measured; else by the mean
    loss that the attacks report, for PGD that of the last iterate but one; an attack with a loss of its own (ppgd)
    costs a forward more.
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
        views = [attack.run(model, batch.x, batch.y, seeds=seeds, loss=loss) for attack in players]
        free = None
        if not self._players.by_gradient and len(views) > 1:
            free = comparable_losses(model, batch, players, views, loss).mean(1)
        self._players.watch(model, batch, names, (view.x for view in views), loss, free)
        return views

    def record(self) -> Record:
        return self._players.record()
