"""Names for things that live one to a file: a decorator puts them in, a folder scan finds the files."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from attacks.errors import unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Name -> thing, for every module in the packages given; the modules are imported on the first look-up.

    A new member is one new file with `@registry.register("name")` in it and no edit elsewhere.
    """

    def __init__(self, kind: str, *packages: str) -> None:
        self.kind = kind
        self._packages = packages
        self._members: dict[str, T] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[T], T]:
        def put(member: T) -> T:
            if name in self._members:
                raise RuntimeError(f"{self.kind} {name!r} is registered twice")
            self._members[name] = member
            return member

        return put

    def names(self) -> list[str]:
        self._scan()
        return sorted(self._members)

    def get(self, name: str) -> T:
        """The member called `name`; InputError with the nearest name where there is none."""
        self._scan()
        try:
            return self._members[name]
        except KeyError:
            raise unknown(self.kind, name, self._members) from None

    def _scan(self) -> None:
        if self._scanned:
            return
        for package in self._packages:
            folder = importlib.import_module(package)
            for module in pkgutil.iter_modules(folder.__path__, prefix=f"{package}."):
                importlib.import_module(module.name)
        self._scanned = True
