"""The verb that makes tables of stored results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from attacks.errors import InputError
from sweep.cli import papers
from sweep.cli.options import StorageOption, known_format, listed, storage
from sweep.cli.papers import ToleranceOption

if TYPE_CHECKING:
    from sweep.tables import Table

_ROBUSTBENCH = "robustbench"


def _known(name: str) -> str:
    return name if name == _ROBUSTBENCH else known_format(name)


def table(
    sweep_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Sweeps or evaluations that compare; `sweep ls` lists them.")
    ],
    union: Annotated[
        list[str] | None, typer.Option(help="Attacks, comma-separated: adds their exact union. May be repeated.")
    ] = None,
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    average: Annotated[
        str | None,
        typer.Option(
            help="lp-semantic, or svhn: snow, blur, fog against the others; default: svhn on SVHN, else lp-semantic."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="A trade-off matrix (individual), or a sweep of models trained on one attack each: adds "
            "MultiRobustBench's ratios to those models, cr_ind_avg and cr_ind_worst.",
        ),
    ] = None,
    intervals: Annotated[bool, typer.Option("--intervals", help="95 % intervals for every column.")] = False,
    std: Annotated[bool, typer.Option("--std", help="Standard deviations over seeds for every column.")] = False,
    paper: Annotated[str | None, typer.Option(help="Lay out as this paper's --table (`sweep papers`).")] = None,
    paper_table: Annotated[str | None, typer.Option("--table", help="Its number, or figure-5.")] = None,
    tolerance: ToleranceOption = None,
    storage_uri: StorageOption = None,
    format: Annotated[
        str, typer.Option("--format", help="table, json, csv, md, latex, html or robustbench.", callback=_known)
    ] = "table",
) -> None:
    """Accuracies of the pre-trained and the tuned models, per attack, averaged, and for any union of attacks. The best
    of each column is marked, and what is within noise of it.

    Example: sweep table cas-20261120-213000-3f2a --union linf,l2,l1
    """
    if (paper is None) != (paper_table is None) or (tolerance is not None and paper is None):
        raise InputError("expected --paper with --table, and --tolerance only with both")
    kept = storage(storage_uri)
    if paper is not None and paper_table is not None:
        papers.show(sweep_ids, kept, paper, paper_table, split, tolerance, format)
        return
    from sweep import render, tables
    from sweep.store import Store

    found = tables.compare(
        [Store(kept, sweep_id) for sweep_id in sweep_ids],
        split,
        [names for text in union or [] if (names := listed(text))],
        average=average,
        reference=None if reference is None else Store(kept, reference),
        extras=tables.Extras(intervals=intervals, spread=std),
    )
    if format == _ROBUSTBENCH:
        from sweep.tables import robustbench

        render.show(robustbench.entries(found), "json")
    else:
        show(found, format, f"Accuracies on the {split} split (%): {', '.join(sweep_ids)}")


def show(found: Table, format: str = "table", caption: str = "") -> None:
    from sweep import render, tables

    render.show(
        found.rows,
        format,
        percent=tables.fractions(found.rows),
        marks=found.marks,
        caption="" if format in ("table", "md") else caption,
        notes=found.notes,
    )


COMMANDS = {"table": table}
