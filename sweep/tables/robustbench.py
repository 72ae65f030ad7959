"""Rows of a table in the shape of RobustBench's model_info/<dataset>/<threat model>/<name>.json
(RobustBench/robustbench@ae5814d): accuracies are percent as text, the budget is a fraction of 255 where it is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sweep.tables import Table
from sweep.tables.models import CLEAN, Model

_THREATS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def entries(found: Table) -> list[dict[str, Any]]:
    """One entry for each row and lp norm under which it was judged, one without a threat model for a row without any.

    `autoattack_acc` is there where AutoAttack judged that norm, `unreliable` where a verdict of it, or a clean one, is
    flagged. What only the submitter knows is null; keys after `unreliable` are ours.
    """
    pairs = zip(found.models, found.rows, strict=True)
    return [entry for model, row in pairs for entry in _entries(model, row)]


def _entries(model: Model, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    run = model.runs[0]
    norms: list[str | None] = [norm for norm in _THREATS if any(verdict["norm"] == norm for verdict in run.values())]
    for norm in norms or [None]:
        mine = [verdict for name, verdict in run.items() if name == CLEAN or (norm and verdict["norm"] == norm)]
        flags = sorted({flag for verdict in mine for flag in verdict["flags"] or []})
        judged = row.get(f"autoattack-{norm}")
        yield {
            "link": None,
            "name": model.method + (f" ({row['settings']})" if row.get("settings") else ""),
            "authors": None,
            "additional_data": None,
            "number_forward_passes": 1,
            "dataset": next(iter(run.values()))["dataset"],
            "venue": None,
            "architecture": next(iter(run.values()))["model"],
            "eps": _eps([verdict for verdict in mine if verdict["norm"]]),
            "clean_acc": _percent(row.get(CLEAN)),
            "reported": None,
            **({} if judged is None else {"autoattack_acc": _percent(judged)}),
            "footnote": ", ".join(flags) or None,
            "unreliable": bool(flags),
            "threat_model": _THREATS.get(norm or ""),
            "sweep": model.sweep,
            "number": model.number,
            "weights": model.weights,
            "seeds": row["seeds"],
            "n_examples": row["images"],
        }


def _percent(accuracy: float | None) -> str | None:
    return None if accuracy is None else f"{100 * accuracy:.2f}"


def _eps(verdicts: list[Any]) -> str | None:
    """8/255, 0.5; those of several attacks of the norm that differ, with commas."""
    told = dict.fromkeys(_fraction(verdict["epsilon"]) for verdict in verdicts if verdict["epsilon"] is not None)
    return ", ".join(told) or None


def _fraction(epsilon: float) -> str:
    levels, decimal = round(255 * epsilon), f"{epsilon:.3g}"
    if epsilon < 1 and levels and abs(255 * epsilon - levels) < 1e-4 and abs(float(decimal) - epsilon) > 1e-9:
        return f"{levels}/255"
    return decimal if float(decimal) == epsilon else f"{epsilon:g}"
