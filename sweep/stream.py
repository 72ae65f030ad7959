"""Rows to a file or stdout while they are being made, a batch at a time; text is what `render` makes of it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from attacks.errors import InputError
from sweep import render
from sweep.query import Answer


def show(answer: Answer, format: str, out: IO[str]) -> None:
    """The rows as `render.show` writes them. csv, md and json are written batch by batch; the others, whose columns are
    as wide as their widest cell, at the end."""
    if format not in _JOINED:
        return render.show(answer.table(), format, file=out)
    empty = _text(pa.Table.from_batches([], answer.schema), format)
    join, end = _JOINED[format]
    begun = False
    for batch in answer.batches:
        text = _text(pa.Table.from_batches([batch]), format).removesuffix(end)
        out.write(join(text, empty) if begun else text)
        begun = True
    out.write(end if begun else empty)
    return None


def save(answer: Answer, path: Path) -> None:
    """The rows as a Parquet file, or as csv, json or md, by the name's ending. The file is whole, or not there."""
    kind = ending(path)
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        if kind == "parquet":
            _save_parquet(answer, beside)
        else:
            with beside.open("w", encoding="utf-8", newline="") as out:
                show(answer, kind, out)
        beside.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def ending(path: Path) -> str:
    """What a file's name says that it holds; refused where `save` does not write that."""
    kinds = ["parquet", *_JOINED]
    if (kind := path.suffix.removeprefix(".")) not in kinds:
        raise InputError(f"expected a file that ends in {', '.join(f'.{one}' for one in kinds)}, got {path.name!r}")
    return kind


def _save_parquet(answer: Answer, path: Path) -> None:
    names = answer.schema.names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"expected columns of different names, got {twice[0]!r} twice: name one with AS")
    with pq.ParquetWriter(path, answer.schema, compression="zstd") as writer:
        for batch in answer.batches:
            writer.write_batch(batch)


def _text(rows: pa.Table, format: str) -> str:
    made = io.StringIO()
    render.show(rows, format, file=made)
    return made.getvalue()


def _after_head(lines: int) -> Callable[[str, str], str]:
    return lambda text, empty: text.split("\n", lines)[lines]


_JOINED: dict[str, tuple[Callable[[str, str], str], str]] = {
    "csv": (lambda text, empty: text.removeprefix(empty), ""),
    "md": (_after_head(2), ""),
    "json": (lambda text, empty: "," + text.removeprefix("["), "\n]\n"),
}
"""Format -> what of a later batch's text is written, given that of no rows; and what stands after the last."""
