"""Options that several verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sweep.storage import Storage


def _known_format(name: str) -> str:
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
FormatOption = Annotated[str, typer.Option("--format", help="table, json, csv or md.", callback=_known_format)]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A sweep's id; `sweep ls` lists them.")]
DataRootOption = Annotated[
    str | None,
    typer.Option("--data-root", help="Folder of data sets in the Hugging Face Parquet layout; default $SWEEP_DATA."),
]


def storage(uri: str | None) -> Storage:
    from sweep.storage import Storage, default_uri

    return Storage(uri or default_uri())
