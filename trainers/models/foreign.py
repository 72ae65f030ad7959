"""Checkpoints of others, by name of their tensors: E-AT's PreActResNet-18, ResNet-18 and Wide ResNets as TRADES, MART,
GAIRAT and RobustBench keep them; and RobustBench's own zoo."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attacks.errors import InputError
from trainers.models.catalogue import create
from trainers.models.layers import ACTIVATIONS

State = dict[str, Tensor]
INSIDE = ("state_dict", "model_state_dict", "model", "net", "ema_state_dict")
"""Under which keys a file may hold the weights."""
AROUND = ("module.", "model.", "net.", "backbone.")
"""What wrappers put before each name."""
UNUSED = ("sub_block1.", "normalize.", "num_batches_tracked")
"""TRADES' Wide ResNet keeps a group of blocks that its forward leaves out."""
MEANS, STDS = ("mean", "mu", "normalize.mean"), ("std", "sigma", "normalize.std")


def is_foreign(data: bytes) -> bool:
    """Whether the file is one of torch.save, a zip archive or a pickle, and not safetensors, whose JSON begins at 8."""
    return data[8:9] != b"{" and (data[:4] == b"PK\3\4" or data[:1] == b"\x80")


def loads(data: bytes, *, origin: str = "checkpoint", activation: str | None = None) -> nn.Module:
    """The model of a .pt or .pth file, in eval mode, under our name for its architecture. Only tensors are unpickled.

    The weights do not tell the activation: None means softplus for a PreActResNet without normalisation, as E-AT's, and
    relu for all others. InputError, naming `origin`, for a file that holds more than weights, or none that we know.
    """
    try:
        with warnings.catch_warnings():  # of other pickle protocols
            warnings.simplefilter("ignore", UserWarning)
            held = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"expected a checkpoint of nothing but weights, got {origin} ({reason})") from None
    return converted(_weights(held, origin), origin, activation)


def converted(weights: Mapping[str, Tensor], origin: str, activation: str | None = None) -> nn.Module:
    """The model of these weights, in eval mode; see `loads`."""
    state = {name: tensor for name, tensor in weights.items() if not _is_left_out(name)}
    shape = _normalisation(weights) | _shape({name: tuple(t.shape) for name, t in state.items()}, origin)
    softplus = shape["name"] == "preact-resnet-18" and shape["mean"] is None
    model = create(**shape, activation=activation or ("softplus" if softplus else "relu"))
    own = {name: tensor for name, tensor in model.state_dict().items() if not _is_left_out(name)}
    wrong = [name for name in sorted(own.keys() | state.keys()) if _size(own.get(name)) != _size(state.get(name))]
    if wrong:
        wanted, got = _size(own.get(wrong[0])), _size(state.get(wrong[0]))
        raise InputError(
            f"expected {wrong[0]} to be {wanted or 'absent'} in a {shape['name']}, got {got or 'none'}: {origin}"
        )
    model.load_state_dict(state, strict=False)  # all but the counts of batches
    return model.eval()


def _weights(held: Any, origin: str) -> State:
    """The state dict in what the file held, without what wrappers put before the names."""
    while isinstance(held, Mapping) and not any(isinstance(value, Tensor) for value in held.values()):
        inside = next((key for key in INSIDE if key in held), None)
        if inside is None:
            raise InputError(f"expected weights, by name or under {', '.join(INSIDE)}, got others: {origin}")
        held = held[inside]
    if not isinstance(held, Mapping):
        raise InputError(f"expected weights by name, got {type(held).__name__}: {origin}")
    state = {str(name): tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}
    while prefix := next((p for p in AROUND if sum(name.startswith(p) for name in state) > len(state) / 2), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_left_out(name: str) -> bool:
    return name in MEANS + STDS or name.startswith(UNUSED[:2]) or name.endswith(UNUSED[2])


def _normalisation(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    found = {
        kind: next((weights[name].flatten().tolist() for name in names if name in weights), None)
        for kind, names in (("mean", MEANS), ("std", STDS))
    }
    return found if all(found.values()) else {"mean": None, "std": None}


def _shape(shapes: Mapping[str, tuple[int, ...]], origin: str) -> dict[str, Any]:
    """What `create` takes, from the tensors' names and shapes."""
    stem, head = shapes.get("conv1.weight"), shapes.get("linear.weight") or shapes.get("fc.weight")
    blocks = sum(name.startswith("block1.layer.") and name.endswith(".conv1.weight") for name in shapes)
    name = None
    if blocks in (4, 5) and "fc.weight" in shapes:
        name, width = f"wide-resnet-{6 * blocks + 4}-10", shapes["block1.layer.0.conv1.weight"][0]
    elif stem and "layer4.1.conv2.weight" in shapes and "layer1.2.conv1.weight" not in shapes:
        name, width = ("preact-resnet-18" if "bn.weight" in shapes else "resnet-18"), stem[0]
    if name is None or stem is None or head is None:
        known = "PreActResNet-18, ResNet-18, WideResNet-28-10 or -34-10"
        raise InputError(f"expected the weights of a {known}, got {len(shapes)} others: {origin}")
    return {"name": name, "width": width, "in_channels": stem[1], "num_classes": head[0]}


def _size(tensor: Tensor | None) -> tuple[int, ...]:
    return () if tensor is None else tuple(tensor.shape)


def load_robustbench(name: str, dataset: str = "cifar10") -> nn.Module:
    """A model of RobustBench's zoo, `NAME` or `NAME@THREAT` (default Linf), downloaded by the package robustbench, in
    our architecture; InputError where we have none that gives the same logits."""
    try:
        from robustbench.utils import load_model
    except ImportError as error:
        raise InputError(f"expected the package robustbench for robustbench:{name}: pip install robustbench") from error
    model, _, threat = name.partition("@")
    origin = f"robustbench:{name}"
    theirs = load_model(model_name=model, dataset=dataset, threat_model=threat or "Linf").eval()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    weights = _weights(theirs.state_dict(), origin)
    with torch.no_grad():
        wanted = theirs(x)
        for activation in ACTIVATIONS:
            ours = converted(weights, origin, activation)
            if torch.allclose(ours(x), wanted, rtol=1e-3, atol=1e-3):
                return ours
    raise InputError(f"expected a model that is as one of ours, got other logits than theirs: {origin}")
