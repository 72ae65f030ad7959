"""Read-only SQL over a storage: DuckDB on the verified Arrow tables, shut in with them."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from attacks.errors import InputError, unknown
from sweep import schema
from sweep.storage import Storage
from sweep.store import Store, sweep_ids

_log = logging.getLogger(__name__)
MEMORY = "2GB"
SECONDS = 120.0
_SHUT_IN = {
    "enable_external_access": False,  # no file, URL, attach, copy, export, extension
    "python_enable_replacements": False,  # no variable of this process as a table
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "temp_directory": "",
}


def query(
    storage: Storage,
    sql: str,
    sweep_id: str | Sequence[str] | None = None,
    *,
    seconds: float = SECONDS,
    memory: str = MEMORY,
) -> pa.Table:
    """The answer of one SELECT, WITH or EXPLAIN over the views sweeps, trials, results, epochs, examples and
    tradeoff.

    Covers every sweep of the storage, or those named. Anything but reading the views is refused; a fault in the SQL,
    more than `seconds`, or more than `memory` beside the views' own, is an InputError of one line.
    """
    with duckdb.connect(":memory:", config={**_SHUT_IN, "memory_limit": memory}) as connection:
        connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
        _check_statement(connection, sql)
        held = {name: view(storage, name, sweep_id) for name in _mentioned(sql)}
        for name, table in held.items():
            connection.register(name, table)
        with _time_limit(connection, seconds), _one_line(held):
            return connection.sql(sql).to_arrow_table()


def view(storage: Storage, name: str, sweep_id: str | Sequence[str] | None = None) -> pa.Table:
    """The view sweeps, trials (with a typed column `param.<address>` for each parameter), results, epochs,
    examples or tradeoff."""
    reads: dict[str, Callable[[Store], pa.Table]] = {
        "trials": Store.trials,
        "results": Store.results,
        "epochs": Store.epochs,
        "examples": Store.examples,
        schema.TRADEOFF: Store.tradeoff,
    }
    stores = _stores(storage, sweep_id)
    if name == "sweeps":
        return _stacked(name, _sweeps(stores))
    stacked = _stacked(name, (reads[name](store) for store in stores))
    return with_params(stacked) if name == "trials" else stacked


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


def _stacked(name: str, tables: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables([schema.TABLES[name].empty_table(), *tables])


def _sweeps(stores: Iterable[Store]) -> Iterator[pa.Table]:
    for store in stores:
        try:
            yield store.sweep()
        except InputError as error:
            _log.warning("skipped sweep %s: %s", store.sweep_id, error)


def _mentioned(sql: str) -> list[str]:
    """The views that the SQL can be about, so that a question about trials does not read every verdict."""
    return [name for name in schema.TABLES if name in sql.lower()] or list(schema.TABLES)


def _check_statement(connection: Any, sql: str) -> None:
    with _one_line({}):
        statements = connection.extract_statements(sql)
    kinds = [statement.type for statement in statements]
    if len(kinds) != 1:
        raise InputError(f"expected one SQL statement, got {len(kinds)}")
    if kinds[0] not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise InputError(f"expected a SELECT, WITH or EXPLAIN, got {kinds[0].name}: results are read-only here")


@contextmanager
def _time_limit(connection: Any, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise InputError(f"the query took longer than {seconds:g} s: narrow it with WHERE") from error
    finally:
        timer.cancel()


@contextmanager
def _one_line(held: dict[str, pa.Table]) -> Iterator[None]:
    """DuckDB's error as one line, with the nearest name of ours where a name was not found."""
    try:
        yield
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        message = str(error).strip()
        if found := re.search(r"column (?:named )?\"([^\"]+)\"", message):
            columns = {column for table in held.values() for column in table.column_names}
            raise unknown("column", found[1], columns) from error
        if found := re.search(r"Table with name (\S+) does not exist", message):
            raise unknown("table", found[1], schema.TABLES) from error
        raise InputError(f"SQL: {message.splitlines()[0]}") from error
