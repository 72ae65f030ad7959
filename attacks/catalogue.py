"""Attacks by name, with their budgets from budgets/<dataset>.yaml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files
from typing import Any

import yaml

from attacks.base import ATTACKS, Attack
from attacks.errors import InputError, unknown

PUBLISHED = ("low", "medium", "high")
CALIBRATED = "calibrated"
LEVELS = (*PUBLISHED, CALIBRATED)
"""The budgets that have a name. CALIBRATED holds for one data set: Eq. 11 of the CAS papers, see its file."""


def names() -> list[str]:
    return ATTACKS.names()


def datasets() -> list[str]:
    """The data sets that have budgets."""
    found = (entry.name for entry in files("attacks").joinpath("budgets").iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def get(
    name: str, dataset: str = "cifar10", epsilon: float | str | None = None, budget: Mapping[str, Any] | None = None
) -> Attack:
    """The attack with the budget, steps and step size that evaluation on `dataset` uses.

    epsilon: another budget: a number, "8/255", or one of the data set's levels low | medium | high | calibrated. The
    first three keep the step size, as published; others scale it, so that the steps reach equally far.
    budget: what differs from the data set's row, such as a calibrated epsilon and step_size.
    """
    made = ATTACKS.get(name)
    row = _budget(name, dataset) | dict(budget or {})
    known = {field.name for field in fields(made)}
    for key in set(budget or {}) - known - {*LEVELS, "source"}:
        raise unknown(f"key of a budget of {name}", key, [*known, *LEVELS, "source"])
    settings = {key: value for key, value in row.items() if key in known}
    own = _epsilon(row["epsilon"], row, name)
    settings["epsilon"] = own if epsilon is None else _epsilon(epsilon, row, name)
    if "step_size" in settings and epsilon is not None and epsilon not in PUBLISHED:
        settings["step_size"] *= abs(settings["epsilon"] / own)
    return made(**settings)


def describe(dataset: str = "cifar10") -> list[dict[str, Any]]:
    """A row for each attack: name, family, epsilon, num_steps, step_size (None for adaptive ones), source."""
    rows = []
    for name in names():
        attack = get(name, dataset)
        row = {key: getattr(attack, key, None) for key in ("name", "family", "epsilon", "num_steps", "step_size")}
        rows.append(row | {"source": _budget(name, dataset)["source"]})
    return rows


def _budget(name: str, dataset: str) -> dict[str, Any]:
    rows = _budgets(dataset)
    if name not in rows:
        raise InputError(f"expected a budget of attack {name!r} in attacks/budgets/{dataset}.yaml, found none: add one")
    return rows[name]


@functools.cache
def _budgets(dataset: str) -> dict[str, dict[str, Any]]:
    """Attack -> its row: those of `same_as`, then the file's own."""
    if dataset not in datasets():
        raise unknown("data set", dataset, datasets())
    document = yaml.safe_load(files("attacks").joinpath("budgets", f"{dataset}.yaml").read_text(encoding="utf-8"))
    inherited = _budgets(document["same_as"]) if "same_as" in document else {}
    inherited = {name: {k: v for k, v in row.items() if k != CALIBRATED} for name, row in inherited.items()}
    note = document.get("note")
    marked = {name: row | {"source": note} for name, row in inherited.items()} if note else inherited
    own: dict[str, dict[str, Any]] = document.get("attacks", {})
    return marked | own


def _epsilon(given: float | str, row: dict[str, Any], name: str) -> float:
    """A number from a number, a fraction or a level's name."""
    if isinstance(given, str) and given in LEVELS:
        if given not in row:
            raise InputError(f"expected a {given} budget, got none for this data set: see `calibrate` (attacks.{name})")
        return _epsilon(row[given], row, name)
    try:
        if isinstance(given, str):
            over, _, under = given.partition("/")
            return float(over) / float(under or 1)
        if isinstance(given, int | float) and not isinstance(given, bool):
            return float(given)
    except (ValueError, ZeroDivisionError):
        pass
    wanted = "a number, a fraction such as 8/255, or low, medium or high"
    raise InputError(f"expected epsilon to be {wanted}, got {given!r} (attacks.{name})")
