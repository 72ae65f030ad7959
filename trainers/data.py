"""Images with labels and ids, and the data set that a sweep works on: train, validation and test.

Images live as one uint8 tensor, on the training device if it has room: no loader, no copy per step. Files are read by
whoever can (`sweep.datasets` reads Parquet) and come in as a `Pool`; everything after that happens here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attacks.errors import InputError
from trainers import embedded
from trainers.sources import DataSource, Pool, source
from trainers.splits import stratified

_VAL_PURPOSE, _SUBSET_PURPOSE = 11, 12


@dataclass(frozen=True, eq=False)
class ImageSet:
    """images uint8 (N, C, H, W); labels int64 (N,); ids int64 (N,), unique in the data set and kept by subsets."""

    images: Tensor
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> ImageSet:
        return ImageSet(self.images.to(device), self.labels.to(device), self.ids.to(device))

    def subset(self, indices: Tensor | slice) -> ImageSet:
        """The images at these places (not ids), in this order."""
        return ImageSet(self.images[indices], self.labels[indices], self.ids[indices])

    def floats(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """The images at these places as float32 in [0, 1]."""
        return self.images[indices].float() / 255

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over shape, ids, labels and pixels in order. 0.1-0.5 s for CIFAR-10."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for tensor in (self.ids, self.labels, self.images):
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, split by `split_seed`; `source` says whence the images came."""

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    test: ImageSet
    split_seed: int
    source: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits: the same if and only if train, val and test hold the same images, labels and ids in order."""
        parts = (self.train.fingerprint, self.val.fingerprint, self.test.fingerprint)
        return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]


def load(
    name: str,
    read: Callable[[DataSource], Pool] | None = None,
    *,
    train_size: int | None = None,
    eval_size: int | None = None,
    test_size: int | None = None,
    val_size: int | None = None,
    split_seed: int = 0,
) -> Dataset:
    """The data set called `name`; `read` fetches those that are not embedded.

    First `val_size` images (None: the data set's own fraction) are cut from train by `split_seed`; then train is cut to
    `train_size` images, val and test to `eval_size` each, or test to `test_size` (None: all). Every choice is
    class-stratified. Only the images chosen are decoded. InputError: an unknown name, sizes that are not there.
    """
    about = source(name)
    if about.embedded:
        pool = embedded.pool(name)
    elif read is None:
        raise InputError(f"{name} is read from files: load it with sweep.datasets.load, or use digits or digits-photo")
    else:
        pool = read(about)
    sizes = {"train_size": train_size, "eval_size": eval_size, "test_size": test_size, "val_size": val_size}
    ids = _split(about, pool, sizes, split_seed)
    train, val, test = (ImageSet(pool.pixels(ids[split], split), pool.labels[ids[split]], ids[split]) for split in ids)
    return Dataset(
        name=name,
        num_classes=about.num_classes,
        class_names=pool.class_names,
        train=train,
        val=val,
        test=test,
        split_seed=split_seed,
        source=pool.origin,
    )


def _split(about: DataSource, pool: Pool, sizes: dict[str, int | None], seed: int) -> dict[str, Tensor]:
    """The ids of train, val and test, in this order."""
    ids = torch.arange(len(pool.labels))
    rest, test = ids[~pool.test], ids[pool.test]
    size = round(about.val_fraction * len(rest)) if sizes["val_size"] is None else sizes["val_size"]
    if not 0 < size < len(rest):
        raise InputError(f"expected 0 < val_size < {len(rest)} (the training images of {about.name}), got {size}")
    val = stratified(rest, pool.labels[rest], size, seed=seed, purpose=_VAL_PURPOSE)
    train = rest[~torch.isin(rest, val)]

    def cut(ids: Tensor, option: str, split: str) -> Tensor:
        wanted = sizes[option]
        if wanted is None:
            return ids
        if not 0 < wanted <= len(ids):
            there = f"the {split} images of {about.name}"
            raise InputError(f"expected 0 < {option} <= {len(ids)} ({there}), got {wanted}: leave it out for all")
        return stratified(ids, pool.labels[ids], wanted, seed=seed, purpose=_SUBSET_PURPOSE)

    return {
        "train": cut(train, "train_size", "training"),
        "val": cut(val, "eval_size", "validation"),
        "test": cut(test, "eval_size" if sizes["test_size"] is None else "test_size", "test"),
    }
