"""docs/schema.md says what the tables are, and its examples run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import duckdb
import pytest
from shells import Shell

from sweep import compaction, schema
from sweep.storage import Storage
from sweep.store import Store

TEXT = (Path(__file__).parents[2] / "docs" / "schema.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(params=["small", "compacted", "emptied"])
def kept(request: pytest.FixtureRequest, sweep: Shell, swept: Store) -> Store:
    """A copy of the swept storage: as it was written, compacted, and without the files that were replaced."""
    shutil.copytree(swept.storage.uri, sweep.results)
    store = Store(Storage(str(sweep.results)), swept.sweep_id)
    if request.param != "small":
        compaction.compact(store, delete_after=0 if request.param == "emptied" else 3600)
    return store


def accuracies(store: Store) -> dict[str, float]:
    rows = [row for row in store.results().to_pylist() if row["split"] == "test"]
    names = {row["attack"] for row in rows}
    every = {name: [row["n_robust"] / row["n"] for row in rows if row["attack"] == name] for name in names}
    return {name: sum(found) / len(found) for name, found in every.items()}


def test_every_column_is_told_with_its_type() -> None:
    told: dict[str, list[tuple[str, str]]] = {}
    for name, text in re.findall(r"^## (\w+)\n(.*?)(?=^## )", TEXT, re.DOTALL | re.MULTILINE):
        rows = re.findall(r"^\| (\w+) \| ([^|]+) \| (.+) \|$", text, re.MULTILINE)
        told[name] = [(column, kind) for column, kind, _ in rows if column != "column"]
    known = {
        name: [(f.name, re.sub(r"\w+: ", "", str(f.type))) for f in fields] for name, fields in schema.TABLES.items()
    }
    assert {name: rows for name, rows in told.items() if rows} == known


def test_the_python_examples_run(kept: Store, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    known = accuracies(kept)
    for block in blocks("python"):
        exec(compile(block, "docs/schema.md", "exec"), names)
        printed = capsys.readouterr().out
        shown = {name: re.search(rf"\b{name}\b.*?(\d\.\d+)", printed) for name in known}
        found = {name: float(line[1]) for name, line in shown.items() if line}  # of many rows a part is printed
        assert found == pytest.approx({name: known[name] for name in found}, abs=1e-6)
        assert len(found) >= 8 or "print(" not in block


def test_the_sql_example_runs(kept: Store) -> None:
    (sql,) = blocks("sql")
    sql = sql.replace("results/cas-1/", f"{kept.storage.uri}/{kept.sweep_id}/")
    assert dict(duckdb.sql(sql).fetchall()) == pytest.approx(accuracies(kept))


def test_the_command_lines_run(kept: Store, sweep: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sweep.folder)
    first, second = [shlex.split(line)[1:] for line in blocks("sh")[0].splitlines()]
    rows = json.loads(sweep(*first, "--format", "json").out)
    assert {row["attack"]: row["avg(robust_accuracy)"] for row in rows} == pytest.approx(accuracies(kept))
    assert sweep(*second).code == 0
    read = duckdb.sql(f"select count(*) from '{sweep.folder}/results.parquet'").fetchall()
    assert read == [(len(kept.results()),)]
