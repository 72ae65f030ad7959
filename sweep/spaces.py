"""The search spaces and data set profiles that ship with the project, and a user's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import attacks
from attacks.errors import InputError, unknown

FOLDER = files("search_spaces")


def names() -> list[str]:
    """The spaces that `run` takes by name."""
    return sorted(p.name.removesuffix(".yaml") for p in FOLDER.iterdir() if p.name.endswith(".yaml"))


def read(space: str) -> str:
    """The text of a space: a name in search_spaces/, or a path to a YAML file."""
    if space.endswith((".yaml", ".yml")):
        try:
            return Path(space).expanduser().read_text(encoding="utf-8")
        except OSError as e:
            raise InputError(f"cannot read the search space {space}: {e.strerror}") from e
        except UnicodeDecodeError as e:
            raise InputError(f"cannot read the search space {space}: it is no UTF-8 text ({e.reason})") from e
    if space not in names():
        raise InputError(f"{unknown('search space', space, names())} (your own: a path that ends in .yaml)")
    return (FOLDER / f"{space}.yaml").read_text(encoding="utf-8")


def profile(dataset: str) -> str:
    """The text of a data set's own defaults; empty where it has none."""
    profiles = {p.name: p for p in (FOLDER / "datasets").iterdir()}
    name = f"{dataset}.yaml"
    return profiles[name].read_text(encoding="utf-8") if name in profiles else ""


def default_attacks() -> list[str]:
    """The attacks of a sweep that names none: the three lp norms and every semantic and perceptual one."""
    others = [row["name"] for row in attacks.describe() if row["family"] != "lp"]
    return ["linf", "l2", "l1", *others]
