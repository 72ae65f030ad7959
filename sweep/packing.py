"""How much of a GPU a trial of one worker gets, so that several run on one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.store import COMPLETE

MARGIN = 1.2
"""Of a trial's memory over what the largest so far took at most: others of the sweep differ a little."""
CONTEXT = 600 << 20
"""Bytes that a process holds on a GPU beside what torch reserves."""
_STEPS = 10_000
"""Ray counts a GPU in so many parts."""


def share(trials: int) -> float:
    """Of one GPU, for so many trials: rounded down as Ray counts, for they are to fit together."""
    return _STEPS // trials / _STEPS


def fitting(memory: int, peak: int, most: int) -> int:
    """How many trials that take `peak` bytes fit in the memory of a GPU: at least one, at most `most`."""
    return max(1, min(most, int(memory // (peak * MARGIN + CONTEXT))))


@dataclass
class Packing:
    """The share of the next trial. With `memory`, of a GPU, it follows from the peak of the largest COMPLETE trial so
    far; until there is one each trial has a GPU of its own, `gpus` at a time. Without, it stays."""

    share: float
    memory: int = 0
    most: int = 1
    gpus: int = 1
    _peak: int = 0

    def admits(self, running: int) -> bool:
        """Whether another trial may begin beside so many."""
        return not self.memory or self._peak > 0 or running < self.gpus

    def ended(self, row: Mapping[str, Any]) -> None:
        """Looks at a `trials` row, of this driver or an earlier one."""
        peak = row.get("peak_memory") or 0
        if self.memory and row["state"] == COMPLETE and peak > self._peak:
            self._peak = peak
            self.share = share(fitting(self.memory, peak, self.most))
