"""The store's tables: explicit Arrow schemas, and how rows become Parquet bytes and come back verified.

A new column is added at the end and the version raised; a file that lacks it reads as null. Columns never change type.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

VERSION = 5
EVALUATION = "evaluate"
"""The space, and the kind, of a folder that `evaluate` made: it has results and no trials."""
EXPERIMENT = "experiment"
"""The kind of a folder that an experiment made: it has trials and epochs, and no results."""
TRADEOFF = "tradeoff"
"""The space, and the kind, of a folder that `tradeoff` made; and the table of its matrix."""
_GROUP_ROWS = 1 << 17
_TIME = pa.timestamp("us", "UTC")
_TEXT, _REAL, _WHOLE, _BIG = pa.string(), pa.float64(), pa.int32(), pa.int64()

SWEEPS = {  # one row a sweep, from its sweep.json
    "sweep_id": _TEXT,
    "created": _TIME,
    "space": _TEXT,
    "method": _TEXT,
    "dataset": _TEXT,
    "fingerprint": _TEXT,  # of the data set
    "model": _TEXT,
    "init": _TEXT,
    "seed": _BIG,
    "trials": _WHOLE,  # planned
    "spec": _TEXT,  # JSON
    "versions": _TEXT,  # JSON
    "revision": _TEXT,
}

TRIALS = {  # one row a run: a configuration with a seed
    "sweep_id": _TEXT,
    "number": _WHOLE,
    "key": _TEXT,
    "state": _TEXT,  # COMPLETE | PRUNED | FAILED | PLANNED
    "value": _REAL,  # what the search maximises, 0..1
    "params": _TEXT,  # JSON: address -> value
    "method": _TEXT,
    "seed": _BIG,
    "seconds": _REAL,
    "error": _TEXT,
    "started": _TIME,
    "finished": _TIME,
    "revision": _TEXT,
    "host": _TEXT,
    "device": _TEXT,
    "attempts": _WHOLE,
    "replay": pa.bool_(),  # a control: the average probabilities of the run with its number and seed, held fixed
    "metrics": _TEXT,  # JSON: name -> accuracy on the validation images, of what else a search may look at
    "intermediate": _TEXT,  # JSON: epoch -> value on the validation images, of a run that is judged on the way
    "peak_memory": _BIG,  # bytes of its worker at most: of the GPU, or of the process where there is none
    "confirm": pa.bool_(),  # came after the search, of one of its best with another seed: the search did not go by it
}

RESULTS = {  # one row per trial, weights, epoch, split, attack
    "sweep_id": _TEXT,
    "trial": _TEXT,  # the trial's key
    "number": _WHOLE,
    "method": _TEXT,
    "dataset": _TEXT,
    "model": _TEXT,
    "init": _TEXT,
    "seed": _BIG,
    "weights": _TEXT,  # live | averaged
    "epoch": _WHOLE,
    "split": _TEXT,  # val | test
    "attack": _TEXT,  # or 'clean', or ATTACK/STAGE
    "family": _TEXT,  # clean | lp | perceptual | semantic
    "epsilon": _REAL,
    "num_steps": _WHOLE,
    "protocol": _TEXT,
    "n": _WHOLE,
    "n_robust": _WHOLE,
    "robust_accuracy": _REAL,  # 0..1
    "mean_loss": _REAL,
    "seconds": _REAL,
    "images": _TEXT,  # fingerprint of the ordered image ids
    "budget_id": _TEXT,  # the set of budgets that all attacks of the evaluation took theirs from; null for clean
    "attack_seed": _BIG,
    "conditional": pa.bool_(),  # saw only the survivors of earlier attacks
    "flags": pa.list_(_TEXT),  # reasons to doubt it: docs/attacks.md
    "robust_bits": pa.binary(),  # bits.pack: one bit per image, in the order of `images`
    "norm": _TEXT,  # linf | l2 | l1, of an attack that bounds one
    "predicted": pa.binary(),  # bits.pack_classes: given to the image that decided, -1: no number; null for a stage
    "labels": pa.binary(),  # bits.pack_classes: the true classes, of 'clean' only
}

EPOCHS = {  # one row per trial and epoch
    "sweep_id": _TEXT,
    "trial": _TEXT,
    "number": _WHOLE,
    "epoch": _WHOLE,
    "phase": _TEXT,
    "lr": _REAL,
    "train_loss": _REAL,
    "train_accuracy": _REAL,
    "seconds": _REAL,
    "seconds_attack": _REAL,
    "seconds_train": _REAL,
    "decay": _REAL,
    "gain": _REAL,
    "gain_stderr": _REAL,
    "probabilities": _TEXT,  # JSON: attack -> number, and so the next three
    "counts": _TEXT,
    "robust": _TEXT,
    "losses": _TEXT,
    "rewards": _TEXT,  # of the sampler
    "budgets": _TEXT,  # mean epsilon, where they adapt
    "domination": _TEXT,  # which attack led, of several on a batch
    "forwards": _REAL,  # passes of the model for each training image, attacks included
    "backwards": _REAL,
    "cosine": _REAL,  # of RAMP's two directions
    "flips": _WHOLE,  # weights whose sign changed, of the SVM experiment
    "class_weights": _TEXT,  # JSON: class -> the mean weight of its images; null where all count the same
}

EXAMPLES = {  # one row per trial, weights, epoch, split, attack and rank: what it broke with the highest loss
    "sweep_id": _TEXT,
    "trial": _TEXT,
    "number": _WHOLE,
    "method": _TEXT,
    "seed": _BIG,
    "weights": _TEXT,
    "epoch": _WHOLE,
    "split": _TEXT,
    "attack": _TEXT,
    "rank": _WHOLE,  # from 1, the highest loss
    "image": _BIG,  # its id in the data set
    "label": _WHOLE,
    "predicted": _WHOLE,  # on the attacked image, before it became 8-bit
    "loss": _REAL,
    "png": pa.binary(),
    "adversarial_png": pa.binary(),
}


TRADEOFFS = {  # one row per attack trained on and attack, of a trade-off matrix
    "sweep_id": _TEXT,
    "trained_on": _TEXT,
    "attack": _TEXT,
    "before": _REAL,  # 0..1
    "after": _REAL,
    "effect": _REAL,  # after - before
    "low": _REAL,  # its 95 % interval
    "high": _REAL,
}


def _schema(name: str, columns: Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema(list(columns.items()), metadata={"sweep.table": name, "sweep.version": str(VERSION)})


TABLES: dict[str, pa.Schema] = {
    name: _schema(name, columns)
    for name, columns in {
        "sweeps": SWEEPS,
        "trials": TRIALS,
        "results": RESULTS,
        "epochs": EPOCHS,
        "examples": EXAMPLES,
        TRADEOFF: TRADEOFFS,
    }.items()
}


NEEDED = {
    "trials": ("number", "key", "state"),
    "results": ("trial", "split", "attack", "n"),
    "epochs": ("trial", "epoch"),
    "examples": ("trial", "attack", "rank"),
}
"""What no row lacks: a file in which one does is not of its table."""
Source: TypeAlias = "bytes | pa.NativeFile"
"""A file's bytes, or the file, of which no more is read than needed."""


def empty(columns: pa.Schema) -> pa.Table:
    """No rows. pyarrow's own empty_table imports pandas, which takes longer than most queries."""
    return pa.Table.from_batches([], schema=columns)


class Unverified(Exception):
    """A file that is not a sound file of its table; the text is the reason."""


def table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table; what a row lacks is null, a foreign column is a bug.

    Objects become JSON text, and times in ISO 8601 (UTC where they do not say) become timestamps.
    """
    schema = TABLES[name]
    listed = [{column: _cell(schema, name, column, value) for column, value in row.items()} for row in rows]
    return pa.Table.from_pylist(listed, schema=schema)


def _cell(schema: pa.Schema, name: str, column: str, value: Any) -> Any:
    if column not in schema.names:
        raise ValueError(f"table {name} has no column {column!r}")
    if isinstance(value, Mapping):
        return json.dumps(_plain(value), sort_keys=True, allow_nan=False)
    if schema.field(column).type == _TIME and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return value


def _plain(value: Any) -> Any:
    """A value as strict JSON has it: numpy scalars become Python's, NaN and infinities null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def encode(name: str, rows: Iterable[Mapping[str, Any]], replaces: Collection[str] = ()) -> bytes:
    """A Parquet file of the rows, with page checksums. `replaces`: the file names that a compacted file stands for."""
    return pack(table(name, rows), name, replaces)


def pack(rows: pa.Table, name: str, replaces: Collection[str] = ()) -> bytes:
    """`encode` of rows that are a table already."""
    said = {"sweep.replaces": json.dumps(sorted(replaces)), "sweep.size": str(rows.nbytes)}
    said["sweep.compacted"] = datetime.now(UTC).isoformat()
    out = io.BytesIO()
    with pq.ParquetWriter(out, TABLES[name], compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(rows, row_group_size=_GROUP_ROWS)
        if replaces:
            writer.add_key_value_metadata(said)
    return out.getvalue()


def decode(name: str, data: Source) -> tuple[pa.Table, list[str]]:
    """The table of a file under our newest schema, and the names it replaces. Raises Unverified with the reason."""
    return decoder(name)(data)


def decoder(
    name: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None
) -> Callable[[Source], tuple[pa.Table, list[str]]]:
    """What decodes files, of some columns, in their order, and of the rows that a condition is true of. What neither
    needs is not read, nor verified."""
    schema = TABLES[name]
    wanted = schema if columns is None else _part(schema, columns)
    needed = wanted if where is None else _part(schema, dict.fromkeys([*wanted.names, *_asked(schema, where)]))

    def decoded(data: Source) -> tuple[pa.Table, list[str]]:
        with _verified(name, data) as file:
            read, replaced = _conform(file, needed), _replaced(file)
        return (read if where is None else read.filter(where).select(wanted.names)), replaced

    return decoded


@dataclass(frozen=True)
class Compacted:
    """What a file says of the names that it stands for, of the moment it was made and its size in memory."""

    replaces: list[str]
    made: datetime
    size: int


def about(name: str, data: Source) -> Compacted:
    """Of a compacted file, only the end of which is read. Raises Unverified where it is not one of its table."""
    with _verified(name, data) as file:
        said = file.metadata.metadata
        made = datetime.fromisoformat(said[b"sweep.compacted"].decode())
        return Compacted(_replaced(file), made, int(said[b"sweep.size"]))


@contextmanager
def _verified(name: str, data: Source) -> Iterator[pq.ParquetFile]:
    """The file; Unverified where it is not the table's, and where reading it turns out to fail."""
    try:
        source = pa.BufferReader(data) if isinstance(data, bytes) else data
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            if (file.metadata.metadata or {}).get(b"sweep.table") != name.encode():
                raise Unverified("foreign")
            if lacking := _lacking(file, NEEDED.get(name, ())):
                raise Unverified(f"foreign: rows without {lacking[0]}")
            yield file
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise Unverified(f"corrupt: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def _lacking(file: pq.ParquetFile, columns: Iterable[str]) -> list[str]:
    """The columns that not every row has a value in, as the file's end says."""
    at = {name: i for i, name in enumerate(file.schema.names)}
    groups = [group for i in range(file.metadata.num_row_groups) if (group := file.metadata.row_group(i)).num_rows]

    def full(column: str) -> bool:
        known = [group.column(at[column]).statistics for group in groups]
        return all(one is not None and one.null_count == 0 for one in known)

    return [column for column in columns if column not in at or not full(column)]


def _replaced(file: pq.ParquetFile) -> list[str]:
    return [str(gone) for gone in json.loads((file.metadata.metadata or {}).get(b"sweep.replaces", b"[]"))]


def _conform(file: pq.ParquetFile, schema: pa.Schema) -> pa.Table:
    """The columns of the schema, each of its type; null where the file lacks it."""
    rows, held = file.metadata.num_rows, set(file.schema_arrow.names)
    read = file.read(columns=[column for column in schema.names if column in held])
    columns = [
        read.column(field.name).cast(field.type) if field.name in held else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _part(schema: pa.Schema, columns: Iterable[str]) -> pa.Schema:
    return pa.schema([schema.field(column) for column in columns], metadata=schema.metadata)


def _asked(schema: pa.Schema, where: pc.Expression) -> list[str]:
    """The columns that a condition is about: those without which it cannot be asked."""

    def told(columns: pa.Schema) -> bool:
        try:
            empty(columns).filter(where)
        except pa.ArrowInvalid:
            return False
        return True

    return [name for i, name in enumerate(schema.names) if not told(schema.remove(i))]
