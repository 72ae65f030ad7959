"""Where a sweep, or one of its models, can be taken to: one target a file, found by a folder scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from attacks.errors import InputError, unknown
from attacks.registry import Registry
from sweep.status import sound
from sweep.store import Store

FOLDER = "folder"
"""The target of a place without a name before it."""


@dataclass(frozen=True)
class Asked:
    """A sweep; with `which` (a number, best or pretrained) one of its models, with `seed` that of one seed."""

    store: Store
    which: str | None = None
    seed: int | None = None

    def whole(self, target: str) -> Store:
        """The sweep, for a target that takes nothing less."""
        if self.which is not None or self.seed is not None:
            raise InputError(
                f"{target} takes a whole sweep: expected {self.store.sweep_id} alone, no trial and no --seed"
            )
        sound(self.store)
        return self.store


@dataclass(frozen=True)
class Made:
    """What an export left, and the command, or the line, that says how to go on."""

    place: str
    what_next: str


Target = Callable[[Asked, str], Made]
TARGETS: Registry[Target] = Registry("target", __name__)
"""Name -> what exports to the place after NAME: in --to. Exporting again replaces what was exported before."""


def target(to: str) -> tuple[Target, str]:
    """The target that a --to names, and the place in it."""
    name, colon, place = to.partition(":")
    if not colon or not name.isalpha():
        name, place = FOLDER, to
    elif name not in TARGETS.names():
        raise unknown("target", name, TARGETS.names())
    if not place.strip():
        raise InputError(f"expected --to DIR, or TARGET:PLACE with one of {', '.join(TARGETS.names())}, got {to!r}")
    return TARGETS.get(name), place


def needed(package: str) -> Any:
    """A package that only one target needs, and an extra of ours is called after; InputError where it is missing."""
    try:
        found = import_module(package)
        if found.__file__ is None:  # a folder of that name where we stand, such as W&B makes
            raise ImportError(f"{package} is a folder here")
    except ImportError as error:
        raise InputError(f"expected {package} ({line(error)}): pip install 'adversarial-sweep[{package}]'") from error
    return found


def line(error: BaseException) -> str:
    """What another's error says, and what was behind it, in one line."""
    said = [" ".join(str(one).split()) or type(one).__name__ for one in (error, error.__cause__) if one is not None]
    return ": ".join(dict.fromkeys(said))[:300]


def shown(uri: str) -> str:
    """A URI without the password that it may carry."""
    scheme, mark, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    return f"{scheme}{mark}{user.partition(':')[0]}{at}{host}{slash}{path}"
