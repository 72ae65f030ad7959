"""Data sets from Parquet files in the layout of the Hugging Face hub: from a folder, or downloaded."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.errors import InputError
from trainers import data, sources
from trainers.data import Dataset
from trainers.sources import DataSource, Pool, decode

ROOT_VARIABLE = "SWEEP_DATA"


def load(
    name: str,
    *,
    data_root: str | os.PathLike[str] | None = None,
    train_size: int | None = None,
    eval_size: int | None = None,
    test_size: int | None = None,
    val_size: int | None = None,
    split_seed: int = 0,
) -> Dataset:
    """`trainers.data.load` with a reader of files: those under `data_root`, else under $SWEEP_DATA, else downloaded.

    InputError: an unknown name, missing, truncated or mislabelled files, sizes that are not there, no network.
    """

    def read(source: DataSource) -> Pool:
        return _pool(source, _folder(source, data_root) or _download(source))

    return data.load(
        name,
        read,
        train_size=train_size,
        eval_size=eval_size,
        test_size=test_size,
        val_size=val_size,
        split_seed=split_seed,
    )


def where(name: str, data_root: str | os.PathLike[str] | None = None) -> str:
    """Where `load` would take the images from, in words, without reading them; InputError where files are missing."""
    source = sources.source(name)
    if source.embedded:
        return "embedded (scikit-learn)"
    folder = _folder(source, data_root)
    if folder is None:
        return f"to download: {_repository(source)}"
    count = sum(len(_shards(folder, split)) for split in (source.train_split, source.test_split))
    return f"{folder}: {count} files"


def _folder(source: DataSource, data_root: str | os.PathLike[str] | None) -> Path | None:
    """The data set's folder under the root that is set; None where none is."""
    root = data_root or os.environ.get(ROOT_VARIABLE)
    if not root:
        return None
    folder = Path(root).expanduser() / source.name / source.folder
    if not folder.is_dir():
        raise InputError(
            f"expected {source.name} in the folder {folder}, got no such folder: "
            f"check --data-root or ${ROOT_VARIABLE}, or set neither to download"
        )
    return folder


def _repository(source: DataSource) -> str:
    if source.repository is None:
        raise InputError(f"{source.name} is on no hub: give --data-root or ${ROOT_VARIABLE}, or use digits-photo")
    return source.repository


def _download(source: DataSource) -> Path:
    """The folder in huggingface_hub's cache, which fetches what is not there yet."""
    from huggingface_hub import snapshot_download

    repository = _repository(source)
    patterns = [f"{source.folder}/{split}-*.parquet" for split in (source.train_split, source.test_split)]
    try:
        root = snapshot_download(repository, repo_type="dataset", allow_patterns=patterns)
    except Exception as error:  # the hub's, httpx's and the file system's, in versions that differ: no files either way
        raise InputError(
            f"cannot download {repository} ({_line(error)}): check the network, or give --data-root or ${ROOT_VARIABLE}"
        ) from error
    return Path(root) / source.folder


@dataclass(frozen=True)
class _Shard:
    """One file's rows: encoded images (None where the file has none) and labels."""

    path: Path
    encoded: list[bytes | None]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]


def _pool(source: DataSource, folder: Path) -> Pool:
    """All rows of both splits, train first, still encoded; pixels are decoded for the ids that are asked for."""
    train = [_read(source, path) for path in _shards(folder, source.train_split)]
    shards = train + [_read(source, path) for path in _shards(folder, source.test_split)]
    labels = torch.from_numpy(np.concatenate([shard.labels for shard in shards]))
    test = torch.arange(len(labels)) >= sum(len(shard.labels) for shard in train)
    rows = [(shard, row) for shard in shards for row in range(len(shard.labels))]

    def pixels(ids: Tensor, split: str) -> Tensor:
        channels, height, width = source.shape
        images = np.empty((len(ids), height, width, channels), np.uint8)
        for place, i in enumerate(ids.tolist()):
            shard, row = rows[i]
            encoded = shard.encoded[row]
            if encoded is None:
                raise InputError(f"expected a PNG or JPEG image at row {row} of {shard.path}, got none")
            images[place] = decode(encoded, source.shape, f"row {row} of {shard.path}")
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    return Pool(labels, test, pixels, _class_names(source, shards), str(folder))


_SHARD = re.compile(r"(?P<split>\w+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?\.parquet")


def _shards(folder: Path, split: str) -> list[Path]:
    """The files of a split in order; InputError unless there is each of 0..n-1 once."""
    found = [
        (m, path) for path in sorted(folder.iterdir()) if (m := _SHARD.fullmatch(path.name)) and m["split"] == split
    ]
    if not found:
        raise InputError(f"expected files {split}-00000-of-0000n.parquet in {folder}, got none: download it again")
    numbers = [int(match["number"]) for match, _ in found]
    counts = {int(match["count"]) for match, _ in found}
    if len(counts) > 1 or len(set(numbers)) < len(numbers):
        raise InputError(f"expected one set of {split} files in {folder}, got several: remove the old ones")
    missing = sorted(set(range(counts.pop())) - set(numbers))
    if missing:
        total = found[0][0]["count"]
        names = ", ".join(f"{split}-{number:05d}-of-{total}.parquet" for number in missing)
        raise InputError(f"expected {int(total)} {split} files in {folder}, got {len(found)}: missing {names}")
    return [path for _, path in found]


def _read(source: DataSource, path: Path) -> _Shard:
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(source, file.schema_arrow, path)
            table = file.read(columns=[f"{source.image_column}.bytes", source.label_column])
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"expected a readable Parquet file, got {path} ({_line(error)}): truncated? download it again"
        ) from None
    if not table.num_rows:
        raise InputError(f"expected images of {source.name}, got a file without rows: {path}")
    encoded = table[source.image_column].combine_chunks().field("bytes").to_pylist()
    return _Shard(path, encoded, _labels(source, table, path), _names_in(source, table.schema))


def _check_columns(source: DataSource, schema: pa.Schema, path: Path) -> None:
    for column in (source.image_column, source.label_column):
        if column not in schema.names:
            raise InputError(
                f"expected a column {column!r} for {source.name}, got {', '.join(schema.names)} in {path}: "
                "another data set's file?"
            )
    image, label = schema.field(source.image_column).type, schema.field(source.label_column).type
    encoded = pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if not encoded or image.field("bytes").type not in (pa.binary(), pa.large_binary()):
        raise InputError(
            f"expected encoded images (struct with bytes) in column {source.image_column!r} of {path}, got {image}"
        )
    if not pa.types.is_integer(label):
        raise InputError(f"expected whole numbers in column {source.label_column!r} of {path}, got {label}")


def _labels(source: DataSource, table: pa.Table, path: Path) -> NDArray[np.int64]:
    labels = table[source.label_column].to_pylist()
    wrong = [row for row, label in enumerate(labels) if label is None or not 0 <= label < source.num_classes]
    if wrong:
        raise InputError(
            f"expected labels 0..{source.num_classes - 1} for {source.name}, got {labels[wrong[0]]} in row {wrong[0]} "
            f"of {path} ({len(wrong)} such rows): another data set's file?"
        )
    return np.array(labels, np.int64)


def _names_in(source: DataSource, schema: pa.Schema) -> tuple[str, ...]:
    """The names of the classes in the file's `huggingface` metadata; none where it says nothing that we understand."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(map(str, info["info"]["features"][source.label_column]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def _class_names(source: DataSource, shards: list[_Shard]) -> tuple[str, ...]:
    """The names that all files agree on; numbers where no file has names."""
    first = shards[0]
    for shard in shards:
        if shard.class_names != first.class_names:
            raise InputError(
                f"expected the same class names in all files of {source.name}: {first.path} and {shard.path} differ"
            )
    if not first.class_names:
        return tuple(map(str, range(source.num_classes)))
    if len(first.class_names) != source.num_classes:
        raise InputError(
            f"expected {source.num_classes} class names for {source.name}, got {len(first.class_names)} in {first.path}"
        )
    return first.class_names


def _line(error: Exception) -> str:
    """The first line of what the error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
