"""Options that several verbs share."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attacks.errors import InputError

if TYPE_CHECKING:
    from sweep.control import Limits
    from sweep.driver import Where
    from sweep.storage import Storage


EXIT_INTERRUPTED = 130


def known_format(name: str) -> str:
    """Refuses an unknown format before any work is done."""
    from attacks.errors import unknown
    from sweep.render import FORMATS

    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return name


StorageOption = Annotated[
    str | None,
    typer.Option("--storage", help="Where sweeps are kept: a path or a URI; default $SWEEP_STORAGE, else ./results."),
]
FormatOption = Annotated[
    str, typer.Option("--format", help="table, json, csv, md, latex or html.", callback=known_format)
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A sweep's id; `sweep ls` lists them.")]
DataRootOption = Annotated[
    str | None,
    typer.Option("--data-root", help="Folder of data sets in the Hugging Face Parquet layout; default $SWEEP_DATA."),
]
BudgetsOption = Annotated[
    str | None, typer.Option("--budgets", help="A budgets file, as `calibrate` writes; over the data set's own.")
]
TrainedOnOption = Annotated[str | None, typer.Option(help="A data set by name, default digits-photo (embedded).")]
WidthOption = Annotated[int | None, typer.Option(help="The network's width.")]
InitOption = Annotated[
    str | None, typer.Option(help="pretrain:linf|l2|l1, robustbench:NAME, a file (safetensors, .pt), or none.")
]
TrainSizeOption = Annotated[int | None, typer.Option(help="Train on a stratified part of this size.")]
EvalSizeOption = Annotated[int | None, typer.Option(help="Judge on parts of this size of val and test.")]
TrainStepsOption = Annotated[int | None, typer.Option(help="Attack steps in training.")]
EvalStepsOption = Annotated[int | None, typer.Option(help="Attack steps in evaluation.")]
ProfileOption = Annotated[
    str | None, typer.Option(help="Settings over the usual ones: smoke (seconds), or a YAML file of your own.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="ADDRESS=VALUE", help="Any setting, such as optimizer.lr=0.05.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="A running Ray cluster; of run, resume and extend also its job server (http://HOST:8265), to run there as "
        "a job. Default: $RAY_ADDRESS, else a local one of our own.",
    ),
]
ConcurrentOption = Annotated[int, typer.Option("--max-concurrent", min=0, help="Trials at a time; 0: what fits.")]
CpusOption = Annotated[int, typer.Option("--cpus-per-worker", min=1, help="CPUs, and torch threads, of a worker.")]
GpusOption = Annotated[
    float | None, typer.Option("--gpus-per-worker", min=0, help="GPUs of a worker; default 1 where there are any.")
]
TimeLimitOption = Annotated[
    str | None,
    typer.Option("--time-limit", help="Begin no more trials after this time, such as 90s, 45m or 2h; what runs ends."),
]
GpuHoursOption = Annotated[
    float | None, typer.Option("--gpu-hours", min=0, help="Begin no more trials once all have taken so many.")
]
MaxFailedOption = Annotated[
    int | None, typer.Option("--max-failed", min=1, help="Begin no more trials once so many have failed.")
]
HangLimitOption = Annotated[
    str, typer.Option("--hang-limit", help="A trial that makes no progress for this long is begun anew, twice at most.")
]
HANG_LIMIT = "30m"
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Say only what goes wrong, and the result.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Show what Ray says too.")]


def listed(text: str | None) -> list[str] | None:
    """The names of a comma-separated list."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def values(given: list[str] | None) -> dict[str, bool | int | float | str | None]:
    """NAME=VALUE as a dictionary. A value that JSON reads as null, a truth value or a number is that, else it is text,
    as it is between double quotes."""
    found = {}
    for one in given or []:
        name, equals, text = one.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"expected --param NAME=VALUE, got {one!r}")
        found[name] = _value(text)
    return found


def _value(text: str) -> bool | int | float | str | None:
    if text.lstrip()[:1] in ("[", "{"):
        return text
    try:
        value: bool | int | float | str | None = json.loads(text)
    except ValueError:
        return text
    return value


def attack_names(text: str | None) -> list[str] | None:
    """The attacks of a comma-separated list; `all` are the papers' 21."""
    from sweep import spaces

    return spaces.default_attacks() if text == "all" else listed(text)


def limits(time: str | None, gpu_hours: float | None, failed: int | None) -> Limits:
    from sweep.control import Limits

    return Limits(None if time is None else seconds(time), gpu_hours, failed)


def seconds(text: str) -> float:
    """Of a time such as 90s, 45m or 2h."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    try:
        found = float(text[:-1]) * unit
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise InputError(f"expected a time such as 90s, 45m or 2h, got {text!r}")
    return found


def storage(uri: str | None) -> Storage:
    from sweep.storage import Storage, default_uri

    return Storage(uri or default_uri())


def elsewhere(address: str | None, kept: str | None, *given: str | None) -> None:
    """Where the address is a job server's: runs this command line there, with those of the `given` that are files, and
    ends with its exit code."""
    address = address or os.environ.get("RAY_ADDRESS")
    if not (address or "").startswith(("http://", "https://")):
        return
    from sweep import jobs  # late: Ray takes its time

    files = [one for one in given if one and Path(one).suffix and Path(one).expanduser().is_file()]
    raise typer.Exit(jobs.run(str(address), sys.argv[1:], _common_storage(kept), files))


def _common_storage(uri: str | None) -> str:
    """A storage that a job has in common with us."""
    from sweep.storage import default_uri

    if "://" in (uri or default_uri()) or Path(uri or "").is_absolute():
        return uri or default_uri()
    got = f"the path {default_uri()}" if uri is None else uri
    raise InputError(
        f"expected a storage that the cluster sees too, got {got}: give --storage as a URI, or as the whole path of a "
        "folder that all its nodes have"
    )


def where(
    kept: Storage,
    data_root: str | None,
    address: str | None,
    cpus: int,
    gpus: float | None,
    max_concurrent: int,
    verbose: bool,
    hang_limit: str = HANG_LIMIT,
) -> Where:
    from sweep.driver import Where  # late: Ray takes its time

    there, hang = address or os.environ.get("RAY_ADDRESS"), seconds(hang_limit)
    return Where(kept, data_root, there, cpus, gpus, max_concurrent, hang, verbose)
