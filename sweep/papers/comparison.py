"""Which measured cells may be compared with printed ones: clean accuracy, and lp accuracy by AutoAttack at the paper's
budget, of the same data set, network and kind of starting model, on the test split (SPEC G.5)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from sweep.papers.layouts import Paper
from sweep.papers.measured import Model, Row
from sweep.papers.metrics import Measure
from sweep.papers.printed import Number

CLEAN = "clean"
AUTOATTACK = re.compile(r"autoattack-(linf|l2|l1)")
STEPS = 100
"""Of the standard AutoAttack."""
NEAR = 0.015
"""Budgets agree within this share of themselves: 0.031 and 8/255 are one."""


def reasons(paper: Paper, number: Number, model: Model, measure: Measure, split: str) -> list[str]:
    """Why the cell cannot be compared; empty where it can."""
    found = [*_model(paper, number, model), *([] if split == "test" else [f"on the {split} split"])]
    if not measure.rows:
        return [*found, f"{number.unit} are not compared"]
    found += _substitutes(measure.rows)
    for row in measure.rows:
        found += _row(row, paper.budgets.get(number.dataset, {}))
    return list(dict.fromkeys(found))


def _substitutes(rows: Sequence[Row]) -> list[str]:
    """The lp attacks that are no AutoAttack, in one line."""
    other = [row for row in rows if row["family"] == "lp" and not AUTOATTACK.fullmatch(row["attack"])]
    names, protocols = (", ".join(dict.fromkeys(row[name] for row in other)) for name in ("attack", "protocol"))
    return [f"by {names} ({protocols}): of the lp attacks only AutoAttack is compared"] if other else []


def start(init: str) -> str:
    """The kind of a starting model: the norm that it is robust in, `none` for fresh weights, or what it is. A file's,
    and RobustBench's, is the norm that its name carries."""
    named = set(re.findall(r"linf|l2|l1", init.lower()))
    return named.pop() if len(named) == 1 else init


def _model(paper: Paper, number: Number, model: Model) -> Iterator[str]:
    if model.dataset not in paper.datasets.get(number.dataset, ()):
        yield f"measured on {model.dataset}, the paper on {number.dataset}"
    if model.model != (theirs := paper.models.get(number.model, number.model)):
        yield f"the network is {model.model}, the paper's {theirs}"
    theirs = paper.starts.get(number.pretrained, number.pretrained)
    if theirs and (kind := start(model.init)) != theirs:
        yield f"the starting model is {model.init} ({kind}), the paper's {theirs}"


def _row(row: Row, budgets: Mapping[str, float]) -> Iterator[str]:
    if row["flags"]:
        yield f"{row['attack']} is flagged: {', '.join(row['flags'])}"
    if row["attack"] == CLEAN:
        return
    if row["family"] != "lp":
        yield "the paper's semantic and perceptual budgets are unpublished"
    elif not (by := AUTOATTACK.fullmatch(row["attack"])):
        return
    elif row["num_steps"] != STEPS:
        yield f"{row['attack']} of {row['num_steps']} steps, the standard one has {STEPS}"
    elif not math.isclose(row["epsilon"], theirs := budgets.get(by[1], math.nan), rel_tol=NEAR):
        yield f"{row['attack']} at epsilon {row['epsilon']:.4g}, the paper's is {theirs:.4g}"
