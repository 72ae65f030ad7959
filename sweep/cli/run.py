"""The verbs that run trials: run, resume."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli.options import DataRootOption, IdArgument, StorageOption, storage

if TYPE_CHECKING:
    from sweep.driver import Where
    from sweep.store import Store

EXIT_FAILED_TRIALS = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="A running Ray cluster; default $RAY_ADDRESS, else a local one of our own."),
]
ConcurrentOption = Annotated[int, typer.Option("--max-concurrent", min=0, help="Trials at a time; 0: what fits.")]
CpusOption = Annotated[int, typer.Option("--cpus-per-worker", min=1, help="CPUs, and torch threads, of a worker.")]
GpusOption = Annotated[
    float | None, typer.Option("--gpus-per-worker", min=0, help="GPUs of a worker; default 1 where there are any.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Say only what goes wrong, and the result.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Show what Ray says too.")]


def run(
    space: Annotated[str, typer.Argument(help="A search space (`sweep spaces`), or a YAML file of your own.")],
    dataset: Annotated[str | None, typer.Option(help="A data set by name, default digits-photo (embedded).")] = None,
    data_root: DataRootOption = None,
    trials: Annotated[int | None, typer.Option(help="How many trials.")] = None,
    model: Annotated[str | None, typer.Option(help="The network's name.")] = None,
    width: Annotated[int | None, typer.Option(help="The network's width.")] = None,
    init: Annotated[str | None, typer.Option(help="pretrain:linf|l2|l1, a safetensors file, or none.")] = None,
    train_size: Annotated[int | None, typer.Option(help="Train on a stratified part of this size.")] = None,
    eval_size: Annotated[int | None, typer.Option(help="Judge on parts of this size of val and test.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch, over all workers.")] = None,
    lr: Annotated[float | None, typer.Option(help="The largest learning rate.")] = None,
    attacks: Annotated[str | None, typer.Option(help="Comma-separated; default: all.")] = None,
    attack_steps: Annotated[int | None, typer.Option(help="Attack steps in training.")] = None,
    eval_steps: Annotated[int | None, typer.Option(help="Attack steps in evaluation.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the search and of the training.")] = None,
    workers: Annotated[int | None, typer.Option(help="Train workers (DDP) of one trial.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="ADDRESS=VALUE", help="Any setting, such as sampler.w1=10.")
    ] = None,
    sweep_id: Annotated[str | None, typer.Option("--id", help="The sweep's id; default: a new one.")] = None,
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    max_concurrent: ConcurrentOption = 0,
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run a sweep: fine-tune by the space's method, search its hyper-parameters, judge the best.

    Example: sweep run cas --dataset cifar10 --data-root data --width 16 --trials 2
    """
    said = {
        "dataset": dataset,
        "trials": trials,
        "model.name": model,
        "model.width": width,
        "init": init,
        "train_size": train_size,
        "eval_size": eval_size,
        "optimizer.epochs": epochs,
        "optimizer.batch_size": batch_size,
        "optimizer.lr": lr,
        "attacks": None if attacks is None else [name.strip() for name in attacks.split(",") if name.strip()],
        "attack_steps": attack_steps,
        "evaluation.num_steps": eval_steps,
        "seed": seed,
        "workers": workers,
    }
    from sweep import layers
    from sweep.settings import assignment, merge, nest

    flags = nest({address: value for address, value in said.items() if value is not None})
    overrides = merge(flags, nest(dict(map(assignment, settings or [])), "--set"))
    sweep = layers.resolve(space, overrides)
    from sweep import driver  # after what may be wrong with the sweep: Ray takes its time

    where = driver.Where(
        storage(storage_uri),
        data_root,
        address or os.environ.get("RAY_ADDRESS"),
        cpus_per_worker,
        gpus_per_worker,
        max_concurrent,
        verbose,
    )
    store = driver.create(sweep, where, driver.new_id(space) if sweep_id is None else sweep_id)
    print(store.sweep_id, flush=True)
    _drive(store, where, quiet)


def resume(
    sweep_id: IdArgument,
    data_root: DataRootOption = None,
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    max_concurrent: ConcurrentOption = 0,
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Go on with a sweep that was interrupted or killed: what is finished stays, what was planned is run.

    Example: sweep resume cas-20261120-213000-3f2a
    """
    from sweep import spec, status
    from sweep.store import Store

    store = Store(storage(storage_uri), sweep_id)
    spec.reload(status.sound(store)["spec"])
    from sweep import driver

    where = driver.Where(
        store.storage,
        data_root,
        address or os.environ.get("RAY_ADDRESS"),
        cpus_per_worker,
        gpus_per_worker,
        max_concurrent,
        verbose,
    )
    print(store.sweep_id, flush=True)
    _drive(store, where, quiet)


COMMANDS = {"run": run, "resume": resume}


def _drive(store: Store, where: Where, quiet: bool) -> None:
    from rich.console import Console

    from sweep import driver, status
    from sweep.progress import Progress

    signal.signal(signal.SIGTERM, _terminate)
    try:
        driver.drive(store, where, Progress(Console(stderr=True), quiet))
    except (KeyboardInterrupt, _Terminated, SystemExit) as e:
        if isinstance(e, SystemExit) and e.code != signal.SIGTERM:  # what Ray's own handler, set over ours, exits with
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(f"interrupted; go on with: {status.command('resume', store)}", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED if isinstance(e, KeyboardInterrupt) else EXIT_TERMINATED) from None
    _summary(store)


class _Terminated(BaseException):
    """SIGTERM."""


def _terminate(*_: Any) -> None:
    raise _Terminated


def _summary(store: Store) -> None:
    """The best configuration, the table of the pre-trained and the best model, and the commands to go on."""
    from sweep import driver, render, status, tables
    from sweep.store import FAILED

    if (best := driver.best_trial(store)) is not None:
        print(f"\nbest: trial {best['number']}, value {best['value']:.4f} on the validation split")
        print(f"  {best['params']}")
    print("\non the test split (%):")
    rows_on_test = tables.table(store, "test")
    render.show(rows_on_test, percent=tables.fractions(rows_on_test))
    sql = f"\"select number, state, value, error from trials where sweep_id = '{store.sweep_id}'\""
    print("\ngo on:")
    for verb, what in (("resume", ""), ("best", ""), ("table", ""), ("query", sql)):
        print(f"  {status.command(verb, store, what)}")
    states = store.trials().column("state").to_pylist()
    if FAILED in states:
        print(f"{states.count(FAILED)} of {len(states)} trials FAILED; the query above shows why", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED_TRIALS)
