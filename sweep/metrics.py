"""What a trial's verdicts come to: the numbers that a search may look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from sweep import goals, tables
from trainers.evaluate import Verdict


def value(verdicts: Iterable[Verdict]) -> float:
    """What a search maximises unless it is told otherwise: (avg lp + avg semantic) / 2."""
    return _averages(_attacked(verdicts))[2]


def metrics(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """What else a search may maximise or bound (goals.py): clean accuracy, that under each attack and under all at
    once, image by image, and the averages over the lp and over the semantic attacks, where there are some."""
    attacked = _attacked(verdicts)
    lp, semantic, _ = _averages(attacked)
    kept = torch.stack([verdict.robust for verdict in attacked]).all(dim=0)
    held = {verdict.attack: verdict.robust for verdict in verdicts if not verdict.conditional} | {goals.WORST: kept}
    found = {goals.LP: lp, goals.SEMANTIC: semantic} | {name: float(one.double().mean()) for name, one in held.items()}
    return {name: number for name, number in found.items() if number is not None}


def _attacked(verdicts: Iterable[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.attack != goals.CLEAN and not verdict.conditional]


def _averages(attacked: Iterable[Verdict]) -> tuple[float | None, float | None, float]:
    threats = {v.attack: (v.family, v.norm or v.attack) for v in attacked}
    return tables.averages({v.attack: v.robust.double().numpy() for v in attacked}, threats)
