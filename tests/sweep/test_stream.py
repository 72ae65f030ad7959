from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from shells import Shell

from sweep import render, stream
from sweep.query import ask, query
from sweep.storage import Storage
from sweep.store import Store

MANY = """select range as i, if(range % 7 = 0, null, range / 8) as x, 'a|b, "' || range as t, range % 2 = 0 as b,
    [range, 1] as l, 1 as i from range({rows})"""


@pytest.mark.parametrize("format", ["csv", "json", "md", "table"])
def test_streamed_text_is_the_text_of_the_whole(tmp_path: Path, format: str) -> None:
    for rows in (0, 1, 0 if format == "table" else 11_000):
        check_streamed(tmp_path, format, rows)


def check_streamed(tmp_path: Path, format: str, rows: int) -> None:
    storage, sql = Storage(str(tmp_path)), MANY.format(rows=rows)
    streamed, whole = io.StringIO(), io.StringIO()
    with ask(storage, sql) as answer:
        stream.show(answer, format, streamed)
    render.show(query(storage, sql), format, file=whole)
    assert streamed.getvalue() == whole.getvalue()


def test_answers_become_files(sweep: Shell, finished: Store) -> None:
    sql = "select attack, robust_bits, flags, n from results where split = $split"
    rows = query(finished.storage, sql, params={"split": "test"})
    for kind in ("parquet", "csv", "json", "md"):
        path = sweep.folder / f"rows.{kind}"
        for _ in range(2):  # over an older one
            assert sweep("query", sql, "--param", "split=test", "--out", str(path)).out == ""
    assert pq.read_table(sweep.folder / "rows.parquet").equals(rows)
    assert len(json.loads((sweep.folder / "rows.json").read_text())) == rows.num_rows
    assert len((sweep.folder / "rows.csv").read_text().splitlines()) == rows.num_rows + 1
    assert sorted(path.name for path in sweep.folder.iterdir()) == sorted(
        ["results", *(f"rows.{kind}" for kind in ("parquet", "csv", "json", "md"))]
    )


def test_files_that_cannot_be_written_are_told(sweep: Shell, finished: Store) -> None:
    assert sweep.refused("query", "select 1", "--out", "x.txt") == (
        "expected a file that ends in .parquet, .csv, .md, .json, got 'x.txt'"
    )
    missing = str(sweep.folder / "none" / "x.csv")
    assert sweep.refused("query", "select 1", "--out", missing) == f"cannot write {missing}: No such file or directory"
    path = str(sweep.folder / "x.parquet")
    assert "got 'a' twice" in sweep.refused("query", "select 1 as a, 2 as a", "--out", path)
    assert "too far" in sweep.refused("query", "select error('too far')", "--out", path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("3", 3), ("-0.5", -0.5), ("1e3", 1000.0), ("true", True), ("null", None), ("test", "test"), ("", "")),
        *(('"3"', "3"), ("[1]", "[1]"), ("{", "{"), ("a=b", "a=b")),
    ],
)
def test_the_type_of_a_value(sweep: Shell, finished: Store, text: str, value: object) -> None:
    answer = sweep("query", "select $x as x, typeof($x) as t", "--param", f"x={text}", "--format", "json")
    (row,) = json.loads(answer.out)
    assert row["x"] == value
    assert type(row["x"]) is type(value)


def test_a_number_beyond_all_is_refused(sweep: Shell, finished: Store) -> None:
    assert "too large" in sweep.refused("query", "select $x", "--param", f"x={'9' * 60}")


@pytest.mark.parametrize("given", ["x", "=1", "1x=1", ""])
def test_what_is_no_parameter_is_refused(sweep: Shell, finished: Store, given: str) -> None:
    assert sweep.refused("query", "select 1", "--param", given) == f"expected --param NAME=VALUE, got {given!r}"


def test_a_reader_that_has_had_enough_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sweep", "query", "select range from range(10000000000)", "--format", "csv"]
    environment = {**os.environ, "SWEEP_STORAGE": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"range\n"
        process.stdout.close()
        assert process.stderr.read() == b""
