"""The verbs that tell what there is: attacks, methods, spaces, doctor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from attacks.errors import InputError
from sweep.cli.options import AddressOption, DataRootOption, FormatOption, StorageOption, storage


def attacks(
    dataset: Annotated[str, typer.Option(help="Whose budgets to show.")] = "cifar10",
    gallery: Annotated[
        str | None, typer.Option(help="Draw an image under the papers' attacks into this PNG instead.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Whose gradients the gallery's attacks follow; default: untrained.")
    ] = None,
    image: Annotated[int, typer.Option(min=0, help="Which image of the test split the gallery shows.")] = 0,
    data_root: DataRootOption = None,
    format: FormatOption = "table",
) -> None:
    """List the attacks: family, budget, steps, source. Or draw them.

    Example: sweep attacks --dataset digits-photo --gallery attacks.png
    """
    from attacks import describe
    from sweep import render

    if gallery is None:
        render.show(describe(dataset), format)
    else:
        _draw(gallery, dataset, model, image, data_root)


def _draw(out: str, dataset: str, path: str | None, image: int, data_root: str | None) -> None:
    from pathlib import Path

    from attacks import get
    from sweep import datasets, gallery, spaces
    from sweep.calibration import expect_writable
    from sweep.starting import expect_fit
    from trainers import models, sources
    from trainers.models import io

    file = Path(out).expanduser()
    expect_writable(file)
    source = sources.source(dataset)
    data = datasets.load(dataset, data_root=data_root, train_size=source.num_classes)
    if image >= len(data.test):
        raise InputError(f"expected --image below {len(data.test)}, the test split's size, got {image}")
    if path is None:
        model = models.create(num_classes=data.num_classes, in_channels=data.shape[0], width=8)
    else:
        model = io.load(path)
        expect_fit(model, data, path)
    drawn = {name: get(name, dataset).bind(model) for name in spaces.default_attacks()}
    gallery.gallery(model.eval(), data.test, image, drawn, file)
    print(file)


def methods(format: FormatOption = "table") -> None:
    """List the methods: their five parts, what their papers state, source.

    Example: sweep methods --format json
    """
    from sweep import render
    from trainers.methods import CATALOGUE

    rows = [
        {"name": name, **entry.parts(), "defaults": dict(entry.settings), "source": entry.source}
        for name, entry in CATALOGUE.items()
    ]
    render.show(rows, format)


def spaces(format: FormatOption = "table") -> None:
    """List the search spaces that `run` takes by name, and what each searches.

    Example: sweep spaces
    """
    from sweep import render
    from sweep import spaces as shipped
    from sweep.settings import read_yaml

    documents = {name: read_yaml(shipped.read(name), name) for name in shipped.names()}
    rows = [
        {"space": name, "method": _method(document), "searches": ", ".join(document.get("search", {}))}
        for name, document in documents.items()
    ]
    render.show(rows, format)


def _method(document: Mapping[str, Any]) -> str:
    """What a space's document trains by: a method, or several; or which experiment it is."""
    return str(document.get("method") or document.get("experiment") or ", ".join(document["methods"]))


def doctor(
    data_root: DataRootOption = None,
    storage_uri: StorageOption = None,
    address: AddressOption = None,
    format: FormatOption = "table",
) -> None:
    """Check versions, this machine, the storage, Ray and data sets: one line each, with what to do. Exit code 1 if
    something FAILED, which a sweep needs; 0 otherwise: `warn` may hurt later, `missing` is a data set not every sweep
    uses. With an address, every node of the cluster is asked for its clock, its GPUs and the storage.

    Example: sweep doctor --storage s3://bucket/sweeps
    """
    from sweep import doctor as checks
    from sweep import render

    found = checks.check(storage(storage_uri), data_root, address)
    render.show(found, format)
    if any(row["state"] == "FAILED" for row in found):
        raise typer.Exit(1)


COMMANDS = {"attacks": attacks, "methods": methods, "spaces": spaces, "doctor": doctor}
