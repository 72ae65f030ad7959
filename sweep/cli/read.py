"""The verbs that read what is stored: ls, status, logs, best, query; and compact, which puts results together. None of
them trains, attacks or starts Ray."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from attacks.errors import InputError
from sweep.cli.options import FormatOption, IdArgument, StorageOption, storage, values


def ls(storage_uri: StorageOption = None, format: FormatOption = "table") -> None:
    """List the sweeps of a storage.

    Example: sweep ls --storage ./results
    """
    from sweep import render, status

    kept = storage(storage_uri)
    rows = status.sweeps(kept)
    if not rows:
        typer.echo(f"no sweep in {kept.where()} yet; start one with: python -m sweep run cas", err=True)
    if rows or format != "table":
        render.show(rows, format)


def status(sweep_id: IdArgument, storage_uri: StorageOption = None, format: FormatOption = "table") -> None:
    """Show every trial of a sweep: state, value, epochs done, when it was last heard; who drives it, how idle it is.

    Example: sweep status cas-20261120-213000-3f2a
    """
    from sweep import render
    from sweep import status as states
    from sweep.store import Store

    store = Store(storage(storage_uri), sweep_id)
    rows = states.trials(store)
    for line in filter(None, (states.driver(store), states.idle_share(store))):
        typer.echo(line, err=True)
    render.show(rows, format)


def logs(
    sweep_id: IdArgument,
    number: Annotated[int, typer.Argument(metavar="TRIAL", help="A trial's number; `sweep status` lists them.")],
    storage_uri: StorageOption = None,
) -> None:
    """Print what a trial said while it ran, all attempts of it: epochs, warnings, what it ended with. With several
    seeds, run after run.

    Example: sweep logs cas-20261120-213000-3f2a 3
    """
    from sweep import status
    from sweep.store import Store

    for title, lines in status.log(Store(storage(storage_uri), sweep_id), number):
        print(f"# {title}")
        print("\n".join(lines or ["nothing yet: it has not begun"]))


def best(sweep_id: IdArgument, storage_uri: StorageOption = None, format: FormatOption = "table") -> None:
    """Show the best trial, and those within noise of it on the validation images; of several objectives the front.

    Example: sweep best cas-20261120-213000-3f2a --format json
    """
    from sweep import render, status
    from sweep.store import Store

    store = Store(storage(storage_uri), sweep_id)
    rows = status.best(store)
    if not rows:
        raise InputError(f"no trial of {sweep_id} is COMPLETE yet: see `{status.command('status', store)}`")
    if told := status.verdict(store):
        typer.echo(told, err=True)
    render.show(rows, format)


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT over sweeps, trials, results, epochs, examples, tradeoff.")],
    sweep_id: Annotated[str | None, typer.Option("--id", help="Only this sweep; default: all.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="The value of $NAME in the SQL: null, true, 3, 0.5; all else is text."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="A file to write: .parquet, .csv, .json or .md.")] = None,
    storage_uri: StorageOption = None,
    format: FormatOption = "table",
) -> None:
    """Ask the stored results in SQL, read-only. `trials` has a column "param.ADDRESS" for each setting searched.

    The columns of every table: docs/schema.md.

    Example: sweep query "select attack, avg(robust_accuracy) from results where split='test' group by 1" --format json
    """
    import sys
    from pathlib import Path

    from sweep import stream
    from sweep.query import ask

    path = None if out is None else Path(out).expanduser()
    if path is not None:
        stream.ending(path)
    with ask(storage(storage_uri), sql, sweep_id, params=values(param)) as answer:
        if path is None:
            stream.show(answer, format, sys.stdout)
        else:
            stream.save(answer, path)


def compact(
    sweep_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Sweeps; `sweep ls` lists them.")],
    delete_after: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Delete what was replaced this long ago. 0: nobody reads.")
    ] = 3600.0,
    storage_uri: StorageOption = None,
    format: FormatOption = "table",
) -> None:
    """Merge the small files of sweeps into large ones, which are read faster; beside running sweeps and readers.

    What was replaced is deleted by a later run of the same command, an hour on. Example: sweep compact cas-20261120
    """
    from sweep import compaction, render
    from sweep.store import Store

    stores = [Store(storage(storage_uri), sweep_id) for sweep_id in dict.fromkeys(sweep_ids)]
    for store in stores:
        store.document()
    done = [(store, one) for store in stores for one in compaction.compact(store, delete_after)]
    render.show([{"sweep": store.sweep_id, **asdict(one)} for store, one in done], format)


COMMANDS = {"compact": compact, "ls": ls, "status": status, "logs": logs, "best": best, "query": query}
