"""Options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

from sweep.storage import Storage, default_uri

StorageOption = Annotated[
    str | None,
    typer.Option("--storage", help="Where sweeps are kept: a path or a URI; default $SWEEP_STORAGE, else ./results."),
]
FormatOption = Annotated[str, typer.Option("--format", help="table, json, csv or md.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A sweep's id; `sweep ls` lists them.")]
DataRootOption = Annotated[
    str | None,
    typer.Option("--data-root", help="Folder of data sets in the Hugging Face Parquet layout; default $SWEEP_DATA."),
]


def storage(uri: str | None) -> Storage:
    return Storage(uri or default_uri())
