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
            return Path(space).read_text()
        except (OSError, UnicodeDecodeError) as e:
            raise InputError(f"cannot read the search space {space}: {e}") from e
    if space not in names():
        raise unknown("search space", space, names())
    return (FOLDER / f"{space}.yaml").read_text()


def profile(dataset: str) -> str:
    """The text of a data set's own defaults; empty where it has none."""
    path = FOLDER / "datasets" / f"{dataset}.yaml"
    return path.read_text() if path.is_file() else ""


def default_attacks() -> list[str]:
    """The attacks of a sweep that names none: the three lp norms and every semantic and perceptual one."""
    others = [row["name"] for row in attacks.describe() if row["family"] != "lp"]
    return ["linf", "l2", "l1", *others]
