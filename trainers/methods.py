"""The catalogue: the papers' methods as data. A method is five parts; `+none`, `+ema`, `+mde` after a name swap its
averaging."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from attacks.errors import InputError, unknown
from trainers.parts import PARTS, Method, averagings

Address = str
"""Where a hyper-parameter lives, `sampler.w1`: the same in YAML, on the command line, in Parquet and in errors."""


@dataclass(frozen=True)
class Entry:
    """The names of the five parts, the settings (address -> value) that the paper states, and where it states them.
    `train` names the attacks that it trains on, None for all of the trial's."""

    sampler: str
    inner: str = "single"
    objective: str = "ce"
    weighting: str = "none"
    averaging: str = "none"
    train: tuple[str, ...] | None = None
    settings: Mapping[Address, Any] = field(default_factory=dict)
    source: str = ""

    def parts(self) -> dict[str, str]:
        return {kind: getattr(self, kind) for kind in PARTS}


_FINE_TUNING = {
    "optimizer.epochs": 20,
    "optimizer.lr": 0.1,
    "optimizer.batch_size": 128,
    "optimizer.weight_decay": 5e-4,
    "optimizer.schedule": "piecewise-ft",
}

CATALOGUE: dict[str, Entry] = {
    "cas": Entry(
        "cas",
        averaging="mde",
        settings=_FINE_TUNING | {"importance": "balanced"},
        source="cas-three-phase, Alg. 1, Tables 1 and 5 (CAS+MDE); the schedule is our reading",
    ),
    "sat": Entry(
        "sat",
        settings=_FINE_TUNING | {"importance": "balanced"},
        source="Madaan et al. 2021, as cas-bandit Sec. 5 describes it; the weights of CAS (SPEC G.5)",
    ),
    "e-at": Entry(
        "e-at",
        train=("linf", "l1"),
        settings=_FINE_TUNING | {"importance": "none"},
        source="Croce and Hein 2022; robust-finetuning@0201a49; epochs and lr of cas-three-phase Sec. 5.1",
    ),
    "e-at-all": Entry(
        "e-at",
        settings=_FINE_TUNING | {"importance": "none"},
        source="cas-three-phase, Sec. 5.1: E-AT over every attack",
    ),
}


def entry(name: str) -> Entry:
    """The catalogue's entry; `cas+ema` is that of `cas` with the averaging `ema`."""
    base, *modifiers = name.split("+")
    if base not in CATALOGUE:
        raise unknown("method", base, CATALOGUE)
    if len(modifiers) > 1:
        raise InputError(f"expected at most one modifier, got {name!r}: an averaging replaces another")
    found = CATALOGUE[base]
    if not modifiers:
        return found
    averagings.get(modifiers[0])
    return replace(found, averaging=modifiers[0])


def compose(parts: Mapping[str, Mapping[str, Any]]) -> Method:
    """The method whose part of each kind is `parts[kind]["name"]` with the other entries as its hyper-parameters."""
    return Method(**{kind: _part(kind, dict(parts[kind])) for kind in PARTS})


def _part(kind: str, settings: dict[str, Any]) -> Any:
    name = settings.pop("name")
    made = PARTS[kind].get(name)
    known = [field.name for field in fields(made)]
    for address in settings.keys() - set(known):
        raise unknown(f"hyper-parameter of {kind} {name}", address, known)
    return made(**settings)


IMPORTANCE = ("balanced", "as_published", "none")


def importance(reading: str | Mapping[str, float], families: Mapping[str, str]) -> dict[str, float]:
    """The importance weight of each attack (name -> family), 1 for all but the lp ones. With m attacks, m_p of them lp,
    "balanced" gives those (m - m_p) / m_p, so that both groups weigh the same, as the text and Table 10 of
    cas-three-phase mean and cas-bandit states; "as_published" gives (m - m_p) / m (Eq. 6), which lowers them; "none" 1.
    Where all are lp, or none is, all weigh 1. A mapping gives each attack that it names its weight."""
    if not isinstance(reading, str):
        return _given(reading, families)
    if reading not in IMPORTANCE:
        raise unknown("importance", reading, IMPORTANCE)
    m, m_p = len(families), sum(family == "lp" for family in families.values())
    if reading == "none" or m_p in (0, m):
        return dict.fromkeys(families, 1.0)
    factor = (m - m_p) / (m_p if reading == "balanced" else m)
    return {name: factor if family == "lp" else 1.0 for name, family in families.items()}


def _given(weights: Mapping[str, float], families: Mapping[str, str]) -> dict[str, float]:
    for name, weight in weights.items():
        if name not in families:
            raise unknown("attack with an importance weight", name, families)
        if not 0 <= weight < math.inf:
            raise InputError(f"expected an importance weight >= 0 of {name}, got {weight}")
    found = {name: float(weights.get(name, 1.0)) for name in families}
    if not any(found.values()):
        raise InputError("expected an importance weight > 0 of at least one attack, got 0 for all")
    return found
