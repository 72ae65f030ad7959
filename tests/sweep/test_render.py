from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.errors import InputError
from sweep.render import FORMATS, show

ROWS = [
    {"attack": "linf", "accuracy": 0.62749, "n": 100, "note": None},
    {"attack": "jpeg", "accuracy": float("nan"), "n": 7, "note": "a|b\nc \x1b[31m[red]"},
]


def shown(rows: Any, format: str, **options: Any) -> str:
    out = io.StringIO()
    show(rows, format, file=out, **options)
    return out.getvalue()


def test_table() -> None:
    lines = shown(ROWS, "table", percent={"accuracy"}).splitlines()
    assert [line.split() for line in lines] == [
        ["attack", "accuracy", "n", "note"],
        ["linf", "62.7", "100", "-"],
        ["jpeg", "-", "7", "a|b", "c", "[31m[red]"],
    ]
    assert lines[1].index("100") + 2 == lines[2].index("7")  # numbers end in one column


def test_json_is_strict() -> None:
    rows = json.loads(shown(ROWS, "json", percent={"accuracy"}))
    assert rows[0] == ROWS[0]
    assert rows[1] == {**ROWS[1], "accuracy": None}


def test_csv_comes_back() -> None:
    rows = list(csv.reader(io.StringIO(shown(ROWS, "csv", percent={"accuracy"}))))
    assert rows == [
        ["attack", "accuracy", "n", "note"],
        ["linf", "0.62749", "100", ""],
        ["jpeg", "", "7", ROWS[1]["note"]],
    ]


def test_md() -> None:
    assert shown(ROWS, "md", percent={"accuracy"}).splitlines() == [
        "| attack | accuracy | n | note |",
        "| --- | ---: | ---: | --- |",
        "| linf | 62.7 | 100 | - |",
        r"| jpeg | - | 7 | a\|b c  [31m[red] |",
    ]


def test_an_arrow_table_with_every_kind_of_value() -> None:
    moment = datetime(2026, 11, 20, 10, tzinfo=UTC)
    table = pa.table(
        [
            pa.array([b"\x80"]),
            pa.array([moment], pa.timestamp("us", "UTC")),
            pa.array([[1.0, math.inf]]),
            pa.array([True]),
        ],
        names=["bits", "at", "list", "list"],
    )
    assert json.loads(shown(table, "json")) == [
        {"bits": "80", "at": "2026-11-20T10:00:00+00:00", "list": [1.0, None], "list_1": True}
    ]
    assert shown(table, "csv").splitlines()[1] == '80,2026-11-20T10:00:00+00:00,"[1.0, null]",true'


@pytest.mark.parametrize(
    ("format", "text"), [("json", "[]\n"), ("csv", "a\n"), ("md", "| a |\n| --- |\n"), ("table", "a\n")]
)
def test_no_rows(format: str, text: str) -> None:
    assert shown(pa.table({"a": pa.array([], pa.int32())}), format) == text


def test_a_wide_table_is_turned() -> None:
    rows = [{"number": i, **{f"attack-{a}": a / 32 for a in range(20)}} for i in (0, 1)]
    lines = [line.split() for line in shown(rows, "table", percent={"attack-16"}).splitlines()]
    assert lines[0] == ["number", "0", "1"]
    assert lines[17] == ["attack-16", "50.0", "50.0"]
    assert len(lines) == 21


def test_nothing_is_cut_where_there_is_no_terminal() -> None:
    rows = [{"a": "x" * 300, "b": i} for i in range(20)]
    assert shown(rows, "table").count("x" * 300) == 20


def test_an_unknown_format_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown format 'jsn': did you mean 'json'\?"):
        shown([], "jsn")


SHORT, BYTES = st.text(max_size=40), st.binary(max_size=20)


@pytest.mark.parametrize("format", FORMATS)
@settings(deadline=None)
@given(
    rows=st.lists(st.fixed_dictionaries({"a": SHORT, "b": st.none() | st.floats() | st.binary(max_size=20) | SHORT}))
)
def test_anything_is_shown(format: str, rows: list[dict[str, Any]]) -> None:
    """Of cells so short that no table is turned."""
    text = shown(rows, format)
    if format == "json":
        assert len(json.loads(text)) == len(rows)
    elif format != "csv":
        assert "\x1b" not in text
        row, heads = {"latex": ("\\\\\n", 1), "html": ("<tr>", 1), "md": ("\n", 2), "table": ("\n", 1)}[format]
        assert text.count(row) == len(rows) + heads or not rows


MARKED = [{"name": "a", "x": 0.5, "y": 0.25}, {"name": "b", "x": 0.45, "y": None}, {"name": "c", "x": 0.1, "y": 0.125}]
MARKS = [{"x": "best"}, {"x": "tied"}, {"y": "best"}]
GIVEN: dict[str, Any] = {"percent": {"x", "y"}, "marks": MARKS, "notes": ["more"]}


def test_marks_in_a_terminal_are_signs_that_survive_without_colour() -> None:
    assert shown(MARKED, "table", **GIVEN).splitlines() == [
        "name      x      y",
        "a     50.0*  25.0",
        "b     45.0~     -",
        "c     10.0   12.5*",
        "*: best of its column; ~: within noise of it.",
        "more",
    ]


def test_the_best_is_bold_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    show(MARKED, "table", file=out, **GIVEN)
    assert "\x1b[1m50.0*\x1b[0m" in out.getvalue()
    assert "\x1b[1m45.0~" not in out.getvalue()


def test_marks_turn_with_their_table() -> None:
    rows = [{"number": i, **{f"attack-{a}": a / 32 for a in range(20)}} for i in (0, 1)]
    lines = shown(rows, "table", percent={"attack-16"}, marks=[{}, {"attack-16": "best"}]).splitlines()
    assert lines[17].split() == ["attack-16", "50.0", "50.0*"]


def test_marks_in_md() -> None:
    lines = shown(MARKED, "md", **GIVEN).splitlines()
    assert lines[2:5] == [r"| a | **50.0** \* | 25.0 |", r"| b | 45.0 \~ | - |", r"| c | 10.0 | **12.5** \* |"]
    assert lines[5:] == ["", r"**bold** \*: best of its column; \~: within noise of it.", "", "more"]


def test_marks_are_columns_for_programs() -> None:
    rows = json.loads(shown(MARKED, "json", **GIVEN))
    assert [(row["best_in"], row["tied_in"]) for row in rows] == [(["x"], []), ([], ["x"]), (["y"], [])]
    assert rows[0]["x"] == 0.5
    read = list(csv.DictReader(io.StringIO(shown(MARKED, "csv", **GIVEN))))
    assert (read[0]["best_in"], read[1]["tied_in"], read[2]["tied_in"]) == ('["x"]', '["x"]', "[]")
    assert "best_in" not in shown(MARKED, "csv")
