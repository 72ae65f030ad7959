"""Checkpoints of others, by name of their tensors: E-AT's PreActResNet-18, ResNet-18 and Wide ResNets as TRADES, MART,
GAIRAT and RobustBench keep them; and RobustBench's own zoo."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attacks.errors import InputError
from trainers.models.catalogue import create
from trainers.models.layers import ACTIVATIONS

State = dict[str, Tensor]
Sizes = dict[str, tuple[int, ...]]
INSIDE = ("state_dict", "model_state_dict", "model", "net", "ema_state_dict")
"""Under which keys a file may hold the weights."""
AROUND = ("module.", "model.", "net.", "backbone.")
"""What wrappers put before each name."""
UNUSED = ("sub_block1.", ".num_batches_tracked")
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
    except Exception as error:  # a damaged file makes torch raise most of Python's
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"expected a checkpoint of nothing but weights, got {origin} ({reason})") from None
    return converted(_weights(held, origin), origin, activation)


def converted(weights: Mapping[str, Tensor], origin: str, activation: str | None = None) -> nn.Module:
    """The model of these weights, in eval mode; see `loads`."""
    _expect_numbers(weights, origin)
    state = {name: tensor for name, tensor in weights.items() if not _is_left_out(name)}
    shape = _normalisation(weights, origin) | _shape(_sizes(state), origin)
    softplus = shape["name"] == "preact-resnet-18" and shape["mean"] is None
    shape["activation"] = activation or ("softplus" if softplus else "relu")
    _expect_all(_sizes(state), shape, origin)
    model = create(**shape)
    model.load_state_dict(state, strict=False)  # all but the counts of batches
    return model.eval()


def _expect_numbers(weights: Mapping[str, Tensor], origin: str) -> None:
    """Each weight is there in full: a tensor that repeats its few numbers by stride may state any size."""
    for name, tensor in weights.items():
        dense = tensor.layout == torch.strided and tensor.device.type != "meta"
        full = dense and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
        if not (full and (tensor.is_floating_point() or name.endswith(UNUSED[1]))):
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device.type}".replace("torch.", "")
            raise InputError(f"expected dense floating-point weights, got {name} ({kind}): {origin}")


def _expect_all(sizes: Sizes, shape: dict[str, Any], origin: str) -> None:
    """The architecture has these tensors and no others; allocates nothing, whatever width a bad file states."""
    try:
        with torch.device("meta"):
            own = _sizes(create(**shape).state_dict())
    except InputError as error:
        raise InputError(f"{error}: {origin}") from None
    for name in sorted(own.keys() | sizes.keys()):
        if not _is_left_out(name) and own.get(name) != sizes.get(name):
            wanted, got = own.get(name, "absent"), sizes.get(name, "none")
            raise InputError(f"expected {name} to be {wanted} in a {shape['name']}, got {got}: {origin}")


def _weights(held: Any, origin: str) -> State:
    """The state dict in what the file held, without what wrappers put before the names."""
    while isinstance(held, Mapping) and (inside := [k for k in INSIDE if k in held and isinstance(held[k], Mapping)]):
        held = held[inside[0]]
    if not isinstance(held, Mapping):
        raise InputError(f"expected weights by name, got {type(held).__name__}: {origin}")
    state = {str(name): tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}
    if not state:
        raise InputError(f"expected weights, by name or under {', '.join(INSIDE)}, got others: {origin}")
    while prefix := next((p for p in AROUND if sum(name.startswith(p) for name in state) > len(state) / 2), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_left_out(name: str) -> bool:
    return name in MEANS + STDS or name.startswith(UNUSED[0]) or name.endswith(UNUSED[1])


def _normalisation(weights: Mapping[str, Tensor], origin: str) -> dict[str, Any]:
    means, stds = ([name for name in names if name in weights] for names in (MEANS, STDS))
    if bool(means) != bool(stds):
        raise InputError(f"expected a mean and a std, or neither, got {(means + stds)[0]} alone: {origin}")
    if not means:
        return {"mean": None, "std": None}
    return {"mean": weights[means[0]].flatten().tolist(), "std": weights[stds[0]].flatten().tolist()}


def _shape(shapes: Sizes, origin: str) -> dict[str, Any]:
    """What `create` takes, from the tensors' names and shapes."""
    stem, head = shapes.get("conv1.weight", ()), shapes.get("linear.weight") or shapes.get("fc.weight", ())
    first = shapes.get("block1.layer.0.conv1.weight", ())
    blocks = sum(name.startswith("block1.layer.") and name.endswith(".conv1.weight") for name in shapes)
    name = None
    if blocks in (4, 5) and "fc.weight" in shapes and first:
        name, width = f"wide-resnet-{6 * blocks + 4}-10", first[0]
    elif "layer4.1.conv2.weight" in shapes and "layer1.2.conv1.weight" not in shapes and stem:
        name, width = ("preact-resnet-18" if "bn.weight" in shapes else "resnet-18"), stem[0]
    if name is None or len(stem) != 4 or len(head) != 2:
        known = "PreActResNet-18, ResNet-18, WideResNet-28-10 or -34-10"
        raise InputError(f"expected the weights of a {known}, got {len(shapes)} others: {origin}")
    return {"name": name, "width": width, "in_channels": stem[1], "num_classes": head[0]}


def _sizes(state: Mapping[str, Tensor]) -> Sizes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def load_robustbench(name: str, dataset: str = "cifar10") -> nn.Module:
    """A model of RobustBench's zoo, `NAME` or `NAME@THREAT` (default Linf), downloaded by the package robustbench, in
    our architecture; InputError where we have none that gives the same logits."""
    try:
        from robustbench.utils import load_model
    except ImportError as error:
        raise InputError(f"expected the package robustbench for robustbench:{name}: pip install robustbench") from error
    model, _, threat = name.partition("@")
    origin = f"robustbench:{name}"
    try:
        theirs = load_model(model_name=model, dataset=dataset, threat_model=threat or "Linf").eval()
    except Exception as error:  # of a name that it does not know, or of the network
        reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise InputError(f"the package robustbench cannot load {origin} for {dataset}: {reason}") from error
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    weights = _weights(theirs.state_dict(), origin)
    with torch.no_grad():
        wanted = theirs(x)
        for activation in ACTIVATIONS:
            ours = converted(weights, origin, activation)
            if torch.allclose(ours(x), wanted, rtol=1e-3, atol=1e-3):
                return ours
    raise InputError(f"expected a model that is as one of ours, got other logits than theirs: {origin}")
