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
    FormatOption,
    GpusOption,
    QuietOption,
    StorageOption,
    VerboseOption,
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
    dataset: Annotated[str | None, typer.Option(help="A data set by name, default digits-photo (embedded).")] = None,
    data_root: DataRootOption = None,
    width: Annotated[int | None, typer.Option(help="The network's width.")] = None,
    init: Annotated[
        str | None, typer.Option(help="pretrain:linf|l2|l1, robustbench:NAME, a file (safetensors, .pt), or none.")
    ] = None,
    train_size: Annotated[int | None, typer.Option(help="Train on a stratified part of this size.")] = None,
    eval_size: Annotated[int | None, typer.Option(help="Judge on a part of val of this size.")] = None,
    attack_steps: Annotated[int | None, typer.Option(help="Attack steps in training.")] = None,
    eval_steps: Annotated[int | None, typer.Option(help="Attack steps in evaluation.")] = None,
    budgets: BudgetsOption = None,
    seed: Annotated[int | None, typer.Option(help="Of the training.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="Settings over the usual ones: smoke (seconds), or a YAML file of your own.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="ADDRESS=VALUE", help="Any setting, such as optimizer.lr=0.05.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Draw the heat map into this PNG.")] = None,
    matrix_id: Annotated[str | None, typer.Option("--id", help="The matrix's id; default: made of what it is.")] = None,
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    max_concurrent: ConcurrentOption = 0,
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
