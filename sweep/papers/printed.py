"""What the papers print, number by number, with what is doubtful about it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

FOLDER = files("sweep.papers")


@dataclass(frozen=True)
class Number:
    """One printed cell. `value` is in `unit` (percent, accuracy_delta, seconds, steps), as text it is `printed`; None
    where a figure shows what no number says. `note` says how it was read, `doubt` what is wrong with it."""

    table: str
    dataset: str
    model: str
    pretrained: str
    method: str
    variant: str
    metric: str
    value: float | None
    std: float | None
    unit: str
    printed: str = ""
    note: str = ""
    doubt: str = ""

    @property
    def row(self) -> str:
        """What is trained or judged: its method and variant."""
        return ", ".join(part for part in (self.method, self.variant) if part)

    @property
    def part(self) -> tuple[str, str, str]:
        """The part of a table that one sweep can fill."""
        return self.dataset, self.model, self.pretrained


@cache
def numbers(paper: str) -> tuple[Number, ...]:
    """All that a paper prints, in its order."""
    text = (FOLDER / "numbers" / f"{paper}.csv").read_text(encoding="utf-8")
    return tuple(_number(row) for row in csv.DictReader(text.splitlines()))


def _number(row: dict[str, str]) -> Number:
    told = {name: row[name] for name in ("table", "dataset", "model", "pretrained", "method", "variant", "metric")}
    std = float(row["std"]) if row["std"] else None
    about = {"unit": row["unit"], "printed": row["value"], "note": row["note"], "doubt": row["doubt"]}
    return Number(**told, value=float(row["value"]), std=std, **about)
