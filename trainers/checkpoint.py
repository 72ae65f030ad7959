"""Checkpoints that can be trusted: weights as safetensors, the rest as JSON, checksums last."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from attacks.errors import InputError

log = logging.getLogger(__name__)
KEPT = 2


class Files(Protocol):
    """A folder somewhere: names are relative, with slashes; `write` is all or nothing."""

    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def names(self, prefix: str) -> list[str]: ...
    def delete(self, prefix: str) -> None: ...


@dataclass(frozen=True)
class Folder:
    """`Files` in a local folder."""

    path: Path

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + ".tmp")
        temporary.write_bytes(data)
        os.replace(temporary, target)

    def names(self, prefix: str) -> list[str]:
        found = (p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file())
        return sorted(name for name in found if name.startswith(prefix))

    def delete(self, prefix: str) -> None:
        target = self.path / prefix
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def write(files: Files, epoch: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Saves the state after `epoch` epochs. Keeps the checkpoint before it; drops older ones, and later ones, which did
    not verify or this one would not be written."""
    blobs = {
        "weights.safetensors": save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}),
        "state.json": json.dumps(state).encode(),
    }
    for name, blob in blobs.items():
        files.write(f"{epoch}/{name}", blob)
    sums = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
    files.write(f"{epoch}/manifest.json", json.dumps(sums).encode())
    kept = [known for known in _epochs(files) if known <= epoch][-KEPT:]
    for other in set(_epochs(files)).difference(kept):
        files.delete(str(other))


def clear(files: Files) -> None:
    """Drops every checkpoint, of work that is done."""
    for epoch in _epochs(files):
        files.delete(str(epoch))


def newest(files: Files) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint that verifies; what does not is named in a warning and passed over. What cannot be read for
    another reason than that it is missing is raised: falling back would train again what may be sound."""
    for epoch in reversed(_epochs(files)):
        try:
            return _read(files, epoch)
        except InputError:
            raise
        except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError) as e:
            log.warning("checkpoint of epoch %d does not verify (%s); falling back to the one before", epoch, e)
    return None


def _epochs(files: Files) -> list[int]:
    heads = {name.split("/")[0] for name in files.names("")}
    return sorted(int(head) for head in heads if head.isdigit())


def _read(files: Files, epoch: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    sums = json.loads(files.read(f"{epoch}/manifest.json"))
    blobs = {name: files.read(f"{epoch}/{name}") for name in sums}
    for name, blob in blobs.items():
        if hashlib.sha256(blob).hexdigest() != sums[name]:
            raise ValueError(f"{name} differs from its checksum")
    return load(blobs["weights.safetensors"]), json.loads(blobs["state.json"])
