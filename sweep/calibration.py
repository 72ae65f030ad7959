"""`calibrate`: a budgets file for one model and data set, with the evidence, that sweeps and evaluations take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from attacks.errors import InputError
from sweep import engine, spaces, trial
from sweep.candidates import Candidate, hashed
from sweep.driver import Where
from sweep.progress import Progress
from sweep.settings import read_yaml
from sweep.spec import TrialBase
from trainers.calibrate import Calibrated, Target, calibrate
from trainers.data import ImageSet
from trainers.evaluate import judge_clean, slices
from trainers.pretrain import NORMS


def read_budgets(path: str) -> dict[str, Any]:
    """Attack -> row, of a budgets file."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"cannot read the budgets {path}: {e}") from e
    rows = read_yaml(text, path).get("attacks")
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise InputError(f"expected budgets in {path}, attack by attack under `attacks:`, got {rows!r}")
    return rows


def run(
    base: TrialBase, one: Candidate, images: ImageSet, target: Target, where: Where, progress: Progress
) -> list[Calibrated]:
    """One task an attack, on the workers of a cluster; in the order of `base.attacks`."""
    found: dict[str, Calibrated] = {}
    with engine.cluster(where.address, verbose=where.verbose), progress.judging(len(base.attacks)):
        granted = engine.resources(where.cpus, where.gpus, where.max_concurrent, 1)
        clean = engine.wait([engine.remote(_clean_accuracy, granted, one.weights, images)])[0]
        if clean < target.high:
            raise InputError(
                f"expected a model that is right on more than the target's {100 * target.high:g} % of the clean "
                f"images, got {100 * clean:.1f} %: lower --target, or train it further"
            )
        shared, pictures = engine.shared(one), engine.shared(images)
        started = {
            engine.remote(_calibrated, granted, base, name, shared, pictures, target): name for name in base.attacks
        }
        for name, result in engine.as_completed(started):
            found[name] = result
            epsilon, accuracy = result.row["epsilon"], dict(result.rounds)
            told = "" if result.reached else ", which misses the target"
            last = min(accuracy.items(), key=lambda pair: abs(pair[0] - epsilon))[1]
            progress.judged(
                1, f"{name}: epsilon {epsilon:g} leaves {100 * last:.1f} %{told} ({len(result.rounds)} rounds)"
            )
    return [found[name] for name in base.attacks]


def _calibrated(base: TrialBase, name: str, one: Candidate, images: ImageSet, target: Target) -> Calibrated:
    start = None if base.features == "self" else trial.starting(one.start)
    return calibrate(
        trial.starting(one.weights),
        images.to(trial.device()),
        name,
        base.budgets.get(name, {}),
        dataset=base.dataset,
        target=target,
        protocol=base.evaluation.resolved(),
        seed=base.seed,
        start=start,
    )


def _clean_accuracy(weights: bytes, images: ImageSet) -> float:
    model, here = trial.starting(weights), images.to(trial.device())
    right = sum(int(judge_clean(model, here, rows).robust.sum()) for rows in slices(len(images), 128))
    return right / len(images)


def document(base: TrialBase, one: Candidate, images: ImageSet, target: Target, found: list[Calibrated]) -> str:
    """The budgets file."""
    protocol = base.evaluation.resolved().name
    rows = {}
    for each in found:
        accuracy = next(a for e, a in each.rounds if abs(e - each.row["epsilon"]) <= 1e-5 * max(1.0, e))
        told = f"calibrated: {100 * accuracy:.1f} % of {len(images)} validation images robust, {protocol}"
        rows[each.attack] = each.row | {"source": told + ("" if each.reached else ", target missed")}
    evidence = {
        "model": one.about.method,
        "weights": hashed(one.weights),
        "dataset": base.dataset,
        "images": images.fingerprint,
        "n": len(images),
        "protocol": protocol,
        "seed": base.seed,
        "target": [target.low, target.high],
        "rounds": {each.attack: [[round(e, 6), round(a, 4)] for e, a in each.rounds] for each in found},
    }
    head = "# Budgets calibrated by Eq. 11 of the CAS papers; `--budgets FILE` of run and evaluate takes them.\n"
    made: str = yaml.safe_dump({"attacks": rows, "evidence": evidence}, sort_keys=False, width=120)
    return head + made


def expect_writable(path: Path) -> None:
    """Refuses, before hours of work, a file that exists or cannot be there."""
    if path.exists():
        raise InputError(f"{path} exists: choose another --out")
    expect_folder(path)


def expect_folder(path: Path) -> None:
    """Refuses, before hours of work, a file in no folder."""
    if not path.parent.is_dir():
        raise InputError(f"expected a folder for --out, got {path.parent}, which is none")


def default_attacks() -> list[str]:
    """Those of the papers whose budgets are no convention of the field: the semantic and the perceptual ones."""
    return [name for name in spaces.default_attacks() if name not in NORMS]
