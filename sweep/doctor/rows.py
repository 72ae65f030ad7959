"""What a check leaves: one row."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from attacks.errors import InputError

Row = dict[str, str]
State = Literal["ok", "warn", "missing", "FAILED"]


def row(check: str, state: State, found: str, remedy: str = "") -> Row:
    return {"check": check, "state": state, "found": found, "remedy": remedy}


def finding(check: str, find: Callable[[], str]) -> Row:
    """The row of a check that is in order if it finds something, and FAILED if it raises."""
    try:
        return row(check, "ok", find())
    except (OSError, RuntimeError, InputError) as e:
        return failed(check, e)


def failed(check: str, error: Exception) -> Row:
    """An InputError ends with the remedy: in brackets, or after a colon."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    parts = re.fullmatch(r"(.*) \((set .*)\)", first) or re.fullmatch(r"(.*): (.*)", first)
    if parts is None or not isinstance(error, InputError):
        return row(check, "FAILED", first)
    return row(check, "FAILED", *parts.groups())


def limited(check: str, found: str, has: float, needs: float, remedy: str) -> Row:
    """ok where there is enough, else warn with the remedy."""
    return row(check, "ok", found) if has >= needs else row(check, "warn", found, remedy)
