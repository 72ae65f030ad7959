"""The verbs about the papers' tables: papers, reproduce; and `table --paper`."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli import judge, run
from sweep.cli import tradeoff as matrix
from sweep.cli.options import (
    AddressOption,
    ConcurrentOption,
    CpusOption,
    DataRootOption,
    FormatOption,
    GpusOption,
    QuietOption,
    SetOption,
    StorageOption,
    TrainedOnOption,
    VerboseOption,
    storage,
)

if TYPE_CHECKING:
    from sweep.papers.cells import Cell
    from sweep.papers.layouts import Layout, Tradeoff
    from sweep.papers.reproduction import Step
    from sweep.storage import Storage

EXIT_FAILED, EXIT_OUTSIDE = 1, 4
ToleranceOption = Annotated[
    float | None,
    typer.Option(
        min=0, help="Points: exit code 4 where a comparable cell differs by more, 1 where no cell is comparable."
    ),
]


def papers(format: FormatOption = "table") -> None:
    """List the papers' tables and figures: caption, data sets, and the spaces that fill them.

    Example: sweep papers --format md
    """
    from sweep import render
    from sweep.papers import shown

    render.show(shown.catalogue(), format, upright=True)


def reproduce(
    paper: Annotated[str, typer.Argument(metavar="PAPER", help="As `sweep papers` lists them.")],
    table: Annotated[str, typer.Option(help="A table by its number, a figure as figure-5.")],
    profile: Annotated[
        str, typer.Option(help="paper: the spaces as they are; smoke: seconds; or a YAML file of your own.")
    ] = "paper",
    dataset: TrainedOnOption = None,
    data_root: DataRootOption = None,
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2 or 0..4; default: the space's.")] = None,
    trials: Annotated[int | None, typer.Option(help="How many configurations of a space; default: all.")] = None,
    settings: SetOption = None,
    tolerance: ToleranceOption = None,
    sweep_id: Annotated[str | None, typer.Option("--id", help="The sweep's id; default: made of what it is.")] = None,
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    max_concurrent: ConcurrentOption = "auto",
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    format: FormatOption = "table",
) -> None:
    """Run what is behind a paper's table, judge it as the paper did, and show both side by side. The same command goes
    on after a kill. With --profile smoke it runs on digits, to see that it runs.

    Example: sweep reproduce cas-three-phase --table 10 --profile smoke
    """
    from sweep import status
    from sweep.papers import layouts, reproduction
    from sweep.store import Store

    chosen = layouts.layout(paper, table)
    smoke = profile == reproduction.SMOKE
    dataset = dataset or (reproduction.SMOKE_DATASET if smoke else None)
    place: dict[str, Any] = {
        "data_root": data_root,
        "storage_uri": storage_uri,
        "address": address,
        "max_concurrent": max_concurrent,
    }
    place |= {"cpus_per_worker": cpus_per_worker, "gpus_per_worker": gpus_per_worker}
    place |= {"quiet": quiet, "verbose": verbose}
    said: dict[str, Any] = {"profile": None if profile == reproduction.PAPER else profile, "settings": settings}
    kept = storage(storage_uri)
    failures: list[bool] = []
    with redirect_stdout(io.StringIO() if quiet else sys.stderr):
        if chosen.tradeoff is not None:
            _expect_unset("a trade-off matrix", seeds=seeds, trials=trials)
            ids = [_tradeoff(chosen.tradeoff, dataset, smoke, sweep_id, said | place, paper, table)]
        else:
            said |= {"seeds": seeds, "trials": trials}
            steps = reproduction.steps(paper, table, dataset, said, sweep_id)
            failures = [_run(step, kept, said, place) for step in steps]
            ids = [one for step in steps for one in (step.sweep_id, *_evaluate(step, chosen, kept, smoke, place))]
    again = status.command("table", Store(kept, ids[0]), " ".join(ids))
    typer.echo(f"the same table: {again} --paper {paper} --table {table}", err=True)
    show(ids, kept, paper, table, "test", tolerance, format)
    if any(failures):
        raise typer.Exit(run.EXIT_FAILED_TRIALS)


def _run(step: Step, kept: Storage, said: dict[str, Any], place: dict[str, Any]) -> bool:
    """Runs a sweep, or goes on with it; whether some of its trials failed."""
    from attacks.errors import InputError
    from sweep.store import Store

    typer.echo(f"{step.space}: {step.sweep_id}", err=True)
    began = kept.exists(f"{step.sweep_id}/sweep.json")
    if began and (space := Store(kept, step.sweep_id).document().get("space")) != step.space:
        raise InputError(f"{step.sweep_id} is a sweep of {space}, not of {step.space}: choose another --id, or none")
    try:
        if began:
            run.resume(step.sweep_id, **place)
        elif _is_experiment(step.space):
            _expect_unset("an experiment", seeds=said["seeds"], set=said["settings"])
            run.run(step.space, sweep_id=step.sweep_id, trials=said["trials"], storage_uri=place["storage_uri"])
        else:
            own = said | {"settings": [*step.assignments, *(said["settings"] or [])]}
            run.run(step.space, sweep_id=step.sweep_id, **own, **place)
    except typer.Exit as ended:
        if ended.exit_code != run.EXIT_FAILED_TRIALS:
            typer.echo("the same command goes on", err=True)
            raise
        return True
    return False


def _expect_unset(what: str, **given: Any) -> None:
    """Refuses options that would do nothing."""
    from attacks.errors import InputError

    if names := [f"--{name}" for name, value in given.items() if value is not None]:
        raise InputError(f"expected no {' and no '.join(names)}: the table is of {what}, which has none")


def _is_experiment(space: str) -> bool:
    from sweep import spaces
    from sweep.experiments import KEY
    from sweep.settings import read_yaml

    return KEY in read_yaml(spaces.read(space), space)


def _evaluate(step: Step, chosen: Layout, kept: Storage, smoke: bool, place: dict[str, Any]) -> list[str]:
    """Judges the sweep's models as the paper did, where the space does not."""
    from sweep.papers import reproduction
    from sweep.store import Store

    if chosen.evaluation is None:
        return []
    numbers = sorted(one["number"] for one in Store(kept, step.sweep_id).configurations())
    few: dict[str, Any] = {"n": 20, "eval_steps": 1, "checked": 0} if smoke else {}
    models = reproduction.evaluated(numbers, step.sweep_id)
    attacks = (
        "all" if smoke and not chosen.scales else ",".join(chosen.evaluation.attacks)
    )  # digits has fewer of its own
    told: dict[str, Any] = {"attacks": attacks, "protocol": chosen.evaluation.protocol}
    told |= {"scales": ",".join(f"{scale:g}" for scale in chosen.scales)} if chosen.scales else {}
    judge.evaluate(models, evaluation_id=step.evaluation_id, **told, **few, **place)
    return step.evaluations(chosen)


def _tradeoff(
    told: Tradeoff,
    dataset: str | None,
    smoke: bool,
    matrix_id: str | None,
    given: dict[str, Any],
    paper: str,
    table: str,
) -> str:
    from sweep.papers import layouts
    from sweep.spec import digest

    attacks = told.attacks if isinstance(told.attacks, str) else ",".join(told.attacks)
    wish: dict[str, Any] = {
        "attacks": attacks,
        "mode": told.mode,
        "dataset": dataset or told.dataset,
        "init": told.init,
    }
    wish |= {"epochs": 1 if smoke else told.epochs}
    own = {"profile": given["profile"], "settings": given["settings"], **wish}
    made = matrix_id or f"{paper}-{layouts.key(table)}-{digest(own)[:8]}"
    matrix.tradeoff(matrix_id=made, **(given | wish))
    return made


def show(
    ids: Sequence[str],
    kept: Storage,
    paper: str,
    table: str,
    split: str,
    tolerance: float | None,
    format: str,
) -> None:
    """`table ID... --paper PAPER --table TABLE`."""
    from sweep import render
    from sweep.papers import cells, figures, layouts, shown
    from sweep.papers.measured import Measured
    from sweep.store import Store

    chosen = layouts.layout(paper, table)
    measured = Measured(tuple(Store(kept, one) for one in ids), split, layouts.methods(paper, table))
    about = shown.caption(paper, table, chosen)
    if chosen.kind not in ("cells", "matrix"):
        rows, told = figures.rows(paper, table, measured)
        render.show(rows, format, caption=chosen.caption, notes=told, upright=True)
        if format in shown.DATA:
            for note in told:
                typer.echo(note, err=True)
        _check([], tolerance)
        return
    found = cells.cells(paper, table, measured)
    if format in shown.DATA:
        render.show([cell.record() for cell in found], format)
    else:
        notes = shown.notes(chosen, found, tolerance)
        render.show(shown.table(chosen, found, tolerance), format, caption=about, notes=notes, upright=True)
    _check(found, tolerance)


def _check(found: Sequence[Cell], tolerance: float | None) -> None:
    """Exit code 4 for cells outside the tolerance; 1 where none is comparable: a check that compared nothing has not
    passed."""
    from sweep.papers import shown

    if tolerance is None:
        return
    compared = [cell for cell in found if cell.comparable]
    if not compared:
        typer.echo("nothing could be compared: no cell is comparable with the paper's", err=True)
        raise typer.Exit(EXIT_FAILED)
    outside = [cell for cell in compared if shown.is_outside(cell, tolerance)]
    typer.echo(f"{len(compared)} cells compared, {len(outside)} outside {tolerance:g} points", err=True)
    for cell in outside:
        typer.echo(f"  {shown.where(cell)}: {shown.text(cell)}", err=True)
    if outside:
        raise typer.Exit(EXIT_OUTSIDE)


COMMANDS = {"papers": papers, "reproduce": reproduce}
