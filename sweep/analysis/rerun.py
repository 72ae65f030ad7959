"""The command that does a trial again: a search space that is shipped, and every setting in which the trial differs
from what that space makes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from attacks.errors import InputError
from sweep import alternatives, layers, spaces, status
from sweep.alternatives import Alternative
from sweep.analysis.reference import Reference
from sweep.settings import METHOD, SEARCH, Document, assignment, flatten, nest, read_yaml
from sweep.spec import FRESH, TrialBase

INIT = "init"
FIRST = (METHOD, "dataset", "attacks", "train_attacks")
"""What decides which other settings there are, and what they are where nobody states them."""


def command(found: Reference) -> str:
    """`python -m sweep run ...`"""
    return status.command("run", found.store, shlex.join(arguments(found)))


def arguments(found: Reference) -> list[str]:
    """What `run` is to be told to do the trial's runs again, each with the key that it had; InputError where this
    version of the project makes no such trial any more."""
    wanted = alternatives.reload(found.store.document()["spec"]).configure(found.params)
    for space in _spaces(wanted):
        if (stated := _stated(space, wanted)) is not None:
            seeds = ",".join(str(row["seed"]) for row in found.own)
            controls = ["--controls"] if len(found.own) < len(found.runs) else []
            sets = [word for address, value in stated.items() for word in ("--set", f"{address}={_yaml(value)}")]
            return [space, "--trials", "1", "--seeds", seeds, *controls, *sets]
    raise InputError(f"no search space of this version makes {found.name} again")


def _spaces(wanted: TrialBase) -> Iterator[str]:
    """The shipped ones of a single method: its own, then the others."""
    single = [name for name in spaces.names() if METHOD in read_yaml(spaces.read(name), name)]
    own = [name for name in (wanted.method, wanted.method.partition("+")[0]) if name in single]
    yield from dict.fromkeys([*own, *single])


def _stated(space: str, wanted: TrialBase) -> Document | None:
    """The settings with which the space makes the trial, and nothing else; None where it cannot."""
    document = wanted.model_dump(mode="json")
    settings = {address: value for address, value in flatten(document) if address != "seed"}
    searched = read_yaml(spaces.read(space), space).get(SEARCH, {})
    if not set(searched) <= set(settings):
        return None
    fixed = {address: settings[address] for address in (*FIRST, *searched)}
    base = _made(space, fixed)
    usual = dict(flatten(base.trial.model_dump(mode="json"))) if base else {}
    nothing = object()
    stated = fixed | {address: v for address, v in settings.items() if usual.get(address, nothing) != v}
    if not _makes(space, stated, document):
        return None
    for address in FIRST:
        if _makes(space, rest := {a: v for a, v in stated.items() if a != address}, document):
            stated = rest
    return {INIT: wanted.init} | stated


def _makes(space: str, stated: Document, document: Document) -> bool:
    """Whether the space makes this trial of these settings, but for the starting model and the seed."""
    made = _made(space, stated)
    apart = {INIT: None, "seed": None}
    return made is not None and not made.search and made.trial.model_dump(mode="json") | apart == document | apart


def _made(space: str, stated: Document) -> Alternative | None:
    """The one alternative of the space with these settings; None where they make none. No starting model is read."""
    try:
        sweep = layers.resolve(space, nest(stated | {INIT: FRESH}))
    except InputError:
        return None
    return next(iter(sweep.alternatives.values()))


def _yaml(value: Any) -> str:
    """As `--set` reads it."""
    if isinstance(value, str) and value.strip() and assignment(f"a={value}")[1] == value:
        return value
    return json.dumps(value)
