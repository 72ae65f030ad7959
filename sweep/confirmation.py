"""The final stage of a sweep: its best configurations are run with further seeds, which decide nothing."""

from __future__ import annotations

import json
from typing import Any

from sweep.alternatives import Sweep
from sweep.store import Store


def owed(sweep: Sweep, store: Store) -> list[tuple[int, dict[str, Any], list[int]]]:
    """Number, values and seeds of the runs that a search that is over has still to plan; controls come by themselves.

    The best are those of the search, as they stand: more trials may add to them later.
    """
    if not sweep.confirm:
        return []
    planned = {plan["number"]: {run["seed"] for run in plan["runs"]} for plan in store.plans()}
    best = store.configurations()[: sweep.confirm]
    left = [(one, [seed for seed in sweep.unseen() if seed not in planned[one["number"]]]) for one in best]
    return [(one["number"], json.loads(one["params"]), seeds) for one, seeds in left if seeds]
