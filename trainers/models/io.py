"""Models as safetensors with the architecture as JSON in the metadata: a file is enough to rebuild its model."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from attacks.errors import InputError
from trainers.models import foreign
from trainers.models.catalogue import create


def dumps(model: nn.Module) -> bytes:
    """The file's bytes: parameters and buffers, on any device, and `model.architecture`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    architecture = json.dumps(model.architecture, sort_keys=True)
    return safetensors.save(tensors, metadata={"architecture": architecture})


def loads(data: bytes, *, device: torch.device | str = "cpu", origin: str = "model file") -> nn.Module:
    """The model of `dumps`, or of a checkpoint that trainers.models.foreign knows, in eval mode. InputError, naming
    `origin`, for a truncated, foreign or mismatching file."""
    if foreign.is_foreign(data):
        return foreign.loads(data, origin=origin).to(device)
    try:
        tensors = safetensors.load(data)
    except SafetensorError as error:
        raise InputError(f"expected a safetensors file, got a truncated or foreign one: {origin} ({error})") from None
    architecture = _architecture(data, origin)
    _check(_shapes(architecture, origin), {name: (t.shape, t.dtype) for name, t in tensors.items()}, origin)
    model = create(**architecture)
    model.load_state_dict(tensors)
    return model.to(device).eval()


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes beside `path` and renames, so that the file is never seen half written."""
    temporary = Path(f"{os.fspath(path)}.tmp-{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(dumps(model))
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write the model {os.fspath(path)}: {error.strerror}") from None


def load(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> nn.Module:
    """The model in a file, in eval mode; InputError for a file that is missing or not one that `loads` takes."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the model {os.fspath(path)}: {error.strerror}") from None
    return loads(data, device=device, origin=os.fspath(path))


def _architecture(data: bytes, origin: str) -> dict[str, Any]:
    """The architecture in the header: 8 bytes of length, then JSON; that it is well-formed has been seen by now."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    try:
        architecture = json.loads(header["__metadata__"]["architecture"])
    except (KeyError, ValueError):
        architecture = None
    if not isinstance(architecture, dict):
        raise InputError(f"expected a model with its architecture in the metadata, got a foreign file: {origin}")
    return architecture


Shapes = dict[str, tuple[torch.Size, torch.dtype]]


def _shapes(architecture: dict[str, Any], origin: str) -> Shapes:
    """What the architecture's tensors must look like; allocates nothing, whatever width a bad file asks for."""
    try:
        with torch.device("meta"):
            state: dict[str, Tensor] = create(**architecture).state_dict()
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"expected a known architecture, got {architecture}: {origin} ({reason})") from None
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def _check(expected: Shapes, got: Shapes, origin: str) -> None:
    for name in sorted(expected.keys() | got.keys()):
        if expected.get(name) != got.get(name):
            wanted, found = (_words(shapes.get(name)) for shapes in (expected, got))
            raise InputError(f"expected {name} to be {wanted} as the architecture says, got {found}: {origin}")


def _words(entry: tuple[torch.Size, torch.dtype] | None) -> str:
    return "absent" if entry is None else f"{tuple(entry[0])} {str(entry[1]).removeprefix('torch.')}"
