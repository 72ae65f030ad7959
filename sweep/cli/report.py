"""The verb that makes a sweep's page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from attacks.errors import InputError
from sweep.cli.options import IdArgument, StorageOption, storage

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.store import Store

PLACE = "report/index.html"


def report(
    sweep_id: IdArgument,
    out: Annotated[str | None, typer.Option(help=f"The file to write; default {PLACE} in the sweep's folder.")] = None,
    tradeoff: Annotated[
        str | None, typer.Option(help="A matrix's id, as `tradeoff` printed it; default: the sweep's own phase I.")
    ] = None,
    figures: Annotated[str | None, typer.Option(help="Write every figure as a file into this folder, too.")] = None,
    figure_format: Annotated[str, typer.Option(help="svg or pdf.")] = "svg",
    live: Annotated[
        bool, typer.Option("--live", help="Serve the page on this machine, up to date while the sweep runs.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --live; 0: a free one.")] = 0,
    storage_uri: StorageOption = None,
) -> None:
    """Make one HTML page of a sweep that needs nothing else: which model, how robust, how sure.

    Example: sweep report cas-20261120-213000-3f2a --out report.html
    """
    from pathlib import Path

    from sweep.calibration import expect_folder
    from sweep.report.page import expect_format, gather
    from sweep.store import Store

    expect_format(figure_format)
    store = Store(storage(storage_uri), sweep_id)
    if live:
        if out is not None or figures is not None:
            raise InputError("expected --live alone: it writes no file; leave out --out and --figures")
        _serve(store, tradeoff, port)
        return
    file = None if out is None else Path(out).expanduser().absolute()
    if file is not None:
        expect_folder(file)
    made = gather(store, tradeoff)
    page = made.html().encode()
    if file is None:
        store.folder.write(PLACE, page)
    else:
        _write(file, page)
    print(store.folder.where(PLACE) if file is None else file)
    if figures is not None:
        for path in made.save_figures(Path(figures).expanduser(), figure_format):
            print(path)


def _write(file: Path, page: bytes) -> None:
    """Onto what is there, which may be a device."""
    try:
        file.write_bytes(page)
    except OSError as e:
        raise InputError(f"cannot write {file}: {e.strerror}; choose another --out") from e


def _serve(store: Store, tradeoff: str | None, port: int) -> None:
    """Until Ctrl-C, which is how a reader ends it."""
    from sweep.report.live import Server

    with Server(store, tradeoff, port) as server:
        print(server.url, flush=True)
        print("Ctrl-C ends it", file=sys.stderr)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)


COMMANDS = {"report": report}
