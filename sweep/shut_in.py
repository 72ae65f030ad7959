"""A DuckDB that reaches nothing but the tables it is given, and says what is wrong in one line."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from attacks.errors import InputError, unknown
from sweep import schema

MEMORY = "2GB"
_SHUT_IN = {
    "enable_external_access": False,  # no file, URL, attach, copy, export, extension
    "python_enable_replacements": False,  # no variable of this process as a table
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "temp_directory": "",
}
Params = Mapping[str, Any]


@contextmanager
def connected(memory: str, planning: bool = False) -> Iterator[Any]:
    with duckdb.connect(":memory:", config={**_SHUT_IN, "memory_limit": memory}) as connection:
        if planning:
            rows = connection.execute("SELECT name FROM duckdb_optimizers()").fetchall()
            off = ",".join(name for (name,) in rows if name != "unused_columns")
            connection.execute(f"SET disabled_optimizers = '{off}'")
        connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
        yield connection


def kind_of(connection: Any, sql: str) -> Any:
    """SELECT or EXPLAIN; all else is refused."""
    with one_line({}):
        statements = connection.extract_statements(sql)
    kinds = [statement.type for statement in statements]
    if len(kinds) != 1:
        raise InputError(f"expected one SQL statement, got {len(kinds)}")
    if kinds[0] not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise InputError(f"expected a SELECT, WITH or EXPLAIN, got {kinds[0].name}: results are read-only here")
    return kinds[0]


@contextmanager
def time_limit(connection: Any, left: float, whole: float | None = None) -> Iterator[None]:
    timer = threading.Timer(max(left, 0.0), connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise InputError(f"the query took longer than {whole or left:g} s: narrow it with WHERE") from error
    finally:
        timer.cancel()


@contextmanager
def one_line(held: dict[str, pa.Table]) -> Iterator[None]:
    """DuckDB's error, its own or as Arrow's reader raises it, as one line, with the nearest name of ours where a name
    was not found."""
    try:
        yield
    except duckdb.InterruptException:
        raise
    except (duckdb.Error, OSError) as error:
        message = str(error).strip()
        if message.startswith("INTERRUPT"):
            raise duckdb.InterruptException(message) from error
        if found := re.search(r"column (?:named )?\"([^\"]+)\"", message):
            columns = {column for table in held.values() for column in table.column_names}
            raise unknown("column", found[1], columns) from error
        if found := re.search(r"Table with name (\S+) does not exist", message):
            raise unknown("table", found[1], schema.TABLES) from error
        if found := re.search(r"excess parameters: (.*)$", message):
            raise InputError(f"the SQL has no parameter {found[1]}: it stands there as $name") from error
        if found := re.search(r"Values were not provided .* parameters: (.*)$", message):
            raise InputError(f"no value for the SQL's parameter {found[1]}: give it with --param name=value") from error
        raise InputError(f"SQL: {(message.splitlines() or [type(error).__name__])[0]}") from error


def asked_columns(sql: str, params: Params, held: dict[str, pa.Table]) -> set[str] | None:
    """The columns that a statement reads, of whichever view, as DuckDB's planner has it; None where it cannot say.

    Of the optimizers only the one that drops unused columns is on, so that no other makes use of the views' emptiness.
    """
    with connected(MEMORY, planning=True) as connection:
        for name, table in held.items():
            connection.register(name, schema.empty(table.schema))
        try:
            with one_line(held):
                _, plan = connection.sql(f"EXPLAIN (FORMAT json) {sql}", params=dict(params)).fetchall()[0]
        except InputError as error:
            if isinstance(error.__cause__, duckdb.ParserException):
                return None
            raise
    return set(_scanned(json.loads(plan)))


def _scanned(nodes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for node in nodes:
        if "ARROW_SCAN" in node["name"]:
            columns = node["extra_info"]["Projections"]
            yield from [columns] if isinstance(columns, str) else columns
        yield from _scanned(node["children"])
