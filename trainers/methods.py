"""The catalogue: the papers' methods as data. A method is five parts; `+none`, `+ema`, `+mde`, `+ramp` after a name
swap its averaging, `+ab-l1` and `+ab-l2` put its inner under AdaptiveBudget."""

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

_TEN_EPOCHS = _FINE_TUNING | {"optimizer.epochs": 10}
_RAMP = _FINE_TUNING | {"optimizer.epochs": 3, "optimizer.lr": 0.05, "importance": "none"}
_UNIONS = _FINE_TUNING | {"optimizer.epochs": 50, "optimizer.schedule": "robust-union", "importance": "none"}
_VIR = {
    "optimizer.epochs": 115,
    "optimizer.lr": 0.01,
    "optimizer.batch_size": 128,
    "optimizer.weight_decay": 3.5e-3,
    "optimizer.schedule": "multi-step-vir",
    "importance": "none",
}
_LP_PGD = ("pgd-linf", "pgd-l2", "pgd-l1")
_PGD = ("pgd-linf",)
_OURS = "the rate, weight decay and batch size are cas-bandit's"

CATALOGUE: dict[str, Entry] = {
    "cas": Entry(
        "cas",
        averaging="mde",
        settings=_FINE_TUNING | {"importance": "balanced"},
        source="cas-three-phase, Alg. 1, Tables 1 and 5 (CAS+MDE); the schedule is our reading",
    ),
    "cas-bandit": Entry(
        "cas-bandit",
        objective="hybrid",
        settings=_TEN_EPOCHS | {"importance": "balanced"},
        source="cas-bandit, Alg. 1, Sec. 5.1; the schedule, the window and the rewards' weights are our readings",
    ),
    "sat": Entry(
        "sat",
        settings=_FINE_TUNING | {"importance": "balanced"},
        source="Madaan et al. 2021, as cas-bandit Sec. 5 describes it; the weights of CAS (SPEC G.5)",
    ),
    "order": Entry(
        "order",
        settings=_TEN_EPOCHS | {"importance": "balanced"},
        source="cas-bandit, Sec. 5.1: a fixed cycle by the attacks' weights; the schedule is our reading",
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
    "avg": Entry(
        "every",
        "each",
        settings=_TEN_EPOCHS | {"importance": "none"},
        source=f"Tramer and Boneh 2019, over every attack as in cas-bandit, Table 2; {_OURS}",
    ),
    "max": Entry(
        "every",
        "max",
        settings=_TEN_EPOCHS | {"importance": "none"},
        source=f"Tramer and Boneh 2019, over every attack; {_OURS}",
    ),
    "msd": Entry(
        "every",
        "msd",
        train=_LP_PGD,
        settings=_TEN_EPOCHS | {"importance": "none"},
        source=f"Maini et al. 2020; robust_union@ef34194; {_OURS}",
    ),
    "avg-scratch": Entry(
        "every",
        "each",
        train=_LP_PGD,
        settings=_UNIONS,
        source="adaptive-budget, Sec. 5 (CIFAR-10); start it with --init none",
    ),
    "max-scratch": Entry(
        "every",
        "max",
        train=_LP_PGD,
        settings=_UNIONS,
        source="adaptive-budget, Sec. 5 (CIFAR-10); start it with --init none",
    ),
    "msd-scratch": Entry(
        "every",
        "msd",
        train=_LP_PGD,
        settings=_UNIONS,
        source="adaptive-budget, Sec. 5 (CIFAR-10); start it with --init none",
    ),
    "ramp": Entry(
        "every",
        "each",
        "ramp",
        train=("linf", "l1"),
        settings=_RAMP,
        source="Jiang and Singh 2024; RAMP@be4971f, its fine-tuning scripts, without the projection (+ramp)",
    ),
    "natural": Entry(
        "sat",
        "natural",
        train=_PGD,
        settings=_VIR,
        source="standard training; the recipe is vir's, Sec. 5.1",
    ),
    "at": Entry("sat", train=_PGD, settings=_VIR, source="Madry et al. 2018; the recipe of vir, Sec. 5.1"),
    "trades": Entry(
        "sat",
        objective="trades",
        train=_PGD,
        settings=_VIR | {"objective.beta": 4.0},
        source="Zhang et al. 2019; vir, Sec. 5.1 and 5.3 (ResNet-18; 6 for WideResNet-34-10)",
    ),
    "mart": Entry(
        "sat",
        objective="mart",
        train=_PGD,
        settings=_VIR | {"objective.beta": 5.0},
        source="Wang et al. 2020; vir, Sec. 5.1 and 5.3",
    ),
    "gairat": Entry(
        "sat",
        weighting="gairat",
        train=_PGD,
        settings=_VIR,
        source="Zhang et al. 2021; vir, Eq. 2, Sec. 5.1",
    ),
    "mail-at": Entry(
        "sat",
        weighting="mail",
        train=_PGD,
        settings=_VIR,
        source="Liu et al. 2021; MAIL@8367c64 (gamma, beta); vir, Sec. 5.1",
    ),
    "mail-trades": Entry(
        "sat",
        objective="trades",
        weighting="mail",
        train=_PGD,
        settings=_VIR | {"objective.beta": 5.0, "weighting.gamma": 2.0, "weighting.beta": 0.0},
        source="Liu et al. 2021; MAIL@8367c64 (gamma, beta); vir, Sec. 5.1",
    ),
    "vir-at": Entry("sat", weighting="vir", train=_PGD, settings=_VIR, source="vir, Alg. 1, Sec. 5.1 and 5.3"),
    "vir-trades": Entry(
        "sat",
        objective="trades",
        weighting="vir",
        train=_PGD,
        settings=_VIR | {"objective.beta": 5.0, "weighting.alpha": 8.0, "weighting.gamma": 3.0, "weighting.beta": 1.6},
        source="vir, Eq. 10, Sec. 5.1 and 5.3",
    ),
}

ADAPTIVE = {"ab-l1": "l1", "ab-l2": "l2"}
"""Modifiers that put an inner under AdaptiveBudget: the norm of the gradient that moves the budgets."""


def entry(name: str) -> Entry:
    """The catalogue's entry; `cas+ema` is that of `cas` with the averaging `ema`, `max+ab-l2` that of `max` under
    AdaptiveBudget. InputError for what makes no sense."""
    base, *modifiers = name.split("+")
    if base not in CATALOGUE:
        raise unknown("method", base, CATALOGUE)
    adaptive = [modifier for modifier in modifiers if modifier in ADAPTIVE]
    averaged = [modifier for modifier in modifiers if modifier not in ADAPTIVE]
    for chosen, why in ((averaged, "an averaging replaces another"), (adaptive, "budgets adapt by one norm")):
        if len(chosen) > 1:
            raise InputError(f"expected at most one of {' and '.join(chosen)}, got {name!r}: {why}")
    found = CATALOGUE[base]
    for modifier in averaged:
        found = replace(found, averaging=_averaging(modifier))
    for modifier in adaptive:
        if not _adapts(found.inner):
            raise InputError(
                f"expected several attacks on a batch under {modifier}, got {name!r}: its inner, {found.inner}, runs "
                f"one or none"
            )
        found = replace(found, settings={**found.settings, "inner.adaptive": ADAPTIVE[modifier]})
    return found


def _averaging(name: str) -> str:
    try:
        averagings.get(name)
    except InputError:
        raise unknown("averaging", name, [*averagings.names(), *ADAPTIVE]) from None
    return name


def _adapts(inner: str) -> bool:
    return "adaptive" in {field.name for field in fields(PARTS["inner"].get(inner))}


def compose(parts: Mapping[str, Mapping[str, Any]]) -> Method:
    """The method whose part of each kind is `parts[kind]["name"]` with the other entries as its hyper-parameters.
    InputError where they do not go together, with the reason."""
    made = Method(**{kind: _part(kind, dict(parts[kind])) for kind in PARTS})
    expect_sense({kind: str(parts[kind]["name"]) for kind in PARTS})
    return made


TOGETHER = ("max", "msd")
"""Inners that make one training batch of several attacks."""


def expect_sense(names: Mapping[str, str]) -> None:
    """Refuses parts, kind -> name, that do not go together."""
    sampler, inner, objective = names["sampler"], names["inner"], names["objective"]
    if inner == "single" and sampler == "every":
        raise InputError("expected one attack a batch with inner single, got sampler every: use each, max or msd")
    if inner in TOGETHER and sampler != "every":
        raise InputError(f"expected sampler every with inner {inner}, got {sampler}, which chooses one attack a batch")
    if objective == "ramp" and (inner, sampler) != ("each", "every"):
        raise InputError(f"expected sampler every and inner each with objective ramp, got {sampler} and {inner}")
    if inner == "natural" and objective != "ce":
        raise InputError(f"expected objective ce with inner natural, which attacks nothing, got {objective}")


def expect_attacks(names: Mapping[str, str], families: Mapping[str, str]) -> None:
    """Refuses attacks to train on, name -> family, that the parts, kind -> name, have no use for."""
    others = [name for name, family in families.items() if family != "lp"]
    if names["inner"] == "msd" and others:
        raise InputError(
            f"expected lp attacks under inner msd, whose steps share one gradient, got {', '.join(others)}"
        )
    if names["objective"] == "ramp" and len(families) != 2:
        got = ", ".join(families)
        raise InputError(f"expected two attacks to train on under objective ramp, source and target, got {got}")


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
