"""The final stage of a sweep: its best configurations are run with further seeds, which decide nothing."""

from __future__ import annotations

import json
from typing import Any

from sweep.alternatives import Sweep
from sweep.store import Store


def chosen(sweep: Sweep, store: Store) -> list[dict[str, Any]]:
    """The configurations that the search puts first, as it stands, and that the final stage is for; equal ones once."""
    works: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in store.configurations() if sweep.confirm else ():
        works.setdefault(tuple(sorted(run["key"] for run in one["runs"] if not run["confirm"])), one)
    return list(works.values())[: sweep.confirm]


def owed(sweep: Sweep, store: Store) -> list[tuple[int, dict[str, Any], list[int]]]:
    """Number, values and seeds of the runs that a search that is over has still to plan; controls come by themselves.
    More trials may add to them later."""
    if not sweep.confirm:
        return []
    planned = {plan["number"]: {run["seed"] for run in plan["runs"]} for plan in store.plans()}
    wanted = [(one["number"], one["params"], planned[one["number"]]) for one in chosen(sweep, store)]
    left = [(number, json.loads(params), sweep.unseen(held)) for number, params, held in wanted]
    return [(number, params, seeds) for number, params, seeds in left if seeds]
