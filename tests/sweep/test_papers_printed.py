"""The papers' numbers as they are in the project, against the reference folder that they were made from."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sweep.papers import layouts
from sweep.papers.printed import numbers

FIELDS = ("table", "dataset", "model", "pretrained", "method", "variant", "metric", "unit", "note")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("paper", layouts.papers())
def test_every_number_is_the_references(paper: str, reference: Path) -> None:
    rows = read(reference / f"{paper}.csv")
    ours = numbers(paper)
    assert [tuple(getattr(one, name) for name in FIELDS) for one in ours] == [
        tuple(row[name] for name in FIELDS) for row in rows
    ]
    assert [one.printed for one in ours] == [row["value"] for row in rows]
    assert [one.value for one in ours] == [float(row["value"]) for row in rows]
    assert [one.std for one in ours] == [float(row["std"]) if row["std"] else None for row in rows]


def test_the_matrix_of_figure_5_is_the_references(reference: Path) -> None:
    rows = {row.pop("trained_on"): row for row in read(reference / "cas-three-phase-tradeoff-matrix.csv")}
    ours = [one for one in numbers("cas-three-phase") if one.table == "Figure 5"]
    assert len(ours) == 143
    for one in ours:
        trained, column = one.variant.removeprefix("trained_on="), one.metric
        told = rows["sum_printed" if trained == "sum" else trained][column.replace("row_sum", "sum")]
        assert one.value == float(told), one


def test_what_does_not_add_up_is_doubtful() -> None:
    """checks.md, recomputed from the printed numbers: every average that is not the mean of its parts says so."""
    for paper in ("cas-three-phase", "cas-bandit"):
        rows: dict[tuple[str, ...], dict[str, float]] = {}
        doubts: dict[tuple[str, ...], str] = {}
        for one in numbers(paper):
            who = (one.table, one.dataset, one.pretrained, one.method, one.variant)
            rows.setdefault(who, {})[one.metric] = one.value or 0.0
            if one.metric == "avg_robust":
                doubts[who] = one.doubt
        for who, row in rows.items():
            names = ("avg_lp", "avg_semantic") if "avg_lp" in row else ("avg_corruption", "avg_others")
            if "avg_robust" in row and abs(row["avg_robust"] - (row[names[0]] + row[names[1]]) / 2) > 0.03:
                assert doubts[who].startswith("does not add up"), who


def test_impossible_unions_are_doubtful() -> None:
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    impossible = []
    for one in numbers("adaptive-budget"):
        row = rows.setdefault((one.table, one.row, one.dataset), {})
        row[one.metric] = one.value or 0.0
        if one.metric == "pgd_all" and row["pgd_all"] > min(row["pgd_l1"], row["pgd_l2"], row["pgd_linf"]):
            impossible.append(one)
    assert [(one.table, one.row) for one in impossible] == [("3", "MSD")]
    assert impossible[0].doubt.startswith("impossible")


def test_a_doubt_is_no_note_of_how_a_cell_was_read() -> None:
    doubted = [one for paper in layouts.papers() for one in numbers(paper) if one.doubt]
    assert len(doubted) == 64
    assert not any("OCR" in one.doubt for one in doubted)
