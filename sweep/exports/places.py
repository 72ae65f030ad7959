"""A local folder that an export fills: whole or not at all, and never over what is not an export's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from attacks.errors import InputError

MADE_BY = {"exported_by": "adversarial-sweep"}
"""In the JSON file that marks a folder as an export."""


@contextmanager
def replacing(where: str | Path, mark: str, own: Callable[[str], bool]) -> Iterator[Path]:
    """An empty folder to fill, which becomes the folder `where` when the block ends well, and else is gone.

    Refused (InputError) before anything is written: a folder that holds other files than a former export's, known by
    its file `mark` and by `own` of each file's relative name; and one that we stand in.
    """
    place = Path(where).expanduser().resolve()
    _expect_free(place, mark, own)
    temporary = place.with_name(f".{place.name}.tmp-{uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _swap(temporary, place)
    except OSError as error:
        raise InputError(f"cannot write the folder {place}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _expect_free(place: Path, mark: str, own: Callable[[str], bool]) -> None:
    if place == Path.cwd() or place in Path.cwd().parents:
        raise InputError(f"expected a folder of its own, got the current one or one around it: {place}")
    if not place.exists():
        return
    if not place.is_dir():
        raise InputError(f"expected a folder, got a file: {place}")
    held = [path.relative_to(place).as_posix() for path in place.rglob("*") if not path.is_dir()]
    foreign = sorted(name for name in held if not own(name))
    if held and (foreign or not _is_marked(place / mark)):
        raise InputError(f"{place} holds what is no export ({(foreign or sorted(held))[0]}): choose another folder")


def _is_marked(mark: Path) -> bool:
    try:
        said = json.loads(mark.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and MADE_BY.items() <= said.items()


def _swap(made: Path, place: Path) -> None:
    """Puts a folder in place; an older one is moved aside first, and deleted last."""
    aside = made.with_name(f"{made.name}-old")
    if place.exists():
        place.rename(aside)
    try:
        made.rename(place)
    except OSError:
        if aside.exists():
            aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)
