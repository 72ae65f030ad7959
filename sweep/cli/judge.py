"""The verbs that attack models without training them: evaluate, calibrate, bench."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Annotated, Any

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
    listed,
    storage,
    where,
)

if TYPE_CHECKING:
    from sweep.candidates import Candidate
    from sweep.spec import TrialBase
    from trainers.data import ImageSet

ModelArgument = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Safetensors files; or SWEEP/NUMBER, SWEEP/best, SWEEP/pretrained."),
]
DatasetOption = Annotated[str | None, typer.Option(help="A data set by name; default: the sweep's.")]
AttacksOption = Annotated[str | None, typer.Option(help="Comma-separated, or `all`: the papers' 21.")]
StepsOption = Annotated[int | None, typer.Option("--eval-steps", help="Attack steps, other than the protocol's.")]
SeedOption = Annotated[int, typer.Option(help="Of the attacks' draws.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Images a batch.")]
FeaturesOption = Annotated[
    str, typer.Option(help="What measures perceptual distances: start, self, or a file of AlexNet weights.")
]


def evaluate(
    models: ModelArgument,
    dataset: DatasetOption = None,
    data_root: DataRootOption = None,
    attacks: AttacksOption = None,
    protocol: Annotated[str, typer.Option(help="quick, train, full, as_published or autoattack.")] = "full",
    eval_steps: StepsOption = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Judge on a stratified part of this size.")] = None,
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    seed: SeedOption = 0,
    batch_size: BatchOption = 128,
    budgets: BudgetsOption = None,
    features: FeaturesOption = "start",
    start: Annotated[
        str | None,
        typer.Option(help="The model that a file was fine-tuned from, for perceptual distances; default: itself."),
    ] = None,
    checked: Annotated[int, typer.Option(min=0, help="Images for the reliability checks; 0: none.")] = 200,
    union: Annotated[str, typer.Option(help="Attacks, comma-separated: adds their exact union.")] = "",
    scales: Annotated[
        str | None,
        typer.Option(help="Of all budgets, such as 0.25,0.5,1,2: one evaluation each, with its own id."),
    ] = None,
    evaluation_id: Annotated[
        str | None, typer.Option("--id", help="The evaluation's id, -xSCALE added to it; default: made of what it is.")
    ] = None,
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    max_concurrent: ConcurrentOption = "auto",
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    format: FormatOption = "table",
) -> None:
    """Judge models under attacks and store every image's verdict. The same command goes on after a kill.

    Example: sweep evaluate model.safetensors --dataset cifar10 --attacks all --protocol quick --n 1000
    """
    if split not in ("val", "test"):
        raise InputError(f"expected --split val or test, got {split!r}")
    sizes = _scales(scales) if scales is not None else []
    kept = storage(storage_uri)
    found = _candidates(models, kept, start)
    base = _base(found, dataset, attacks, protocol, eval_steps, seed, batch_size, budgets, features)
    images = _images(found, base, data_root, split, n)
    from rich.console import Console

    from sweep import evaluation, tables
    from sweep.cli.table import show
    from sweep.progress import Progress

    plan = evaluation.Plan(base, split, images, tuple(found), checked)
    plans = [plan.scaled(size) for size in sizes] or [plan]
    ids = [evaluation_id and f"{evaluation_id}-x{size:g}" for size in sizes] or [evaluation_id]
    place = where(kept, data_root, address, cpus_per_worker, gpus_per_worker, max_concurrent, verbose)
    made = zip(plans, ids, strict=True)
    work = [(evaluation.create(one, kept, name or one.evaluation_id), one) for one, name in made]
    for store, _ in work:
        print(store.sweep_id, file=sys.stdout if format == "table" else sys.stderr, flush=True)
    try:
        evaluation.drive(work, place, Progress(Console(stderr=True), quiet))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    names = [given] if (given := listed(union)) else []
    made_of = {one.scale: tables.compare([store], split, names) for store, one in work}
    show(tables.stacked("scale", made_of) if sizes else made_of[1.0], format)


def calibrate(
    model: Annotated[str, typer.Option(help="A safetensors file; or SWEEP/NUMBER, SWEEP/best, SWEEP/pretrained.")],
    out: Annotated[str, typer.Option(help="The budgets file to write.")] = "budgets.yaml",
    target: Annotated[str, typer.Option(help="Between which accuracies a budget is to leave the model.")] = "0.2:0.6",
    dataset: DatasetOption = None,
    data_root: DataRootOption = None,
    attacks: Annotated[
        str | None, typer.Option(help="Comma-separated; default: the semantic and perceptual ones.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="quick, train, full or as_published.")] = "full",
    eval_steps: StepsOption = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Images, of the validation split.")] = 500,
    seed: SeedOption = 0,
    features: FeaturesOption = "start",
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    max_concurrent: ConcurrentOption = "auto",
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Find budgets that leave a share of the validation images robust (Eq. 11 of the CAS papers), with the evidence.

    Example: sweep calibrate --model model.safetensors --dataset cifar10 --target 0.2:0.6 --out budgets.yaml
    """
    from pathlib import Path

    from sweep import calibration
    from trainers.calibrate import Target

    aimed = Target(*_range(target))
    path = Path(out).expanduser()
    calibration.expect_writable(path)
    kept = storage(storage_uri)
    found = _candidates([model], kept, None)[:1]
    names = attacks or ",".join(calibration.default_attacks())
    base = _base(found, dataset, names, protocol, eval_steps, seed, 128, None, features)
    images = _images(found, base, data_root, "val", n)
    from rich.console import Console

    from sweep.progress import Progress

    place = where(kept, data_root, address, cpus_per_worker, gpus_per_worker, max_concurrent, verbose)
    done = calibration.run(base, found[0], images, aimed, place, Progress(Console(stderr=True), quiet))
    made = calibration.document(base, found[0], images, aimed, done)
    storage(str(path.parent)).write(path.name, made.encode())  # whole or not at all
    print(path)


def bench(
    what: Annotated[str, typer.Argument(help="`attacks`.")],
    attacks: AttacksOption = None,
    width: Annotated[int, typer.Option(min=1, help="The network's width.")] = 16,
    batch_size: BatchOption = 32,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds, in each of which every attack has its turn.")] = 9,
    steps: Annotated[int, typer.Option(min=2, help="Attack steps in each turn.")] = 4,
    format: FormatOption = "table",
) -> None:
    """Time attacks against the bare network step (forward and input-backward), interleaved, on one thread or one GPU.

    Example: sweep bench attacks --attacks gabor,fog
    """
    from sweep import render

    if what != "attacks":
        raise InputError(f"expected `bench attacks`, got {what!r}")
    from trainers.speed import bench_attacks

    names = _names(attacks)
    rows = bench_attacks(names, width=width, batch_size=batch_size, rounds=rounds, steps=steps)
    render.show(rows, format)


COMMANDS = {"evaluate": evaluate, "calibrate": calibrate, "bench": bench}


def _candidates(models: list[str], kept: Any, start: str | None) -> list[Candidate]:
    from dataclasses import replace

    from sweep.candidates import candidates
    from trainers.models import io

    found = [one for text in models for one in candidates(text, kept)]
    if start is not None:
        weights = io.dumps(io.load(start))
        found = [one if one.base else replace(one, start=weights) for one in found]
    keys = [one.about.trial for one in found]
    if len(set(keys)) < len(keys):
        raise InputError("expected different models, got one of them twice")
    return found


def _names(attacks: str | None) -> list[str]:
    return attack_names(attacks or "all") or []


def _base(
    found: list[Candidate],
    dataset: str | None,
    attacks: str | None,
    protocol: str,
    eval_steps: int | None,
    seed: int,
    batch_size: int,
    budgets: str | None,
    features: str,
) -> TrialBase:
    """The document of the evaluation: what a sweep says of data and budgets, under what the command line says."""
    from sweep.calibration import read_budgets
    from sweep.spec import evaluation_base

    of_sweep = next((one.base for one in found if one.base), None)
    if of_sweep is None and dataset is None:
        raise InputError("expected --dataset, the data set of the model's classes, got none")
    said: dict[str, Any] = {"attacks": _names(attacks), "seed": seed, "features": features}
    said |= {"evaluation": {"protocol": protocol, "num_steps": eval_steps, "batch_size": batch_size}}
    if of_sweep is not None:
        shared = ("dataset", "split_seed", "epsilons", "budgets", "features")
        said |= {key: getattr(of_sweep, key) for key in shared if key != "features" or features == "start"}
    said |= {"dataset": dataset} if dataset else {}
    said |= {"budgets": read_budgets(budgets), "epsilons": {}} if budgets else {}
    return evaluation_base(said)


def _images(found: list[Candidate], base: TrialBase, data_root: str | None, split: str, n: int | None) -> ImageSet:
    from sweep import datasets
    from sweep.starting import expect_fit
    from trainers import sources
    from trainers.models import io

    few = sources.source(base.dataset).num_classes  # the training images are not needed
    size = {"eval_size" if split == "val" else "test_size": n}
    data = datasets.load(base.dataset, data_root=data_root, train_size=few, split_seed=base.split_seed, **size)
    for one in found:
        expect_fit(io.loads(one.weights), data, one.about.method)
    return data.val if split == "val" else data.test


def _scales(text: str) -> list[float]:
    try:
        found = [float(size) for size in text.split(",")]
    except ValueError:
        found = []
    if not found or len(set(found)) < len(found) or not all(0 < size < math.inf for size in found):
        raise InputError(f"expected --scales as different numbers above 0, such as 0.25,0.5,1,2, got {text!r}")
    return found


def _range(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    try:
        if colon:
            return float(low), float(high)
    except ValueError:
        pass
    raise InputError(f"expected a target such as 0.2:0.6, got {text!r}")
