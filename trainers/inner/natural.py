"""No attack: the clean batch trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks import Attack, View
from trainers.parts import Batch, Loss, Record, inners


@inners.register("natural")
@dataclass
class Natural:
    """Standard training. The one view is the clean batch under the name of the attack that the sampler chose; nothing
    was tried on it, so it counts as robust."""

    def views(
        self, model: nn.Module, batch: Batch, attacks: Sequence[Attack], loss: Loss | None, seeds: Tensor
    ) -> list[View]:
        none, robust = torch.zeros_like(batch.y), torch.ones_like(batch.y, dtype=torch.bool)
        return [View(attacks[0].name, batch.x, none.float(), robust, none)]

    def record(self) -> Record:
        return {}
