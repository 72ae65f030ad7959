"""The soft-margin SVM of adaptive-budget (Sec. 4.1, App. C.1): what one player's domination does to MAX and to AVG.

Points (y, x) of the paper enter as z = y * x: every loss is max(0, 1 - w^T(z - c)) with c = -y * delta, the same vector
for all points, so that a player leads on all of them or on none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.errors import InputError

PLAYERS = ("linf", "l2", "l1")
INNERS = ("max", "avg")
"""MSD is MAX here (Lemma 12)."""
Shifts = Mapping[str, Tensor]
TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Svm:
    """z_1 is 1 with probability `p`, else -1; the `dimension` others, the non-robust features, are N(mu, 1). `mu` None
    is 4 / sqrt(dimension). Budgets are in units of mu. `steps` of re-training follow the natural one.

    `tied` gives all non-robust features one weight, as the minimisers over the distribution have it (Lemmas 6 and 8).
    Otherwise each has its own, and the minimisers over a sample follow its noise: at an optimum of AVG the weights are
    smaller than the errors of the features' means (1 / sqrt(samples)), so that their signs are left to chance.
    """

    dimension: int = 1000
    samples: int = 100_000
    p: float = 0.95
    mu: float | None = None
    linf: float = 2.0
    l2: float = 2.0
    l1: float = 2.0
    inner: str = "max"
    tied: bool = True
    steps: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("dimension", 1), ("samples", 1), ("steps", 2)):
            if getattr(self, name) < low:
                raise InputError(f"expected {name} >= {low}, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"expected seed from 0 to 2^63 - 1, got {self.seed}")
        if self.mu is not None and not 0 < self.mu < float("inf"):
            raise InputError(f"expected mu > 0, or null for 4 / sqrt(dimension), got {self.mu}")
        if not 0.5 <= self.p <= 1:
            raise InputError(f"expected p between 0.5 and 1, got {self.p}")
        for name in ("linf", "l2", "l1"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"expected {name} >= 0, got {getattr(self, name)}")
        if self.inner not in INNERS:
            raise InputError(f"expected inner max or avg, got {self.inner!r}")

    @property
    def mean(self) -> float:
        return 4 / self.dimension**0.5 if self.mu is None else self.mu

    @property
    def epsilons(self) -> dict[str, float]:
        return {name: getattr(self, name) * self.mean for name in PLAYERS}

    def holds_theorem_1(self) -> bool:
        """Whether its conditions hold: then linf leads at every step under MAX."""
        eps, d = self.epsilons, self.dimension
        enough = eps["linf"] >= max(2 * self.mean, 2 / d * eps["l1"], (2 / d) ** 0.5 * eps["l2"])
        return enough and self.mean >= 4 / d**0.5 and self.p <= 0.977

    @property
    def multiplicity(self) -> Tensor:
        """How many features each weight stands for."""
        return torch.tensor([1.0, self.dimension]) if self.tied else torch.ones(1 + self.dimension)

    def points(self) -> Tensor:
        """z, (samples, weights) float32: of features that share a weight, their sum over the root of their number."""
        generator = torch.Generator().manual_seed(self.seed)
        count = self.multiplicity
        z = torch.empty(self.samples, len(count)).normal_(generator=generator)
        z += self.mean * count.sqrt()
        z[:, 0] = torch.where(torch.rand(self.samples, generator=generator) < self.p, 1.0, -1.0)
        return z


def shifts(w: Tensor, epsilons: Mapping[str, float], multiplicity: Tensor) -> dict[str, Tensor]:
    """c of each player: -y times the closed forms of step 1, for weights and points in units of the root of the
    multiplicity. As printed, l1's is epsilon * w / |w|_1, which lies in the ball but is not its worst point (that is
    one coordinate)."""
    root = multiplicity.sqrt()
    norms = {"linf": root * w.sign(), "l2": w / w.norm(), "l1": w / (root * w.abs()).sum()}
    return {name: epsilons[name] * norms[name] for name in PLAYERS}


def losses(scores: Tensor, w: Tensor, of: Shifts) -> dict[str, Tensor]:
    """The loss of each point (n,) under each player; scores = z @ w."""
    return {name: (1 - scores + w @ c).clamp(min=0) for name, c in of.items()}


def minimise(z: Tensor, of: Shifts, weights: Mapping[str, float], w: Tensor, iterations: int = 100) -> Tensor:
    """argmin over |w|_2 = 1 of the mean of sum_p weights[p] * max(0, 1 - w^T(z - c_p)), the perturbations held fixed.

    Projected gradient descent with steps that halve until the loss falls, to a change of w below TOLERANCE (the paper
    names no solver). Where a whole arc has no loss, as at every other step of MAX with the paper's constants, it stops
    at the first such w on its way: how low MAX's loss goes is of that choice, its flips and its leader are not.
    Cost: two passes over z an iteration."""
    loss, gradient = _slope(z, of, weights, w)
    size = 2.0
    for _ in range(iterations):
        if not gradient.any():
            break
        moved = w - size * gradient / gradient.norm()
        moved = moved / moved.norm()
        found = _slope(z, of, weights, moved)
        if found[0] >= loss:
            size /= 2
            if size < TOLERANCE:
                break
            continue
        change = float((moved - w).norm())
        w, (loss, gradient) = moved, found
        if change < TOLERANCE:
            break
    return w


def _slope(z: Tensor, of: Shifts, weights: Mapping[str, float], w: Tensor) -> tuple[float, Tensor]:
    scores = z @ w
    total, counts, pull = 0.0, torch.zeros_like(scores), torch.zeros_like(w)
    for name, each in losses(scores, w, of).items():
        active = (each > 0).float()
        total += weights[name] * float(each.mean())
        counts += weights[name] * active
        pull += weights[name] * active.mean() * of[name]
    gradient = pull - counts @ z / len(z)
    return total, gradient - (gradient @ w) * w  # along the sphere


@dataclass(frozen=True)
class Step:
    """One step of the procedure: the loss of the weights that it began with, under their own perturbations; of the
    points with a loss, the share on which each player's is the largest (0 without such points); how many weights got
    another sign."""

    loss: float
    leads: dict[str, float]
    flips: int


def train(svm: Svm) -> Iterator[Step]:
    """Steps 0 to 3 of Sec. 4.1. MAX trains on the player with the larger mean loss, which here is larger on every
    point; AVG weighs all by 1/3."""
    z, count = svm.points(), svm.multiplicity
    start = count.sqrt() / float(count.sum()) ** 0.5
    w = minimise(z, {"natural": torch.zeros_like(start)}, {"natural": 1.0}, start)
    for _ in range(svm.steps):
        of = shifts(w, svm.epsilons, count)
        each = losses(z @ w, w, of)
        worst, first = torch.stack(list(each.values())).max(0)
        leads = torch.bincount(first[worst > 0], minlength=len(PLAYERS)) / (worst > 0).sum().clamp(min=1)
        leader = max(each, key=lambda name: float(each[name].mean()))
        weights = {name: 1 / 3 if svm.inner == "avg" else float(name == leader) for name in PLAYERS}
        loss = sum(weights[name] * float(each[name].mean()) for name in PLAYERS)
        new = minimise(z, of, weights, w)
        flips = int((count * (new.sign() != w.sign())).sum())
        yield Step(loss, dict(zip(PLAYERS, leads.tolist(), strict=True)), flips)
        w = new
