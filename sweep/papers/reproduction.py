"""What `reproduce` does for a table: the sweeps behind it, each with an id of its own, and how they are judged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attacks.errors import InputError
from sweep.papers import layouts
from sweep.papers.layouts import Layout, Paper, Run
from sweep.spec import digest

SMOKE, PAPER = "smoke", "paper"
SMOKE_DATASET = "digits"
_JUDGED = "evaluation"


@dataclass(frozen=True)
class Step:
    """One sweep: its space, what is set over it, and its id."""

    space: str
    settings: Mapping[str, Any]
    sweep_id: str

    @property
    def assignments(self) -> list[str]:
        """As --set takes them."""
        return [f"{address}={json.dumps(value)}" for address, value in self.settings.items()]

    @property
    def evaluation_id(self) -> str:
        return f"{self.sweep_id}-{_JUDGED}"

    def evaluations(self, chosen: Layout) -> list[str]:
        """The ids of what judges its models: one, or one for each scale of the budgets."""
        return [f"{self.evaluation_id}-x{scale:g}" for scale in chosen.scales] or [self.evaluation_id]


def steps(paper: str, table: str, dataset: str | None, wish: Mapping[str, Any], given: str | None) -> list[Step]:
    """The sweeps behind a table. On a data set that is none of the table's they stand in for its first part.

    `wish`: what else decides the work, for the ids that are made where none is `given`: the same wish has the same ids,
    so that the same command goes on.
    """
    chosen = layouts.layout(paper, table)
    if not chosen.runs:
        raise InputError(f"expected a table that a space fills, got {table} of {paper}: {chosen.note}")
    made = [
        (run.space, _settings(run, dataset)) for run in _chosen(layouts.paper(paper), chosen, paper, table, dataset)
    ]
    work = [(space, settings) for k, (space, settings) in enumerate(made) if (space, settings) not in made[:k]]
    name = given or f"{paper}-{layouts.key(table)}-{digest({'work': work, **wish})[:8]}"
    ids = [name, *(f"{name}-{k}" for k in range(2, len(work) + 1))]
    return [Step(space, settings, one) for (space, settings), one in zip(work, ids, strict=True)]


def _chosen(about: Paper, chosen: Layout, paper: str, table: str, dataset: str | None) -> Sequence[Run]:
    first = next((number.dataset for number in layouts.printed(paper, table)), "")
    fills = [(run, run.fills or first) for run in chosen.runs]
    if dataset is None:
        return chosen.runs
    own = [run for run, name in fills if dataset in about.datasets.get(name, ())]
    return own or [run for run, name in fills if name == fills[0][1]]


def _settings(run: Run, dataset: str | None) -> dict[str, Any]:
    return dict(run.set) if dataset is None else {**run.set, "dataset": dataset}


def evaluated(numbers: Sequence[int], sweep_id: str) -> list[str]:
    """The models of a sweep, as `evaluate` takes them."""
    return [f"{sweep_id}/{which}" for which in ("pretrained", *numbers)]
