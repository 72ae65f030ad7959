"""The search spaces and data set profiles that ship with the project, and a user's own."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import attacks
from attacks.errors import InputError, unknown

FOLDER = files("search_spaces")


PAPERS = "papers"
"""The folder of the grids behind the papers' tables; part of their names."""


def names() -> list[str]:
    """The spaces that `run` takes by name."""
    return [*_named(FOLDER), *(f"{PAPERS}/{name}" for name in _named(FOLDER / PAPERS))]


def _named(folder: Traversable) -> list[str]:
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def read(space: str) -> str:
    """The text of a space: a name in search_spaces/, or a path to a YAML file."""
    return _text(space, "search space", names(), FOLDER)


def profile(name: str) -> str:
    """The text of a profile, what a sweep of any space is to have instead: a name in search_spaces/profiles/, or a path
    to a YAML file."""
    folder = FOLDER / "profiles"
    return _text(name, "profile", _named(folder), folder)


def _text(name: str, what: str, known: list[str], folder: Traversable) -> str:
    if name.endswith((".yaml", ".yml")):
        try:
            return Path(name).expanduser().read_text(encoding="utf-8")
        except OSError as e:
            raise InputError(f"cannot read the {what} {name}: {e.strerror}") from e
        except UnicodeDecodeError as e:
            raise InputError(f"cannot read the {what} {name}: it is no UTF-8 text ({e.reason})") from e
    if name not in known:
        raise InputError(f"{unknown(what, name, known)} (your own: a path that ends in .yaml)")
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


def of_dataset(dataset: str) -> str:
    """The text of a data set's own defaults; empty where it has none."""
    folder = FOLDER / "datasets"
    return _text(dataset, "data set", [dataset], folder) if dataset in _named(folder) else ""


def default_attacks() -> list[str]:
    """The attacks of a sweep that names none: the three lp norms and every semantic and perceptual one."""
    others = [row["name"] for row in attacks.describe() if row["family"] != "lp"]
    return ["linf", "l2", "l1", *others]
