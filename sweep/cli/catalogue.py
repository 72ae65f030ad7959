"""The verbs that tell what there is: attacks, methods, spaces, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from sweep.cli.options import DataRootOption, FormatOption, StorageOption, storage


def attacks(
    dataset: Annotated[str, typer.Option(help="Whose budgets to show.")] = "cifar10", format: FormatOption = "table"
) -> None:
    """List the attacks: family, budget, steps, source.

    Example: sweep attacks --dataset digits-photo
    """
    from attacks import describe
    from sweep import render

    render.show(describe(dataset), format)


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
        {"space": name, "method": document["method"], "searches": ", ".join(document.get("search", {}))}
        for name, document in documents.items()
    ]
    render.show(rows, format)


def doctor(data_root: DataRootOption = None, storage_uri: StorageOption = None, format: FormatOption = "table") -> None:
    """Check this machine: versions, devices, Ray, storage, data sets. Exit code 1 if something that is needed fails.

    Example: sweep doctor --storage ./results
    """
    from sweep import doctor as checks
    from sweep import render

    found = checks.check(storage(storage_uri), data_root)
    render.show(found, format)
    if any(row["state"] == "FAILED" for row in found):
        raise typer.Exit(1)


COMMANDS = {"attacks": attacks, "methods": methods, "spaces": spaces, "doctor": doctor}
