"""AlexNet's features, from a file of weights that the user has: nothing is downloaded."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.errors import InputError

_CHANNELS = (3, 64, 192, 384, 256, 256)
_PLACES = (0, 3, 6, 8, 10)  # of the convolutions in torchvision's `features`
_POOLED = (0, 1)  # the convolutions whose output is pooled before the next
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class AlexNetFeatures(nn.Module):
    """The five convolutions of AlexNet after ReLU, of images in [0, 1], normalised inside as ImageNet is.

    small: the variant for CIFAR of perceptual-advex@65c1bc3 (kernels of 3x3, the first with stride 2, pools of 2x2),
    else torchvision's (11x11 with stride 4, 5x5 and 3x3, pools of 3x3 with stride 2). Images of one channel are taken
    as grey, in all three.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, small: bool = False) -> None:
        super().__init__()
        shapes = [(3, 2, 1)] + [(3, 1, 1)] * 4 if small else [(11, 4, 2), (5, 1, 2)] + [(3, 1, 1)] * 3
        self.pool = (2, 2) if small else (3, 2)
        self.least = 7 if small else 31
        self.layers = nn.ModuleList(
            nn.Conv2d(_CHANNELS[i], _CHANNELS[i + 1], kernel, stride=stride, padding=padding)
            for i, (kernel, stride, padding) in enumerate(shapes)
        )
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(-1, 1, 1), persistent=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Self:
        """From a .safetensors, or a .pt or .pth (weights only: no code in it is run), with torchvision's names
        features.0.weight to features.10.bias; other entries are passed over. The first kernel's size tells which.
        InputError, one line, for a file that is missing, foreign or of other shapes."""
        tensors = _read(path)
        first = tensors.get("features.0.weight")
        small = isinstance(first, Tensor) and first.shape[-1] == 3
        with torch.random.fork_rng(devices=[]):
            net = cls(small)
        names = [f"features.{place}.{part}" for place in _PLACES for part in ("weight", "bias")]
        for name, own in zip(names, net.state_dict().values(), strict=True):
            own.copy_(_checked(tensors, name, own, path))
        return net.requires_grad_(False).to(device).eval()

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Five activations (B, C_l, H_l, W_l)."""
        if x.shape[1] not in (1, 3) or min(x.shape[2:]) < self.least:
            rule = f"images of 1 or 3 channels and at least {self.least}x{self.least}"
            raise InputError(f"expected {rule} for this AlexNet, got {tuple(x.shape[1:])} (attacks.ppgd)")
        out, shown = (x - self.mean) / self.std, []
        for place, layer in enumerate(self.layers):
            out = F.relu(layer(out))
            shown.append(out)
            if place in _POOLED:
                out = F.max_pool2d(out, *self.pool)
        return tuple(shown)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.features(x)


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Name -> tensor; a training checkpoint's are under "model" or "state_dict"."""
    where = os.fspath(path)
    try:
        if where.endswith((".pt", ".pth")):
            with warnings.catch_warnings(action="ignore"):  # of a pickle that is not torch's
                found = torch.load(path, map_location="cpu", weights_only=True)
        else:
            found = load_safetensors(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"cannot read AlexNet's weights {where}: {error.strerror or error}") from None
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"expected AlexNet's weights as .safetensors, .pt or .pth: {where} ({reason})") from None
    for key in ("model", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise InputError(f"expected AlexNet's weights by name, got a {type(found).__name__}: {where}")
    return dict(found)


def _checked(tensors: Mapping[str, Any], name: str, wanted: Tensor, path: str | os.PathLike[str]) -> Tensor:
    got = tensors.get(name)
    if isinstance(got, Tensor) and got.shape == wanted.shape and got.is_floating_point():
        return got
    found = f"{tuple(got.shape)} {got.dtype}" if isinstance(got, Tensor) else "nothing of that name"
    raise InputError(f"expected {name} of shape {tuple(wanted.shape)}, got {found}: {os.fspath(path)}")
