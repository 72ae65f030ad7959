"""Read-only SQL over a storage: DuckDB on the verified Arrow tables, shut in with them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from attacks.errors import InputError, unknown
from sweep import schema
from sweep.shut_in import MEMORY, Params, asked_columns, connected, kind_of, one_line, time_limit
from sweep.storage import Storage
from sweep.store import Store, sweep_ids

_log = logging.getLogger(__name__)
SECONDS = 120.0
_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class Answer:
    """The rows of a query, made while they are read: `batches` can be gone through once."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]

    def table(self) -> pa.Table:
        return pa.Table.from_batches(self.batches, self.schema)


def query(
    storage: Storage,
    sql: str,
    sweep_id: str | Sequence[str] | None = None,
    *,
    params: Params | None = None,
    seconds: float = SECONDS,
    memory: str = MEMORY,
) -> pa.Table:
    """The whole answer; see `ask`."""
    with ask(storage, sql, sweep_id, params=params, seconds=seconds, memory=memory) as answer:
        return answer.table()


@contextmanager
def ask(
    storage: Storage,
    sql: str,
    sweep_id: str | Sequence[str] | None = None,
    *,
    params: Params | None = None,
    seconds: float = SECONDS,
    memory: str = MEMORY,
) -> Iterator[Answer]:
    """The answer of one SELECT, WITH or EXPLAIN over the views sweeps, trials, results, epochs, examples and
    tradeoff; `params`: the values of $name in it.

    Covers every sweep of the storage, or those named. Only the columns that the SQL asks for are read. Anything but
    reading the views is refused; a fault in the SQL, more than `seconds` of computing, or more than `memory` beside the
    views' own, is an InputError of one line, here or while the answer is read.
    """
    with connected(memory) as connection:
        held = _held(storage, sql, sweep_id, params or {}, kind_of(connection, sql))
        for name, table in held.items():
            connection.register(name, table)
        with time_limit(connection, seconds), one_line(held):
            reader = connection.sql(sql, params=dict(params or {})).to_arrow_reader(_BATCH_ROWS)
        yield Answer(reader.schema, _batches(connection, reader, held, seconds))


def view(
    storage: Storage, name: str, sweep_id: str | Sequence[str] | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """The view sweeps, trials (with a typed column `param.<address>` for each parameter), results, epochs, examples or
    tradeoff; of the last four, `columns` alone can be had."""
    stores = _stores(storage, sweep_id)
    if name == "sweeps":
        return _stacked(schema.empty(schema.TABLES[name]), _sweeps(stores))
    if name == "trials":
        return with_params(_stacked(schema.empty(schema.TABLES[name]), (store.trials() for store in stores)))
    empty = schema.empty(schema.TABLES[name])
    empty = empty if columns is None else empty.select(columns)
    return _stacked(empty, (_READS[name](store, columns) for store in stores))


_READS: dict[str, Callable[[Store, Sequence[str] | None], pa.Table]] = {
    "results": Store.results,
    "epochs": Store.epochs,
    "examples": Store.examples,
    schema.TRADEOFF: Store.tradeoff,
}


def with_params(trials: pa.Table) -> pa.Table:
    """The trials with a column `param.<address>` for each parameter: bool, int64, float64 or, where mixed, text."""
    rows = [json.loads(params or "{}") for params in trials.column("params").to_pylist()]
    for address in sorted({address for row in rows for address in row}):
        trials = trials.append_column(f"param.{address}", _typed([row.get(address) for row in rows]))
    return trials


def _typed(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds in ({bool}, {int}, {float}):
        return pa.array(values)
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values])
    return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.string())


def _stores(storage: Storage, sweep_id: str | Sequence[str] | None) -> list[Store]:
    known = sweep_ids(storage)
    wanted = known if sweep_id is None else [sweep_id] if isinstance(sweep_id, str) else list(sweep_id)
    for name in wanted:
        if name not in known:
            raise unknown("sweep", name, known)
    return [Store(storage, name) for name in wanted]


def _stacked(empty: pa.Table, tables: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables([empty, *tables])


def _sweeps(stores: Iterable[Store]) -> Iterator[pa.Table]:
    for store in stores:
        try:
            yield store.sweep()
        except InputError as error:
            _log.warning("skipped sweep %s: %s", store.sweep_id, error)


def _mentioned(sql: str) -> list[str]:
    """The views that the SQL can be about, so that a question about trials does not read every verdict."""
    return [name for name in schema.TABLES if name in sql.lower()] or list(schema.TABLES)


def _held(storage: Storage, sql: str, sweep_id: Any, params: Params, kind: Any) -> dict[str, pa.Table]:
    """The views that the SQL is about, each with all of its columns; those that it does not ask for hold nulls."""
    names = _mentioned(sql)
    held = {name: view(storage, name, sweep_id) for name in names if name not in _READS}
    empty = {name: schema.empty(schema.TABLES[name]) for name in names if name in _READS}
    if not empty:
        return held
    asked = None if kind == duckdb.StatementType.EXPLAIN else asked_columns(sql, params, held | empty)
    for name, none in empty.items():
        columns = [column for column in none.column_names if asked is None or column in asked]
        held[name] = _widened(view(storage, name, sweep_id, columns or none.column_names[:1]), none.schema)
    return held


def _widened(read: pa.Table, full: pa.Schema) -> pa.Table:
    """With all columns of the schema; those that were not read are nulls that take no memory."""
    if read.num_columns == len(full):
        return read
    if read.column(0).num_chunks > 1 + len(read) // _BATCH_ROWS:  # many small files
        read = read.combine_chunks()
    held = set(read.column_names)
    return pa.table([read.column(f.name) if f.name in held else _nulls(len(read), f.type) for f in full], schema=full)


def _nulls(rows: int, kind: pa.DataType) -> pa.ChunkedArray:
    chunk = pa.nulls(min(rows, _BATCH_ROWS), kind)
    whole, rest = divmod(rows, _BATCH_ROWS)
    return pa.chunked_array([chunk] * whole + [chunk.slice(0, rest)], kind)


def _batches(connection: Any, reader: Any, held: dict[str, pa.Table], seconds: float) -> Iterator[pa.RecordBatch]:
    left = seconds
    while True:
        began = time.monotonic()
        try:
            with time_limit(connection, left, seconds), one_line(held):
                batch = reader.read_next_batch()
        except StopIteration:
            return
        left -= time.monotonic() - began
        yield batch
