"""Several tables under their titles, for one answer that no single table can hold; as JSON, one object."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attacks.errors import unknown
from sweep import render

SECTIONED = ("table", "md", "json")
"""The formats that hold more than one table."""
Section = Sequence[Mapping[str, Any]] | Sequence[str]
_BARS = "▁▂▃▄▅▆▇█"


def expect_format(format: str) -> None:
    if format not in SECTIONED:
        raise unknown("format of several tables", format, SECTIONED)


def show(
    document: Mapping[str, Any],
    sections: Mapping[str, Section],
    format: str,
    percent: Mapping[str, Collection[str]],
) -> None:
    """Prints the document, as JSON, or else its sections: rows as a table, lines of text as they are. One that is empty
    is left out. `percent`: of a section, its columns that are fractions."""
    expect_format(format)
    if format == "json":
        print(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))
        return
    for k, (title, section) in enumerate((t, s) for t, s in sections.items() if s):
        print(("\n" if k else "") + (f"## {title}\n" if format == "md" else f"{title}:"))
        if isinstance(section[0], str):
            print("\n".join(f"    {line}" for line in section))
        else:
            render.show(section, format, percent=percent.get(title, ()))


def _plain(document: Mapping[str, Any]) -> Any:
    """The document as `render` writes JSON: no NaN, times in ISO 8601."""
    made = io.StringIO()
    render.show([document], "json", file=made)
    return json.loads(made.getvalue())[0]


def sparkline(values: Sequence[float | None]) -> str:
    """A curve in as many characters, from its lowest value to its highest; a space where there is no number."""
    numbers = [None if value is None or not math.isfinite(value) else value for value in values]
    held = [value for value in numbers if value is not None]
    if not held:
        return ""
    low, span = min(held), max(held) - min(held) or 1.0
    return "".join(" " if v is None else _BARS[round((v - low) / span * (len(_BARS) - 1))] for v in numbers)
