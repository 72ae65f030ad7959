"""How important a sweep's hyper-parameters were for what its trials reached, by Optuna's evaluators."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attacks.errors import InputError, unknown
from sweep import alternatives, status
from sweep.alternatives import TPE, Sweep
from sweep.analysis import judged
from sweep.analysis.judged import Compared
from sweep.goals import VALUE
from sweep.search import EVALUATORS, FANOVA, study
from sweep.settings import METHOD
from sweep.store import Store

Rows = list[dict[str, Any]]
Told = Sequence[tuple[Mapping[str, Any], float]]
"""Configurations, and what each reached."""
FEWEST = 4
"""Finished configurations without which nothing is said: two halves of fewer are single trials."""


def importance(store: Store, evaluator: str = FANOVA, target: str = VALUE) -> Rows:
    """One row a searched parameter: method, parameter, importance (0..1), and over how many `trials`.

    Shares of the parameters of a method add to 1, over the finished configurations of that method. In a joint space
    the first row, of no method, is the choice of the method: its share of all parameters of all methods together. The
    importance is None where a method has fewer than FEWEST finished trials, or all of them reached the same. `target`:
    the value, or a column of the table on the validation split (judged.Compared).
    """
    document = status.sound(store)
    if evaluator not in EVALUATORS:
        raise unknown("evaluator", evaluator, EVALUATORS)
    sweep = alternatives.reload(document["spec"]).model_copy(update={"searcher": TPE, "objectives": (VALUE,)})
    joint = len(sweep.alternatives) > 1
    if not joint and not sweep.alternatives[sweep.name({})].search:
        raise InputError(f"{store.sweep_id} searches nothing: no parameter to be important")
    told = _told(store, target)
    _expect_searched(sweep, told, store)
    if len(told) < FEWEST:
        raise InputError(f"expected at least {FEWEST} finished trials to say what is important, got {len(told)}")
    whole = _shares(sweep, told, evaluator)
    if whole is None:
        raise InputError(f"all {len(told)} finished trials of {store.sweep_id} reached the same {target}")
    if not joint:
        return _rows("", whole, len(told))
    choice = _rows("", {METHOD: whole[METHOD]}, len(told))
    return choice + [row for name in sweep.alternatives for row in _within(sweep, name, told, evaluator)]


def _told(store: Store, target: str) -> Told:
    """The finished configurations in the order of their numbers, and what they reached of the target."""
    done = {int(one["number"]): one for one in store.configurations()}
    reached = {number: float(one["value"]) for number, one in done.items()}
    if target != VALUE:
        models = judged.finished(store, "val")
        values = Compared.of(list(models.values()), (target,)).values if models else []
        reached = {number: each[target] for number, each in zip(models, values, strict=True) if target in each}
    return [(json.loads(done[number]["params"]), reached[number]) for number in sorted(reached)]


def _expect_searched(sweep: Sweep, told: Told, store: Store) -> None:
    """Refuses plans that are not of this sweep's space, which Optuna could not take in."""
    for params, _ in told:
        searched = sweep.alternatives[name].search if (name := sweep.name(params)) in sweep.alternatives else {}
        if foreign := sorted(params.keys() - searched.keys() - {METHOD}):
            raise InputError(f"expected trials of what {store.sweep_id} searches, got one with {foreign[0]}")


def _within(sweep: Sweep, name: str, told: Told, evaluator: str) -> Rows:
    """The rows of one method of several."""
    alternative = sweep.alternatives[name]
    own = [
        ({address: v for address, v in params.items() if address != METHOD}, reached)
        for params, reached in told
        if sweep.name(params) == name
    ]
    alone = sweep.model_copy(update={"alternatives": {name: alternative}})
    shares = _shares(alone, own, evaluator) if alternative.search and len(own) >= FEWEST else None
    return _rows(name, shares or dict.fromkeys(alternative.search), len(own))


def _shares(sweep: Sweep, told: Told, evaluator: str) -> dict[str, float] | None:
    """Parameter -> share, the largest first; None where all reached the same."""
    advised = study(sweep)
    for number, (params, reached) in enumerate(told):
        advised.replay(number, params)
        advised.tell(number, "COMPLETE", [reached])
    return advised.importances(evaluator)


def _rows(method: str, shares: Mapping[str, float | None], trials: int) -> Rows:
    return [
        {"method": method, "parameter": name, "importance": share, "trials": trials} for name, share in shares.items()
    ]
