"""A sweep from what was said of it, layer over layer: catalogue, data set profile, search space, command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attacks.errors import InputError
from sweep import spaces
from sweep.settings import SEARCH, Document, flatten, merge, nest, read_yaml
from sweep.spec import FRESH, PRETRAINED, SWEEP_KEYS, Sweep, fault_of, load_sweep
from trainers import methods
from trainers.models import io
from trainers.parts import PARTS


def resolve(space: str, overrides: Mapping[str, Any]) -> Sweep:
    """The sweep of a search space (a name in search_spaces/ or a YAML file) under overrides (a nested document).

    Each layer overrides the one before: the methods' own defaults, what the method's paper states, the profile of the
    data set, the space's file, `overrides`. An address that `overrides` sets is not searched. Every fault is reported,
    in one InputError.
    """
    said = _fix(merge(read_yaml(spaces.read(space), space), overrides), overrides)
    found: list[str] = []
    entry = _entry(said, found)
    profile = read_yaml(spaces.profile(str(said.get("dataset", "digits-photo"))), "data set profile")
    below: Document = {"attacks": spaces.default_attacks()}
    below |= {"train_attacks": list(entry.train)} if entry.train else {}
    document = merge(merge(merge(below, nest(entry.settings)), profile), said)
    parts = tuple((kind, _part_name(document, kind, name, found)) for kind, name in entry.parts().items())
    found += fault_of(lambda: _expect_file(document.get("init")), "init")
    own = {key: document.pop(key) for key in SWEEP_KEYS if key in document}
    return load_sweep({**own, "space": space, "trial": document}, parts, space, found)


def _fix(said: Document, overrides: Mapping[str, Any]) -> Document:
    """Drops from the search what the overrides set."""
    if not isinstance(searched := said.get(SEARCH), Mapping):
        return said
    fixed = {address for address, _ in flatten(overrides)}
    return said | {SEARCH: {address: d for address, d in searched.items() if address not in fixed}}


def _entry(said: Document, found: list[str]) -> methods.Entry:
    """The catalogue's entry of the method; where there is none, some other one, and no part is judged by it."""
    name = said.get("method")
    try:
        if name is None:
            raise InputError(f"expected a method, got none: known: {', '.join(sorted(methods.CATALOGUE))}")
        return methods.entry(str(name))
    except InputError as e:
        found.append(f"method: {e}")
        said["method"] = "cas"
        for kind in PARTS:
            _forget(said, kind)
        return methods.entry("cas")


def _part_name(document: Document, kind: str, default: str, found: list[str]) -> str:
    """The name of the part of this kind; where none is called that, the default, and its settings are dropped."""
    section = document.get(kind)
    name = str(section["name"]) if isinstance(section, Mapping) and "name" in section else default
    if fault := fault_of(lambda: PARTS[kind].get(name), f"{kind}.name"):
        found += fault
        _forget(document, kind)
        return default
    return name


def _forget(document: Document, kind: str) -> None:
    """Drops a section, and the search in it, that cannot be judged since its name is unknown."""
    document.pop(kind, None)
    if isinstance(searched := document.get(SEARCH), Mapping):
        document[SEARCH] = {a: d for a, d in searched.items() if not str(a).startswith(f"{kind}.")}


def _expect_file(init: Any) -> None:
    """Reads a starting model that is a file; a sweep that has begun keeps its own copy and is not asked again."""
    if isinstance(init, str) and init != FRESH and not init.startswith(f"{PRETRAINED}:"):
        io.load(init)
