"""One attack trains the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from attacks import Attack, View
from trainers.parts import Batch, Loss, Record, inners


@inners.register("single")
@dataclass
class Single:
    """The one attack that the sampler chose; a sampler that chooses several is refused."""

    def views(
        self, model: nn.Module, batch: Batch, attacks: Sequence[Attack], loss: Loss | None, seeds: Tensor
    ) -> list[View]:
        (attack,) = attacks
        return [attack.run(model, batch.x, batch.y, seeds=seeds, loss=loss)]

    def record(self) -> Record:
        return {}
