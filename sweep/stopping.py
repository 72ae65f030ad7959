"""Early stopping: which runs end before their last epoch."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from sweep.settings import Count, Number, Strict

NONE, ASHA, HYPERBAND = "none", "asha", "hyperband"


class Stopping(Strict):
    """A run is compared at rungs, which are epochs: `grace`, and each `reduction` times the one before. It ends where
    its value is below that of the best 1/`reduction` of the runs that came there before it. Under `asha` every run is
    compared at every rung; under `hyperband` configurations are dealt to brackets, each without one more of the first
    rungs."""

    name: Literal["none", "asha", "hyperband"] = "none"
    grace: Count = 1
    reduction: Annotated[Number, Field(gt=1)] = 3

    def brackets(self, epochs: int) -> int:
        """How many there are for runs of at most so many epochs: as many as rungs."""
        return 1 + int(math.log(epochs / self.grace) / math.log(self.reduction)) if self.name == HYPERBAND else 1
