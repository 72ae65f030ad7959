"""The one exception that is the user's to mend: its text is the whole message, one line: rule, what was got, remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. The command line prints it as one line and exits with 2; a library user sees a ValueError."""


def unknown(kind: str, got: str, names: Iterable[str]) -> InputError:
    """The error for a name that is not in a list of names, with the nearest one proposed."""
    known = sorted(names)
    near = difflib.get_close_matches(got, known, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return InputError(f"unknown {kind} {got!r}: {remedy}")
