"""Whatever is asked, and whatever lies in the store: no traceback, no write, exit code 0 or 2."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shells import Shell

from sweep import compaction, schema
from sweep.storage import Storage
from sweep.store import Store

_SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
TABLES = ("trials", "results", "epochs")
READING = (
    ["ls"],
    ["status", "s"],
    ["best", "s"],
    ["table", "s"],
    ["table", "s", "--split", "val", "--union", "linf,l1"],
)
COUNTS = ["query", "select count(*), max(r.robust_bits), max(params), max(losses) from results r, trials, epochs"]
WORDS = (
    *(
        "select",
        "*",
        "from",
        "where",
        "group by 1",
        "with x as (",
        ")",
        "(",
        ",",
        "'",
        '"',
        "--",
        "/*",
        ";",
        "$a",
        "null",
    ),
    *schema.TABLES,
    *("attack", "robust_bits", "n", "count(*)", "avg(n)", "union all", "join", "using (trial)", "1", "0.5", "order by"),
    *("copy", "attach 'x.db'", "to 'x.csv'", "read_csv('x')", "read_text('/etc/passwd')", "install httpfs", "pragma x"),
    *(
        "set",
        "create table x as",
        "insert into results",
        "explain",
        "analyze",
        "summarize",
        "describe",
        "pivot",
        "limit",
    ),
)


SURROGATES = st.text(st.characters(), max_size=6)
"""What an argument that is not UTF-8 becomes is among them."""


def fuzzed(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=_SLOW)


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, with what is in it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check(sweep: Shell, *arguments: str) -> int:
    before = tree(sweep.folder)
    answer = sweep(*arguments)
    told = (arguments, answer.err)
    assert answer.code in (0, 2), told
    assert "Traceback" not in answer.err, told
    assert answer.code == 0 or (answer.err.startswith("error: ") and not answer.out), told
    assert tree(sweep.folder) == before, told
    return answer.code


@fuzzed(80)
@given(sql=st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join) | st.text(max_size=20) | SURROGATES)
def test_any_sql(sweep: Shell, finished: Store, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    monkeypatch.chdir(sweep.folder)
    check(sweep, "query", "--param", "a=1", "--", sql)


@fuzzed(40)
@given(
    name=SURROGATES | st.sampled_from(["../s", "s/..", "s", "-s", ".", "s\n", "S", "s" * 300]),
    verb=st.sampled_from(["table", "status", "best", "query", "compact"]),
)
def test_any_id(sweep: Shell, finished: Store, monkeypatch: pytest.MonkeyPatch, name: str, verb: str) -> None:
    monkeypatch.chdir(sweep.folder)
    if verb == "query":
        check(sweep, verb, "select 1 from trials", f"--id={name}")
    elif verb != "compact" or name != "s":
        check(sweep, verb, "--", name)


@fuzzed(40)
@given(
    names=st.lists(SURROGATES | st.sampled_from(["linf", "l1", "clean", "blur", "", "linf/apgd"]), max_size=4),
    split=st.sampled_from(["val", "test", "test"]) | SURROGATES,
    form=st.sampled_from(["json", "csv", "md", "table"]) | SURROGATES,
)
def test_any_list_of_columns(sweep: Shell, finished: Store, names: list[str], split: str, form: str) -> None:
    check(sweep, "table", "s", f"--union={','.join(names)}", f"--split={split}", f"--format={form}")


@fuzzed(30)
@given(param=st.text(max_size=12) | SURROGATES.map(lambda text: f"a={text}"))
def test_any_parameter(sweep: Shell, finished: Store, param: str) -> None:
    check(sweep, "query", "select $a", f"--param={param}")


# what lies in the store


def as_parquet(columns: dict[str, Any], **said: str) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata({f"sweep.{k}": v for k, v in said.items()}), out)
    return bytes(out.getvalue())


def cut(data: bytes, at: int, byte: int) -> bytes:
    return data[: at % len(data)]


def flip(data: bytes, at: int, byte: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :]


def swap(data: bytes, at: int, byte: int) -> bytes:
    """Other values in other types, under the name of the table."""
    values: Any = [[1], ["x"], [None], [b"\xff"], [1.5], [[1]], [{"a": 1}]][at % 7]
    names = [*schema.RESULTS, *schema.TRIALS, *schema.EPOCHS]
    columns = {names[(at + i * byte) % len(names)]: values for i in range(byte % 9 + 1)}
    return as_parquet(
        columns, table=TABLES[at % 3], replaces=["[]", "{}", "x", '["s"]', "[1]", "null", "[[]]"][byte % 7]
    )


def empty(data: bytes, at: int, byte: int) -> bytes:
    return b""


def lone(data: bytes, at: int, byte: int) -> bytes:
    return b"PAR1" + data[-(at % 40) :] + b"PAR1"


SPOILS: list[Callable[[bytes, int, int], bytes]] = [cut, flip, flip, flip, swap, swap, empty, lone]


@fuzzed(60)
@given(
    spoils=st.lists(
        st.tuples(st.sampled_from(SPOILS), st.integers(0, 40_000), st.integers(1, 255), st.integers(0, 30)),
        min_size=1,
        max_size=3,
    ),
    compacted=st.booleans(),
    verb=st.sampled_from([*READING, COUNTS, ["query", "select * from results", "--format", "csv"]]),
)
def test_any_damage(sweep: Shell, damaged: Store, spoils: list[Any], compacted: bool, verb: list[str]) -> None:
    fresh(sweep, damaged, compacted)
    files = sorted(sweep.results.rglob("*.parquet"))
    for spoil, at, byte, which in spoils:
        path = files[which % len(files)]
        path.write_bytes(spoil(path.read_bytes() or b"\0", at, byte))
    check(sweep, *verb)


@pytest.fixture
def damaged(sweep: Shell, finished: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A sound copy of the finished sweep, elsewhere, as it is and compacted."""
    finished.write_epochs("k0", [{"number": 0, "epoch": 1, "losses": {"linf": 1.0}}])
    sound = tmp_path_factory.mktemp("sound")
    shutil.copytree(sweep.results, sound / "small")
    compaction.compact(finished, delete_after=0)
    shutil.copytree(sweep.results, sound / "compacted")
    return Store(Storage(str(sound / "small")), "s")


def fresh(sweep: Shell, sound: Store, compacted: bool) -> None:
    shutil.rmtree(sweep.results)
    shutil.copytree(Path(sound.storage.uri).with_name("compacted" if compacted else "small"), sweep.results)
