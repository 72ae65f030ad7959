"""The data sets by name: where each lies, what its images look like, and how encoded images become pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from attacks.errors import InputError, unknown


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One data set: Parquet files in the layout of the Hugging Face hub, or (`embedded`) images that we can make.

    Files: <root>/<name>/<folder>/<split>-<k>-of-<n>.parquet. `flip` and `crop_padding` say what augmentation leaves
    the class as it was: a mirrored digit is no digit. `val_fraction` of the training images are cut off for validation.
    """

    name: str
    num_classes: int
    shape: tuple[int, int, int] = (3, 32, 32)
    repository: str | None = None
    folder: str = ""
    image_column: str = "img"
    label_column: str = "label"
    train_split: str = "train"
    test_split: str = "test"
    flip: bool = False
    crop_padding: int = 4
    val_fraction: float = 0.1
    embedded: bool = False


def _cifar10(name: str, repository: str | None) -> DataSource:
    return DataSource(name=name, num_classes=10, repository=repository, folder="plain_text", flip=True)


def _cifar100(name: str, repository: str | None) -> DataSource:
    return DataSource(
        name=name, num_classes=100, repository=repository, folder="cifar100", label_column="fine_label", flip=True
    )


SOURCES: dict[str, DataSource] = {
    source.name: source
    for source in (
        DataSource(name="digits", num_classes=10, embedded=True, val_fraction=0.2),
        DataSource(name="digits-photo", num_classes=10, embedded=True, val_fraction=0.2),
        _cifar10("cifar10", "uoft-cs/cifar10"),
        _cifar10("cifar10-small", None),
        _cifar100("cifar100", "uoft-cs/cifar100"),
        _cifar100("cifar100-small", None),
        DataSource(
            name="svhn",
            num_classes=10,
            repository="ufldl-stanford/svhn",
            folder="cropped_digits",
            image_column="image",
        ),
        DataSource(
            name="mnist",
            num_classes=10,
            shape=(1, 28, 28),
            repository="ylecun/mnist",
            folder="mnist",
            image_column="image",
            crop_padding=0,
        ),
        DataSource(
            name="tiny-imagenet",
            num_classes=200,
            shape=(3, 64, 64),
            repository="zh-plus/tiny-imagenet",
            folder="data",
            image_column="image",
            test_split="valid",  # the hub's test labels are not public: the authors report on the validation images
            flip=True,
            crop_padding=8,
        ),
    )
}


def source(name: str) -> DataSource:
    """The data set called `name`; InputError with the nearest name where there is none."""
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    return SOURCES[name]


@dataclass(frozen=True)
class Pool:
    """All images of a data set before they are split; an image's id is its place here.

    labels: int64 (N,) in 0..K-1. test: bool (N,), the published test images. pixels(ids, split) gives uint8
    (n, C, H, W); split is "train", "val" or "test" (only digits-photo looks at it). `origin` is for people to read.
    """

    labels: Tensor
    test: Tensor
    pixels: Callable[[Tensor, str], Tensor]
    class_names: tuple[str, ...]
    origin: str


# What Pillow raises for bytes that are no image, for a broken one, and for one of absurd size.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def decode(encoded: bytes, shape: tuple[int, int, int], where: str) -> NDArray[np.uint8]:
    """The pixels of one PNG or JPEG, (H, W, C) for `shape` (C, H, W); grey images are repeated to three channels.

    InputError, naming `where`, for what is no image, is cut off, or has another size or colours.
    """
    channels, height, width = shape
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
            _check(image, shape, where)
            coloured = image if image.mode == "RGB" or channels == 1 else image.convert("RGB")
            return np.asarray(coloured).reshape(height, width, channels)
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(f"expected a PNG or JPEG image at {where}, got bytes that do not decode: {error}") from None


def _check(image: Image.Image, shape: tuple[int, int, int], where: str) -> None:
    channels, height, width = shape
    if image.size != (width, height):
        got = f"{image.size[0]}x{image.size[1]}"
        raise InputError(f"expected images of {width}x{height} pixels, got {got} at {where}: another data set's file?")
    modes = ("RGB", "L", "P") if channels == 3 else ("L",)
    if image.mode not in modes:
        raise InputError(f"expected {channels}-channel images, got mode {image.mode} at {where}: another data set's?")
