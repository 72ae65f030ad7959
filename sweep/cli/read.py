"""The verbs that read stored results: ls, status, best, query, table. None of them trains, attacks or starts Ray."""

from __future__ import annotations

from typing import Annotated

import typer

from attacks.errors import InputError
from sweep.cli import papers
from sweep.cli.options import FormatOption, IdArgument, StorageOption, storage
from sweep.cli.papers import ToleranceOption


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
    """Show every trial of a sweep: state, value, epochs done, and who drives it.

    Example: sweep status cas-20261120-213000-3f2a
    """
    from sweep import render
    from sweep import status as states
    from sweep.store import Store

    store = Store(storage(storage_uri), sweep_id)
    rows = states.trials(store)
    typer.echo(states.driver(store), err=True)
    render.show(rows, format)


def best(sweep_id: IdArgument, storage_uri: StorageOption = None, format: FormatOption = "table") -> None:
    """Show the best trial, and those that lie within noise of it on the validation images.

    Example: sweep best cas-20261120-213000-3f2a --format json
    """
    from sweep import render, status
    from sweep.store import Store

    store = Store(storage(storage_uri), sweep_id)
    rows = status.best(store)
    if not rows:
        raise InputError(f"no trial of {sweep_id} is COMPLETE yet: see `{status.command('status', store)}`")
    render.show(rows, format)


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT over sweeps, trials, results, epochs, examples, tradeoff.")],
    sweep_id: Annotated[str | None, typer.Option("--id", help="Only this sweep; default: all.")] = None,
    storage_uri: StorageOption = None,
    format: FormatOption = "table",
) -> None:
    """Ask the stored results in SQL, read-only. `trials` has a column "param.ADDRESS" for each setting searched.

    Example: sweep query "select attack, avg(robust_accuracy) from results where split='test' group by 1" --format json
    """
    from sweep import render
    from sweep.query import query as ask

    render.show(ask(storage(storage_uri), sql, sweep_id), format)


def table(
    sweep_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="A sweep's id; several with --paper.")],
    union: Annotated[str, typer.Option(help="Attacks, comma-separated: adds their exact union.")] = "",
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    intervals: Annotated[bool, typer.Option("--intervals", help="95 % intervals for every column.")] = False,
    paper: Annotated[str | None, typer.Option(help="Lay out as this paper's --table (`sweep papers`).")] = None,
    paper_table: Annotated[str | None, typer.Option("--table", help="Its number, or figure-5.")] = None,
    tolerance: ToleranceOption = None,
    storage_uri: StorageOption = None,
    format: FormatOption = "table",
) -> None:
    """Accuracies of the pre-trained and the tuned models, per attack, averaged, and for any union of attacks.

    Example: sweep table cas-20261120-213000-3f2a --union linf,l2,l1
    """
    if (paper is None) != (paper_table is None) or (tolerance is not None and paper is None):
        raise InputError("expected --paper with --table, and --tolerance only with both")
    if paper is not None and paper_table is not None:
        papers.show(sweep_ids, storage(storage_uri), paper, paper_table, split, tolerance, format)
        return
    if len(sweep_ids) > 1:
        raise InputError(f"expected one sweep, or --paper and --table, got {', '.join(sweep_ids)}")
    from sweep import render, tables
    from sweep.store import Store

    names = [name.strip() for name in union.split(",") if name.strip()]
    rows = tables.table(Store(storage(storage_uri), sweep_ids[0]), split, names, intervals=intervals)
    render.show(rows, format, percent=tables.fractions(rows))


COMMANDS = {"ls": ls, "status": status, "best": best, "query": query, "table": table}
