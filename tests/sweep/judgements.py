"""Sweeps whose verdicts a test writes by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.bits import pack
from sweep.layers import resolve
from sweep.settings import nest
from sweep.storage import Storage
from sweep.store import Store

FAMILY = {"clean": ("clean", None), "linf": ("lp", "linf"), "blur": ("semantic", None), "fog": ("semantic", None)}


def sweep_of(folder: Path, space: str, sweep_id: str = "s", **overrides: Any) -> Store:
    """A sweep of a space (the text of a YAML file) as `run` leaves it before its first trial."""
    path = folder / f"{sweep_id}.yaml"
    path.write_text(space)
    made = resolve(str(path), nest(overrides))
    store = Store(Storage(str(folder / "results")), sweep_id)
    document = {"space": str(path), "method": ", ".join(made.alternatives), "dataset": "digits", "fingerprint": "f"}
    document |= {"created": "2026-11-20T10:00:00+00:00", "trials": made.trials, "seed": 0, "versions": {"torch": "2"}}
    store.create(document | {"revision": "abc", "spec": made.model_dump(mode="json")})
    return store


def end(
    store: Store, number: int, params: Mapping[str, Any], values: Sequence[float], state: str = "COMPLETE", **more: Any
) -> None:
    """A configuration that ended, with a run a seed: 0, 1, ... of keys N-0, N-1, ..."""
    runs = [{"key": f"{number}-{seed}", "seed": seed, "replay": None} for seed in range(len(values))]
    method = str(params.get("method", "sat"))
    store.write_plan(number, {"method": method, "params": params, "runs": runs})
    for run, value in zip(runs, values, strict=True):
        about = {"number": number, "key": run["key"], "seed": run["seed"], "method": method, "params": params}
        done = {"state": state, "value": value if state == "COMPLETE" else None, "replay": False}
        store.commit_trial(about | done | more)


def judge(store: Store, key: str, verdicts: Mapping[str, Sequence[int]], split: str = "val", **more: Any) -> None:
    """A run's verdicts: attack -> a 0 or 1 an image."""
    rows = []
    for attack, robust in verdicts.items():
        family, norm = FAMILY[attack]
        row = {"attack": attack, "family": family, "norm": norm, "method": "sat", "weights": "live", "epoch": 1}
        row |= {"split": split, "images": split, "protocol": "quick", "budget_id": "digits", "epsilon": 0.1}
        row |= {"num_steps": 10, "conditional": False, "flags": [], "n": len(robust), "n_robust": sum(robust)}
        row |= {"robust_accuracy": sum(robust) / len(robust), "robust_bits": pack(list(map(bool, robust)))}
        rows.append(row | more)
    store.write_results(key, f"{split}-live", rows)
