"""The `results` rows of a model's verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sweep.bits import pack, pack_classes
from sweep.spec import START, TrialBase, digest
from trainers.data import ImageSet
from trainers.evaluate import Verdict


@dataclass(frozen=True)
class Subject:
    """Whose verdicts they are."""

    trial: str
    number: int | None
    method: str
    weights: str
    epoch: int


def rows(
    trial: TrialBase, about: Subject, split: str, images: ImageSet, verdicts: Iterable[Verdict]
) -> list[dict[str, Any]]:
    """The `results` rows of some verdicts."""
    shared = asdict(about) | {
        "split": split,
        "dataset": trial.dataset,
        "model": f"{trial.model.name}-{trial.model.width}",
        "init": trial.init,
        "seed": trial.seed,
        "protocol": trial.evaluation.resolved().name,
        "images": images.fingerprint,
        "budget_id": budget_id(trial),
        "attack_seed": trial.seed,
    }
    clean = {"labels": pack_classes(images.labels.cpu().numpy()), "budget_id": None}
    return [shared | _verdict_row(verdict) | (clean if verdict.attack == "clean" else {}) for verdict in verdicts]


_COLUMNS = ("attack", "family", "norm", "epsilon", "num_steps", "mean_loss", "seconds", "conditional")


def _verdict_row(verdict: Verdict) -> dict[str, Any]:
    n, n_robust = len(verdict.robust), int(verdict.robust.sum())
    row = {name: getattr(verdict, name) for name in _COLUMNS} | {"flags": list(verdict.flags)}
    row |= {"n": n, "n_robust": n_robust, "robust_accuracy": n_robust / n, "robust_bits": pack(verdict.robust.numpy())}
    return row | {"predicted": None if verdict.predicted is None else pack_classes(verdict.predicted.numpy())}


def budget_id(trial: TrialBase) -> str:
    """Names the set of budgets: attacks/budgets/<dataset>.yaml, with the trial's own where it has some."""
    own = {"epsilons": trial.epsilons, "budgets": trial.budgets, "features": trial.features}
    named = {key: value for key, value in own.items() if value not in ({}, START)}
    return f"{trial.dataset}+{digest(named)}" if named else trial.dataset
