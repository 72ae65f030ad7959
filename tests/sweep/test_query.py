from __future__ import annotations

import logging
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import planned

from attacks.errors import InputError
from sweep import schema
from sweep.bits import pack
from sweep.query import ask, query, view, with_params
from sweep.storage import Storage
from sweep.store import Store


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Two sweeps, of one trial each."""
    made = Storage(str(tmp_path / "results"))
    for name, params in {"one": {"sampler.w1": 1, "name": "x"}, "two": {"sampler.w1": 2.5}}.items():
        store = Store(made, name)
        store.create({"trials": 1, "dataset": name})
        store.write_plan(0, planned(f"k-{name}", **params))
        rows = [
            {"attack": attack, "split": "test", "number": 0, "n": 4, "n_robust": n, "robust_accuracy": n / 4}
            | {"robust_bits": pack([1] * n + [0] * (4 - n))}
            for attack, n in {"clean": 3, "linf": 1 if name == "one" else 2}.items()
        ]
        store.write_results(f"k-{name}", "test", rows)
        store.write_epochs(f"k-{name}", [{"number": 0, "epoch": 1, "losses": {"linf": 0.5}}])
        store.write_examples(f"k-{name}", "test", [{"number": 0, "attack": "linf", "rank": 1, "png": b"x"}])
        store.write_tradeoff([{"trained_on": "linf", "attack": "l2", "effect": 0.5}])
    return made


def test_the_readme_query(storage: Storage) -> None:
    sql = "select attack, avg(robust_accuracy) as a from results where split='test' group by 1 order by 1"
    assert query(storage, sql).to_pylist() == [{"attack": "clean", "a": 0.75}, {"attack": "linf", "a": 0.375}]
    assert query(storage, sql, "one").to_pylist()[1] == {"attack": "linf", "a": 0.25}
    assert query(storage, sql, ["two"]).to_pylist()[1] == {"attack": "linf", "a": 0.5}


@pytest.mark.parametrize("name", schema.TABLES)
def test_every_view_has_its_columns(storage: Storage, name: str) -> None:
    read = query(storage, f"select * from {name}")
    assert read.column_names[: len(schema.TABLES[name])] == schema.TABLES[name].names
    assert read.to_pylist() == view(storage, name).to_pylist()
    assert read.num_rows == {"results": 4}.get(name, 2)


def test_parameters_are_typed_columns(storage: Storage) -> None:
    rows = query(storage, 'select "param.sampler.w1" as w1, "param.name" as name from trials order by w1').to_pylist()
    assert rows == [{"w1": 1.0, "name": "x"}, {"w1": 2.5, "name": None}]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 2], pa.int64()),
        ([1, 0.5], pa.float64()),
        ([True, None], pa.bool_()),
        (["a", 1], pa.string()),
        ([[1, 2], "a"], pa.string()),
        ([True, 1], pa.string()),
        ([None], pa.string()),
    ],
)
def test_the_type_of_a_parameter(values: list[object], kind: pa.DataType) -> None:
    trials = schema.table("trials", [{"params": {"x": value}} for value in values])
    column = with_params(trials).column("param.x")
    assert column.type == kind
    assert column.null_count == values.count(None)


def test_joins_json_and_times(storage: Storage) -> None:
    sql = """with best as (select key, "param.sampler.w1" as w1 from trials)
             select w1, attack from best join results on key = trial where attack = 'linf' order by 1"""
    assert [row["w1"] for row in query(storage, sql).to_pylist()] == [1.0, 2.5]
    assert (
        query(storage, "select cast(losses->>'linf' as double) as l from epochs").column("l").to_pylist() == [0.5] * 2
    )
    assert query(storage, "select cast(timestamptz '2026-01-01 00:00:00+00' as varchar) as t").to_pylist() == [
        {"t": "2026-01-01 00:00:00+00"}
    ]


def test_values_of_parameters(storage: Storage) -> None:
    sql = "select attack, $x as x from results where n_robust = $n and sweep_id = $id"
    found = query(storage, sql, params={"n": 3, "id": "one", "x": None}).to_pylist()
    assert found == [{"attack": "clean", "x": None}]
    told = "select $a as a, $b as b, $c as c, $d as d"
    values = {"a": 1, "b": 0.5, "c": True, "d": "'; drop view results"}
    assert query(storage, told, params=values).to_pylist() == [values]
    with pytest.raises(InputError, match=r"^no value for the SQL's parameter b: give it with --param name=value$"):
        query(storage, told, params=dict.fromkeys("acd", 1))
    with pytest.raises(InputError, match=r"^the SQL has no parameter e: it stands there as \$name$"):
        query(storage, told, params=values | {"e": 1})


ASKED = [
    "select count(*) from results",
    "select attack from results where split = 'test' and n_robust < 3 order by number",
    "select * exclude (robust_bits) from results",
    "select columns('rob.*') from results",
    "select r from results r",
    "select count(distinct r) from results r",
    "select t.a from (select * from results) t(x, a)",
    "select attack from results natural join trials",
    "select attack, losses from results join epochs using (trial)",
    "select * from query('select attack, n from results')",
    "with x as materialized (select * from results) select a.attack from x a join x b using (trial, attack)",
    "select attack from results where n in (select max(n) from results) limit (select max(n_robust) from results)",
    "pivot results on attack in ('clean', 'linf') using max(n_robust) group by trial",
    "select max(n_robust) over (partition by attack) from results",
    "select attack from results qualify row_number() over (partition by trial order by n_robust) = 1",
    "select distinct on (attack) trial from results order by all",
    "from results select struct_extract(results, 'n_robust')",
    "summarize results",
    "describe results",
    "select attack from results anti join trials on results.trial = trials.method",
    "select unnest(flags) from results",
    "select attack from results union all by name select trial from epochs",
    "select trained_on from tradeoff where effect > 0",
]


@pytest.mark.parametrize("sql", ASKED + [f'select "{name}" from results' for name in schema.RESULTS])
def test_what_is_not_read_is_not_missed(storage: Storage, sql: str) -> None:
    """The same as DuckDB answers with every column of every view there."""
    with duckdb.connect(":memory:", config={"python_enable_replacements": False}) as connection:
        for name in schema.TABLES:
            connection.register(name, view(storage, name))
        rows = connection.sql(sql).to_arrow_table()
    found = query(storage, sql)
    assert found.schema == rows.schema
    assert sorted(found.to_pylist(), key=repr) == sorted(rows.to_pylist(), key=repr)


def test_a_damaged_column_matters_to_who_asks_for_it(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(storage.uri) / "one/parquet/results/k-one-test.parquet"
    group = pq.ParquetFile(path).metadata.row_group(0)
    (bits,) = [group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "robust_bits"]
    data = bytearray(path.read_bytes())
    data[bits.dictionary_page_offset + bits.total_compressed_size - 3] ^= 255
    path.write_bytes(bytes(data))
    assert query(storage, "select sum(n_robust) as n from results").to_pylist() == [{"n": 9}]
    assert caplog.text == ""
    assert query(storage, "select sum(n_robust) as n, max(robust_bits) as b from results").column("n").to_pylist() == [
        5
    ]
    assert "skipped 1 of 1 files of results of one" in caplog.text


def test_the_answer_is_made_while_it_is_read(storage: Storage) -> None:
    """Whole, it would take 1.6 TB."""
    with ask(storage, "select range as a, range + 1 as b from range(100000000000)", memory="64MB") as answer:
        assert answer.schema.names == ["a", "b"]
        firsts = [batch.column("a")[0].as_py() for _, batch in zip(range(3), answer.batches, strict=False)]
    assert firsts[0] == 0
    assert firsts == sorted(set(firsts))


def test_faults_on_the_way_are_one_line(storage: Storage) -> None:
    with pytest.raises(InputError, match=r"^SQL: Invalid Input Error: too far$"):
        query(storage, "select if(range > 50000, error('too far'), range) from range(100000)")
    endless = "select a.range from range(1000000) a, range(1000000) b"
    with (
        pytest.raises(InputError, match=r"^the query took longer than 0\.3 s"),
        ask(storage, endless, seconds=0.3) as one,
    ):
        for _ in one.batches:
            pass


def test_an_empty_storage_answers_with_no_rows(tmp_path: Path) -> None:
    empty = Storage(str(tmp_path / "none"))
    for name in schema.TABLES:
        read = query(empty, f"select * from {name}")
        assert (read.num_rows, read.column_names) == (0, schema.TABLES[name].names)
    assert query(empty, "select count(*) as n from results").to_pylist() == [{"n": 0}]


def test_explain_describe_and_show(storage: Storage) -> None:
    assert query(storage, "explain select * from results").num_rows == 1
    assert "robust_bits" in query(storage, "describe results").column("column_name").to_pylist()
    assert query(storage, "show tables").column("name").to_pylist() == sorted(schema.TABLES)


FORBIDDEN = [
    "copy results to '{out}'",
    "copy (select 1) to '{out}' (format parquet)",
    "copy results from '{secret}'",
    "export database '{out}'",
    "import database '{out}'",
    "attach '{out}'",
    "attach '{out}' as x (type sqlite)",
    "install httpfs",
    "load httpfs",
    "force install httpfs from 'http://localhost:1'",
    "set enable_external_access = true",
    "reset enable_external_access",
    "set lock_configuration = false",
    "pragma enable_external_access",
    "pragma database_list",
    "create table x (a int)",
    "create view x as select 1",
    "create macro f(a) as a",
    "create secret (type s3)",
    "insert into results (n) values (1)",
    "update results set n = 1",
    "delete from results",
    "drop view results",
    "alter table results rename to x",
    "call pragma_version()",
    "begin",
    "checkpoint",
    "vacuum",
    "use memory",
    "prepare p as select 1",
    "select 1; select 2",
    "select 1; copy (select 1) to '{out}'",
    "select 1; drop view results; --",
    "",
    "-- only a comment",
    ";",
]
OUTSIDE = [
    "select * from read_csv('{secret}')",
    "select * from read_csv_auto('{secret}')",
    "select * from read_parquet('{secret}')",
    "select * from parquet_metadata('{secret}')",
    "select * from read_json('{secret}')",
    "select * from read_text('{secret}')",
    "select * from read_blob('{secret}')",
    "select * from sniff_csv('{secret}')",
    "select * from glob('{folder}/*')",
    "select * from '{secret}'",
    "from '{secret}'",
    "select * from read_parquet(['{secret}'])",
    "select * from query('select * from read_text(''{secret}'')')",
    "select * from query_table('{secret}')",
    "with x as (select * from read_text('{secret}')) select * from x",
    "select (select content from read_text('{secret}'))",
    "explain analyze copy results to '{out}'",
    "explain analyze select * from read_text('{secret}')",
    "with x as (insert into results (n) values (1) returning n) select * from x",
    "select * from secret_of_this_process",
    "select getenv('HOME')",
    "select * from read_csv('/dev/stdin')",
    "select * from read_csv('http://localhost:1/x.csv')",
    "select * from sqlite_scan('{secret}', 'x')",
]


@pytest.mark.parametrize("sql", FORBIDDEN + OUTSIDE)
def test_nothing_but_the_views_is_reached(storage: Storage, tmp_path: Path, sql: str) -> None:
    secret_of_this_process = pa.table({"a": [1]})
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text("word\nhunter2\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputError) as caught:
        query(storage, sql.format(secret=secret, out=out, folder=tmp_path))
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert secret_of_this_process.num_rows == 1


def test_the_attempts_would_succeed_elsewhere(tmp_path: Path) -> None:
    """The control of the test above: the same words, in a DuckDB that is not shut in, do read and write."""
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text("word\nhunter2\n")
    with duckdb.connect(":memory:") as connection:
        assert connection.execute(f"select * from '{secret}'").fetchall() == [("hunter2",)]
        connection.execute(f"explain analyze copy (select 1) to '{out}'").fetchall()
    assert out.exists()


@pytest.mark.parametrize("sql", FORBIDDEN[:-3])
def test_what_is_not_a_select_is_told_so(storage: Storage, sql: str) -> None:
    with pytest.raises(InputError, match=r"^expected (a SELECT, WITH or EXPLAIN, got \w+|one SQL statement, got \d)"):
        query(storage, sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select atack from results", "unknown column 'atack': did you mean 'attack'?"),
        ("select r.atack from results r", "unknown column 'atack': did you mean 'attack'?"),
        ('select "param.sampler.w" from trials', "unknown column 'param.sampler.w': did you mean 'param.sampler.w1'?"),
        ("select * from result", "unknown table 'result': did you mean 'results'?"),
        (
            "select * from nothing_like_it",
            "unknown table 'nothing_like_it': known: epochs, examples, results, sweeps, tradeoff, trials",
        ),
    ],
)
def test_unknown_names_are_told_with_the_nearest(storage: Storage, sql: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        query(storage, sql)


def test_faults_in_sql_are_one_line(storage: Storage) -> None:
    with pytest.raises(InputError, match=r'^SQL: Parser Error: syntax error at or near "selec"$'):
        query(storage, "selec 1")
    with pytest.raises(InputError, match=r"^SQL: Conversion Error: [^\n]*$"):
        query(storage, "select * from results where attack = 1")
    with pytest.raises(InputError, match="unknown sweep 'thee'"):
        query(storage, "select 1 from trials", "thee")


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_text_gives_a_traceback(text: str) -> None:
    try:
        message = str(query(Storage("fsspec+memory://empty"), text, seconds=5).num_columns)
    except InputError as error:
        message = str(error)
    assert len(message.splitlines()) == 1


def test_a_query_without_end_is_stopped(storage: Storage) -> None:
    with pytest.raises(InputError, match=r"^the query took longer than 0\.2 s"):
        query(
            storage, "select count(*) from range(100000000) a, range(100000000) b where a.range = -b.range", seconds=0.2
        )


def test_a_query_beyond_memory_is_told(storage: Storage) -> None:
    with pytest.raises(InputError, match="SQL: Out of Memory"):
        query(storage, "select list(range) from range(100000000)", memory="32MB")


def test_a_corrupt_sweep_does_not_hide_the_others(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    storage.write("bad/sweep.json", b"{")
    storage.write("worse/sweep.json", b'{"trials": "many"}')
    with caplog.at_level(logging.WARNING):
        assert query(storage, "select sweep_id from sweeps").column(0).to_pylist() == ["one", "two"]
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == ["bad", "worse"]
