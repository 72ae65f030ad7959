"""The verb that measures the trade-off matrix."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from attacks.errors import InputError
from sweep.cli.options import (
    EXIT_INTERRUPTED,
    AddressOption,
    BudgetsOption,
    ConcurrentOption,
    CpusOption,
    DataRootOption,
    EvalSizeOption,
    EvalStepsOption,
    FormatOption,
    GpusOption,
    InitOption,
    ProfileOption,
    QuietOption,
    SetOption,
    StorageOption,
    TrainedOnOption,
    TrainSizeOption,
    TrainStepsOption,
    VerboseOption,
    WidthOption,
    attack_names,
    storage,
    where,
)


def tradeoff(
    attacks: Annotated[str | None, typer.Option(help="Comma-separated, or `all`; default: the data set's.")] = None,
    mode: Annotated[
        str, typer.Option(help="individual: each from the starting model; sequential: each from the one before.")
    ] = "individual",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of fine-tuning on each attack.")] = 3,
    dataset: TrainedOnOption = None,
    data_root: DataRootOption = None,
    width: WidthOption = None,
    init: InitOption = None,
    train_size: TrainSizeOption = None,
    eval_size: EvalSizeOption = None,
    attack_steps: TrainStepsOption = None,
    eval_steps: EvalStepsOption = None,
    budgets: BudgetsOption = None,
    seed: Annotated[int | None, typer.Option(help="Of the training.")] = None,
    profile: ProfileOption = None,
    settings: SetOption = None,
    out: Annotated[str | None, typer.Option(help="Draw the heat map into this PNG.")] = None,
    matrix_id: Annotated[str | None, typer.Option("--id", help="The matrix's id; default: made of what it is.")] = None,
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    max_concurrent: ConcurrentOption = "auto",
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    format: FormatOption = "table",
) -> None:
    """Measure the trade-off matrix: fine-tune on each attack, judge under all. The same command goes on after a kill.

    Example: sweep tradeoff --dataset cifar10 --attacks linf,l2,l1,wood,jpeg,fog --mode sequential --out tradeoff.png
    """
    from pathlib import Path

    from sweep import layers
    from sweep.calibration import expect_folder, read_budgets
    from sweep.settings import assignment, merge, nest

    said = {
        "dataset": dataset,
        "model.width": width,
        "init": init,
        "train_size": train_size,
        "eval_size": eval_size,
        "optimizer.epochs": epochs,
        "attacks": attack_names(attacks),
        "attack_steps": attack_steps,
        "evaluation.num_steps": eval_steps,
        "seed": seed,
        "budgets": None if budgets is None else read_budgets(budgets),
    }
    flags = nest({address: value for address, value in said.items() if value is not None})
    base = layers.resolve("sat", merge(flags, nest(dict(map(assignment, settings or [])), "--set")), profile).trial
    file = None if out is None else Path(out).expanduser()
    if file is not None:
        expect_folder(file)
    if base.train_attacks is not None:
        raise InputError("expected no train_attacks: the matrix trains on each of --attacks")
    from rich.console import Console

    from sweep import driver, heatmap, matrix, render
    from sweep.progress import Progress

    plan = matrix.Plan(base, mode, driver.load(base, data_root))
    place = where(storage(storage_uri), data_root, address, cpus_per_worker, gpus_per_worker, max_concurrent, verbose)
    store = matrix.create(plan, place.storage, matrix_id or plan.matrix_id)
    print(store.sweep_id, file=sys.stdout if format == "table" else sys.stderr, flush=True)
    try:
        matrix.drive(store, plan, place, Progress(Console(stderr=True), quiet))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    rows = matrix.table(matrix.effects(store, plan))
    names = [*base.attacks, matrix.TOTAL]
    if file is not None:
        heatmap.heatmap(rows, names, "trained on", matrix.TOTAL, file)
    render.show(rows, format, percent=set(names))


COMMANDS = {"tradeoff": tradeoff}
