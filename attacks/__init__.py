"""Attacks on image classifiers: `attacks.get("jpeg", dataset="cifar10")(model, x, y, generator=g)` gives x_adv.

The names below load torch on first use, so that `import attacks` and `attacks.errors` stay cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attacks.base import Attack as Attack
    from attacks.base import View as View
    from attacks.catalogue import describe as describe
    from attacks.catalogue import get as get
    from attacks.catalogue import names as names

_HOMES = {"Attack": "base", "View": "base", "describe": "catalogue", "get": "catalogue", "names": "catalogue"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attacks' has no attribute {name!r}")
    return getattr(importlib.import_module(f"attacks.{_HOMES[name]}"), name)
