"""The verbs that steer a sweep which is there: extend, stop, cancel, gc."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.options import (
    HANG_LIMIT,
    AddressOption,
    ConcurrentOption,
    CpusOption,
    DataRootOption,
    GpuHoursOption,
    GpusOption,
    HangLimitOption,
    IdArgument,
    MaxFailedOption,
    QuietOption,
    StorageOption,
    TimeLimitOption,
    VerboseOption,
    elsewhere,
    limits,
    storage,
    where,
)

if TYPE_CHECKING:
    from sweep.control import Wish


def extend(
    sweep_id: IdArgument,
    trials: Annotated[int, typer.Option(min=1, help="How many more configurations.")],
    data_root: DataRootOption = None,
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    max_concurrent: ConcurrentOption = 0,
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    time_limit: TimeLimitOption = None,
    gpu_hours: GpuHoursOption = None,
    max_failed: MaxFailedOption = None,
    hang_limit: HangLimitOption = HANG_LIMIT,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run more trials of a sweep, finished or not: the search goes on from all that it has seen.

    Example: sweep extend cas-20261120-213000-3f2a --trials 20
    """
    elsewhere(address, storage_uri)
    from sweep import driver, status
    from sweep.cli.run import drive
    from sweep.store import Store

    store = Store(storage(storage_uri), sweep_id)
    status.sound(store)
    kept_to = limits(time_limit, gpu_hours, max_failed)
    place = where(
        store.storage, data_root, address, cpus_per_worker, gpus_per_worker, max_concurrent, verbose, hang_limit
    )
    driver.extend(store, trials)
    print(store.sweep_id, flush=True)
    drive(store, place, quiet, kept_to)


def stop(sweep_id: IdArgument, storage_uri: StorageOption = None) -> None:
    """Ask a sweep's driver, wherever it runs, to begin no more trials: what runs is finished and judged.

    Example: sweep stop cas-20261120-213000-3f2a
    """
    _ask(sweep_id, storage_uri, "stop")


def cancel(sweep_id: IdArgument, storage_uri: StorageOption = None) -> None:
    """Ask a sweep's driver, wherever it runs, to end at once: what runs stays planned, and `resume` goes on with it.

    Example: sweep cancel cas-20261120-213000-3f2a
    """
    _ask(sweep_id, storage_uri, "cancel")


def _ask(sweep_id: str, uri: str | None, wish: Wish) -> None:
    from sweep import control, status
    from sweep.store import Store

    store = Store(storage(uri), sweep_id)
    control.ask(store, wish)
    print(f"asked; what becomes of it: {status.command('status', store)}", file=sys.stderr)


def gc(
    sweep_id: IdArgument,
    keep: Annotated[int, typer.Option(min=0, help="Keep the models of this many of the best configurations.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    storage_uri: StorageOption = None,
) -> None:
    """Remove the models and checkpoints of finished trials, but for the best. Results stay; trials that run or are
    planned keep theirs.

    Example: sweep gc cas-20261120-213000-3f2a --keep 3 --dry-run
    """
    from sweep import garbage, status
    from sweep.store import Store

    store = Store(storage(storage_uri), sweep_id)
    status.sound(store)
    gone = garbage.collect(store, keep, dry_run)
    told = "would remove" if dry_run else "removed"
    print(f"{told} {len(gone)} folders of checkpoints")
    for name in gone:
        print(f"  {name}")


COMMANDS = {"extend": extend, "stop": stop, "cancel": cancel, "gc": gc}
