"""The verbs that run trials: run, resume."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli.options import (
    EXIT_INTERRUPTED,
    HANG_LIMIT,
    AddressOption,
    BudgetsOption,
    ConcurrentOption,
    CpusOption,
    DataRootOption,
    EvalSizeOption,
    EvalStepsOption,
    GpuHoursOption,
    GpusOption,
    HangLimitOption,
    IdArgument,
    InitOption,
    MaxFailedOption,
    ProfileOption,
    QuietOption,
    SetOption,
    StorageOption,
    TimeLimitOption,
    TrainedOnOption,
    TrainSizeOption,
    TrainStepsOption,
    VerboseOption,
    WidthOption,
    attack_names,
    elsewhere,
    limits,
    listed,
    storage,
    where,
)

if TYPE_CHECKING:
    from sweep.alternatives import Sweep
    from sweep.control import Limits
    from sweep.driver import Where
    from sweep.goals import Goal
    from sweep.storage import Storage
    from sweep.store import Store

EXIT_FAILED_TRIALS = 3
EXIT_TERMINATED = 143


def run(
    space: Annotated[str, typer.Argument(help="A search space (`sweep spaces`), or a YAML file of your own.")],
    dataset: TrainedOnOption = None,
    data_root: DataRootOption = None,
    trials: Annotated[int | None, typer.Option(help="How many configurations.")] = None,
    profile: ProfileOption = None,
    model: Annotated[str | None, typer.Option(help="The network's name.")] = None,
    width: WidthOption = None,
    init: InitOption = None,
    train_size: TrainSizeOption = None,
    eval_size: EvalSizeOption = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch, over all workers.")] = None,
    lr: Annotated[float | None, typer.Option(help="The largest learning rate.")] = None,
    attacks: Annotated[str | None, typer.Option(help="Comma-separated, or `all`: the papers' 21.")] = None,
    attack_steps: TrainStepsOption = None,
    eval_steps: EvalStepsOption = None,
    budgets: BudgetsOption = None,
    searcher: Annotated[str | None, typer.Option(help="tpe, random, gp, nsga2 or grid.")] = None,
    objectives: Annotated[
        str | None,
        typer.Option(help="Maximised together, comma-separated: value, clean, lp, semantic, worst or an attack."),
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(metavar="'METRIC >= NUMBER'", help="To be kept, such as 'clean >= 0.8'; or <=.")
    ] = None,
    warm_start: Annotated[
        str | None, typer.Option(metavar="ID[,ID]", help="Sweeps of the storage whose trials the search begins with.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the search and of the training.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Each configuration once with each, such as 0,1,2 or 0..4; default: --seed.")
    ] = None,
    confirm_top: Annotated[
        int | None,
        typer.Option(min=1, help="Search with --seed only, then run so many of the best with --seeds, and test those."),
    ] = None,
    stopping: Annotated[
        str | None, typer.Option(help="End trials early that are behind: none, asha or hyperband.")
    ] = None,
    controls: Annotated[
        bool | None,
        typer.Option("--controls", help="Beside each adaptive sampler, a static replay of its average probabilities."),
    ] = None,
    test: Annotated[str | None, typer.Option(help="Whose models meet the test split: best or all.")] = None,
    workers: Annotated[int | None, typer.Option(help="Train workers (DDP) of one trial.")] = None,
    settings: SetOption = None,
    sweep_id: Annotated[str | None, typer.Option("--id", help="The sweep's id; default: a new one.")] = None,
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    max_concurrent: ConcurrentOption = 0,
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    time_limit: TimeLimitOption = None,
    gpu_hours: GpuHoursOption = None,
    max_failed: MaxFailedOption = None,
    hang_limit: HangLimitOption = HANG_LIMIT,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell the trials and, from timed batches, what they would take.")
    ] = False,
    price: Annotated[
        float | None, typer.Option("--price-per-gpu-hour", min=0, help="Of a GPU (of a CPU without), for --dry-run.")
    ] = None,
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
        "attacks": attack_names(attacks),
        "attack_steps": attack_steps,
        "evaluation.num_steps": eval_steps,
        "searcher": searcher,
        "objectives": listed(objectives),
        "constraints": constraint,
        "seed": seed,
        "confirm": confirm_top,
        "seeds" if confirm_top is None else "confirm_seeds": _seeds(seeds),
        "stopping.name": stopping,
        "controls": controls,
        "test": test,
        "workers": workers,
    }
    from sweep import layers, spaces
    from sweep.settings import assignment, merge, nest, read_yaml

    document = read_yaml(spaces.read(space), space)
    if "experiment" in document:
        _experiment(space, document, said, settings or budgets or profile, sweep_id, storage(storage_uri))
        return
    flags = nest({address: value for address, value in said.items() if value is not None})
    if budgets is not None:
        from sweep.calibration import read_budgets

        flags |= {"budgets": read_budgets(budgets)}
    overrides = merge(flags, nest(dict(map(assignment, settings or [])), "--set"))
    kept_to = limits(time_limit, gpu_hours, max_failed)
    sweep = layers.resolve(space, overrides, profile)
    elsewhere(address, storage_uri, space, profile, budgets, init)
    from sweep import driver  # after what may be wrong with the sweep: Ray takes its time

    place = where(
        storage(storage_uri), data_root, address, cpus_per_worker, gpus_per_worker, max_concurrent, verbose, hang_limit
    )
    if dry_run:
        _outlook(sweep, place, price)
        return
    warm = listed(warm_start) or []
    store = driver.create(sweep, place, driver.new_id(space) if sweep_id is None else sweep_id, warm)
    print(store.sweep_id, flush=True)
    drive(store, place, quiet, kept_to)


def resume(
    sweep_id: IdArgument,
    data_root: DataRootOption = None,
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    max_concurrent: ConcurrentOption = 0,
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run the trials that FAILED again.")] = False,
    time_limit: TimeLimitOption = None,
    gpu_hours: GpuHoursOption = None,
    max_failed: MaxFailedOption = None,
    hang_limit: HangLimitOption = HANG_LIMIT,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Go on with a sweep that was interrupted or killed: what is finished stays, what was planned is run.

    Example: sweep resume cas-20261120-213000-3f2a
    """
    elsewhere(address, storage_uri)
    from sweep import alternatives, status
    from sweep.schema import EXPERIMENT
    from sweep.store import Store

    store = Store(storage(storage_uri), sweep_id)
    if store.document().get("kind") == EXPERIMENT:
        print(store.sweep_id, flush=True)
        _show_experiment(store)
        return
    alternatives.reload(status.sound(store)["spec"])
    place = where(
        store.storage, data_root, address, cpus_per_worker, gpus_per_worker, max_concurrent, verbose, hang_limit
    )
    kept_to = limits(time_limit, gpu_hours, max_failed)
    print(store.sweep_id, flush=True)
    drive(store, place, quiet, kept_to, retry_failed)


def _experiment(space: str, document: Any, said: Any, more: Any, sweep_id: str | None, kept: Storage) -> None:
    from attacks.errors import InputError
    from sweep import driver, experiments
    from sweep.store import Store

    if given := [address for address, value in said.items() if value is not None and address != "trials"]:
        raise InputError(f"expected only --trials, --id and --storage for the experiment {space}, got {given[0]}")
    if more:
        raise InputError(f"expected only --trials, --id and --storage for the experiment {space}, got {more}")
    store = Store(kept, driver.new_id(space) if sweep_id is None else sweep_id)
    experiments.create(store, space, experiments.cases(document, space, said["trials"]))
    print(store.sweep_id, flush=True)
    _show_experiment(store)


def _show_experiment(store: Store) -> None:
    from sweep import experiments, render

    render.show(experiments.run(store), percent={"of the points"})


def _outlook(sweep: Sweep, place: Where, price: float | None) -> None:
    from sweep import driver, estimate, render

    known = estimate.trials(sweep)
    render.show(known)
    if (more := sweep.trials - len(known)) > 0:
        print(f"and {more} more, which {sweep.searcher} will propose")
    print("\nan estimate from timed batches, in seconds a run and in hours:")
    render.show(driver.outlook(sweep, place, price))


def _seeds(text: str | None) -> list[int] | None:
    """0,1,2 or 0..2"""
    from attacks.errors import InputError

    if text is None:
        return None
    first, dots, last = text.partition("..")
    try:
        return list(range(int(first), int(last) + 1)) if dots else [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"expected --seeds such as 0,1,2 or 0..4, got {text!r}") from None


def _title(goal: Goal) -> str:
    return "best" if len(goal.objectives) == 1 else "on the front"


COMMANDS = {"run": run, "resume": resume}


def drive(store: Store, place: Where, quiet: bool, limits: Limits | None = None, retry_failed: bool = False) -> None:
    """Runs what is left of a sweep and tells what came of it; ends with the exit code where that is not 0."""
    from rich.console import Console

    from sweep import driver, status
    from sweep.control import Limits
    from sweep.progress import Progress

    check = _stop_on_signals()
    try:
        driver.drive(store, place, Progress(Console(stderr=True), quiet), check, limits or Limits(), retry_failed)
    except (KeyboardInterrupt, _Terminated, SystemExit) as e:
        if isinstance(e, SystemExit) and e.code != signal.SIGTERM:  # what Ray's own handler, set over ours, exits with
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(f"interrupted; go on with: {status.command('resume', store)}", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED if isinstance(e, KeyboardInterrupt) else EXIT_TERMINATED) from None
    _summary(store)


class _Terminated(BaseException):
    """SIGTERM."""


def _stop_on_signals() -> Callable[[], None]:
    """SIGINT and SIGTERM raise where the program is. What is raised in a destructor is lost, so the function returned
    raises it again."""
    wished: list[type[BaseException]] = []

    def stop(number: int, *_: Any) -> None:
        wished.append(KeyboardInterrupt if number == signal.SIGINT else _Terminated)
        raise wished[-1]

    def check() -> None:
        if wished:
            raise wished[0]

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return check


def _summary(store: Store) -> None:
    """The best configuration, the table of the pre-trained and the best model, and the commands to go on."""
    from sweep import status, tables
    from sweep.cli.table import show
    from sweep.store import FAILED

    goal = store.goal()
    front = [one for one in store.configurations() if one["front"]]
    for one in front:
        reached = ", ".join(f"{name} {one['metrics'][name]:.4f}" for name in goal.metrics)
        print(f"\n{_title(goal)}: trial {one['number']}, {reached} on the validation split")
        print(f"  {one['params']}")
    if front and (told := status.verdict(store)):
        print(told)
    print("\non the test split (%):")
    show(tables.compare([store], "test"))
    sql = f"\"select number, state, value, error from trials where sweep_id = '{store.sweep_id}'\""
    print("\ngo on:")
    for verb, what in (("resume", ""), ("best", ""), ("table", ""), ("query", sql)):
        print(f"  {status.command(verb, store, what)}")
    states = store.trials().column("state").to_pylist()
    if FAILED in states:
        print(f"{states.count(FAILED)} of {len(states)} trials FAILED; the query above shows why", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED_TRIALS)
