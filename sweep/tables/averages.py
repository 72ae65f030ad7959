"""The averages of the papers, of verdicts image by image or of accuracies alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from attacks.errors import unknown
from sweep.intervals import Floats

Threat = tuple[str, str]
"""An attack's family, and what it bounds: its norm, or, where it bounds none, its own name."""
USUAL, SVHN = "lp-semantic", "svhn"
_CORRUPTIONS = ("snow", "blur", "fog")
_PARTS: dict[str, Callable[[Threat], bool]] = {
    "avg_lp": lambda threat: threat[0] == "lp",
    "avg_semantic": lambda threat: threat[0] in ("semantic", "perceptual"),
    "avg_corruption": lambda threat: threat[1] in _CORRUPTIONS,
    "avg_others": lambda threat: threat[1] not in _CORRUPTIONS,
}
FORMULAS = {USUAL: ("avg_lp", "avg_semantic"), SVHN: ("avg_corruption", "avg_others")}
"""Which two averages the average is the mean of: cas-three-phase's and cas-bandit's, and cas-bandit's on SVHN, where
snow, blur and fog weigh as much as all other attacks together."""
AVERAGE = "average"


def formula(name: str | None, dataset: str | None) -> str:
    """The formula asked for, or the data set's own."""
    if name is not None and name not in FORMULAS:
        raise unknown("average", name, FORMULAS)
    return name or (SVHN if dataset == SVHN else USUAL)


def columns(formula: str) -> tuple[str, ...]:
    """The averages that a table has: avg_lp and avg_semantic always."""
    return tuple(dict.fromkeys((*FORMULAS[USUAL], *FORMULAS[formula], AVERAGE)))


def averaged(robust: Mapping[str, Floats], threats: Mapping[str, Threat], formula: str = USUAL) -> dict[str, Floats]:
    """The averages by column, of attack -> verdicts 0.0 or 1.0, of any one shape, which they have too.

    Perceptual counts as semantic. A norm counts once: robust in it is what survives all of its attacks. A part that
    was not attacked has no average, and the other one is then the average. ValueError for neither.
    """
    groups = _by_threat(robust, threats)
    found: dict[str, Floats] = {}
    for column in columns(formula)[:-1]:
        if members := [verdicts for threat, verdicts in groups.items() if _PARTS[column](threat)]:
            found[column] = np.asarray(np.mean(members, axis=0))
    held = [found[column] for column in FORMULAS[formula] if column in found]
    if not held:
        raise ValueError("expected an lp, semantic or perceptual attack")
    return found | {AVERAGE: np.asarray(np.mean(held, axis=0))}


def averages(robust: Mapping[str, Floats], threats: Mapping[str, Threat]) -> tuple[float | None, float | None, float]:
    """(avg lp, avg semantic, their mean), as numbers, of attack -> verdicts; None for a family not attacked."""
    means = {name: float(scores.mean()) for name, scores in averaged(robust, threats).items()}
    return means.get("avg_lp"), means.get("avg_semantic"), means[AVERAGE]


def _by_threat(robust: Mapping[str, Floats], threats: Mapping[str, Threat]) -> dict[Threat, Floats]:
    groups: dict[Threat, Floats] = {}
    for name, verdicts in robust.items():
        before = groups.get(threats[name])
        groups[threats[name]] = verdicts if before is None else np.asarray(before * verdicts)
    return groups
