"""A sweep from what was said of it, layer over layer: catalogue, data set profile, search space, profile, command
line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attacks.errors import InputError
from sweep import spaces
from sweep.alternatives import SWEEP_KEYS, Sweep, load_sweep, told_once
from sweep.settings import METHOD, METHODS, SEARCH, Document, distinct, flatten, merge, nest, read_yaml
from sweep.spec import Parts, fault_of, is_made_here, read_start
from trainers import methods
from trainers.parts import PARTS

SPACE = "space"


def resolve(space: str, overrides: Mapping[str, Any], profile: str | None = None) -> Sweep:
    """The sweep of a search space (a name in search_spaces/ or a YAML file) under overrides (a nested document).

    Each layer overrides the one before: the methods' own defaults, what the method's paper states, the profile of the
    data set, the space's file, `profile` (a name in search_spaces/profiles/ or a YAML file), `overrides`. An address
    that one of the last two sets is not searched. Every fault is reported, in one InputError.
    """
    said = read_yaml(spaces.read(space), space)
    above = merge(read_yaml(spaces.profile(profile), profile), overrides) if profile else dict(overrides)
    if METHODS not in said:
        alternatives = {"": said}
    elif METHOD in (whole := merge(said, above)):
        raise InputError(f"{space}: expected no {METHOD} beside {METHODS}, got {whole[METHOD]!r}")
    else:
        alternatives = _alternatives(said.pop(METHODS), said, space)
    faults: dict[str, list[str]] = {name: [] for name in alternatives}
    documents = {}
    for name, stated in alternatives.items():
        document, parts = _resolved(_fix(merge(stated, above), above), faults[name])
        trial = {key: value for key, value in document.items() if key not in SWEEP_KEYS}
        documents[name or str(document[METHOD])] = (parts, trial)
    found = told_once(faults)
    found += fault_of(lambda: _expect_start(trial), "init")
    own = {key: value for key, value in merge(said, above).items() if key in SWEEP_KEYS}
    return load_sweep(own | {SPACE: space}, documents, space, found)


def _alternatives(given: Any, shared: Document, space: str) -> dict[str, Document]:
    """The documents of a joint space's alternatives, by name: what each says over what the space says for all. One that
    names a `space` begins with that; one that names no method is called as it. A list is one of spaces."""
    if isinstance(given, list):
        if fault := fault_of(lambda: distinct(tuple(map(str, given))), f"{space}: {METHODS}"):
            raise InputError(fault[0])
        given = {str(name): {SPACE: str(name)} for name in given}
    if not isinstance(given, Mapping) or not given or not all(isinstance(v or {}, Mapping) for v in given.values()):
        raise InputError(f"{space}: expected {METHODS} to name spaces, or settings by name, got {given!r}")
    found = {}
    for name, settings in given.items():
        own = nest(settings or {}, f"{space}: {name}")
        if whole := sorted(own.keys() & set(SWEEP_KEYS)):
            raise InputError(f"{space}: expected {whole[0]} beside {METHODS}, for all of them, got it under {name}")
        base = own.pop(SPACE, None)
        begun = read_yaml(spaces.read(str(base)), str(base)) if base is not None else {METHOD: str(name)}
        if METHODS in begun:
            raise InputError(f"{space}: expected a space of one method for {name}, got {base}, a joint one")
        found[str(name)] = merge(merge(begun, shared), own)
    return found


def _resolved(said: Document, found: list[str]) -> tuple[Document, Parts]:
    """The trial's document, with what is searched, from all its layers, and the names of its five parts."""
    entry = _entry(said, found)
    profile = read_yaml(spaces.of_dataset(str(said.get("dataset", "digits-photo"))), "data set profile")
    below: Document = {"attacks": spaces.default_attacks()}
    below |= {"train_attacks": list(entry.train)} if entry.train else {}
    document = merge(merge(merge(below, nest(entry.settings)), profile), said)
    return document, tuple((kind, _part_name(document, kind, name, found)) for kind, name in entry.parts().items())


def _fix(said: Document, overrides: Mapping[str, Any]) -> Document:
    """Drops from the search what the overrides set."""
    if not isinstance(searched := said.get(SEARCH), Mapping):
        return said
    fixed = {address for address, _ in flatten(overrides)}
    return said | {SEARCH: {address: d for address, d in searched.items() if address not in fixed}}


def _entry(said: Document, found: list[str]) -> methods.Entry:
    """The catalogue's entry of the method; where there is none, some other one, and no part is judged by it."""
    name = said.get(METHOD)
    try:
        if name is None:
            raise InputError(f"expected a method, got none: known: {', '.join(sorted(methods.CATALOGUE))}")
        return methods.entry(str(name))
    except InputError as e:
        found.append(f"method: {e}")
        said[METHOD] = "cas"
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


def _expect_start(trial: Document) -> None:
    """Reads a starting model that is given; a sweep that has begun keeps its own copy and is not asked again."""
    if isinstance(init := trial.get("init"), str) and not is_made_here(init):
        read_start(init, str(trial.get("dataset")))
