"""The two data sets that need no download: scikit-learn's handwritten digits, plain and over photographs.

Source: Alpaydin and Kaynak 1998, the UCI test set of 1,797 digits as 8x8 grey values, as scikit-learn ships it.
All arithmetic is in integers and all choices are hashes of the image's id, so that every machine makes the same images.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.noise import derive, uniform
from trainers.sources import Pool
from trainers.splits import stratified

NUM_TEST = 360
SIZE = 32
_TILES = (6, 8)  # each photograph is cut into 6 x 8 tiles of at least 71 x 80 pixels
_SPLIT_OF_TILE = {"test": (0,), "val": (1,), "train": (2, 3, 4)}  # (3 row + column + photograph) mod 5 of its tiles
_TEST_PURPOSE, _PATCH_PURPOSE = 1, 2


def pool(name: str) -> Pool:
    """digits or digits-photo; the same 360 digits are the test images of both. Takes about a second the first time."""
    images, labels = _digits()
    ids = torch.arange(len(labels))
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[stratified(ids, labels, NUM_TEST, seed=0, purpose=_TEST_PURPOSE)] = True
    grey = torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1)

    def plain(ids: Tensor, split: str) -> Tensor:
        return grey[ids].contiguous()

    def over_photographs(ids: Tensor, split: str) -> Tensor:
        return (patches(ids, split).short() - grey[ids].short()).abs().byte()

    pixels = {"digits": plain, "digits-photo": over_photographs}[name]
    return Pool(labels, test, pixels, tuple("0123456789"), f"scikit-learn ({name})")


def patches(ids: Tensor, split: str) -> Tensor:
    """One patch of a photograph for each id, uint8 (n, 3, 32, 32), from the tiles of this split only.

    MNIST-M (Ganin and Lempitsky 2015) is |patch - digit|. There the patches come from BSDS500; here from the two
    photographs that scikit-learn ships. The tiles of train, val and test share no pixel.
    """
    photographs = _photographs()
    tiles = _tiles(split)
    u = uniform(derive(ids, _PATCH_PURPOSE), 0, (3,)).double().numpy()
    photograph, top, left, height, width = tiles[(u[:, 0] * len(tiles)).astype(np.int64)].T
    rows = top + (u[:, 1] * (height - SIZE + 1)).astype(np.int64)
    columns = left + (u[:, 2] * (width - SIZE + 1)).astype(np.int64)
    span = np.arange(SIZE)
    at = (photograph[:, None, None], rows[:, None, None] + span[:, None], columns[:, None, None] + span)
    return torch.from_numpy(photographs[at]).permute(0, 3, 1, 2).contiguous()


@cache
def _digits() -> tuple[NDArray[np.uint8], Tensor]:
    """The digits enlarged bilinearly to 32x32, uint8 (1797, 32, 32), and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = digits.images.astype(np.int64)
    eighths = _enlargement()
    large = eighths @ small @ eighths.T  # in 64ths of the 16 grey levels
    return ((large * 255 + 512) // 1024).astype(np.uint8), torch.from_numpy(digits.target.astype(np.int64))


def _enlargement() -> NDArray[np.int64]:
    """The (32, 8) matrix of bilinear interpolation between pixel centres, in eighths (exact)."""
    centres = (np.arange(SIZE) + 0.5) / 4 - 0.5
    columns = [np.interp(centres, np.arange(8), unit) for unit in np.eye(8)]
    return (np.stack(columns, axis=1) * 8).astype(np.int64)


@cache
def _photographs() -> NDArray[np.uint8]:
    """scikit-learn's two photographs, a temple and a flower, (2, 427, 640, 3)."""
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images).astype(np.uint8)


def _tiles(split: str) -> NDArray[np.int64]:
    """(n, 5): photograph, top, left, height, width of each tile that belongs to the split."""
    photographs, height, width, _ = _photographs().shape
    rows, columns = (np.linspace(0, n, parts + 1).astype(int) for n, parts in zip((height, width), _TILES, strict=True))
    return np.array(
        [
            (photograph, rows[i], columns[j], rows[i + 1] - rows[i], columns[j + 1] - columns[j])
            for photograph in range(photographs)
            for i in range(_TILES[0])
            for j in range(_TILES[1])
            if (3 * i + j + photograph) % 5 in _SPLIT_OF_TILE[split]
        ]
    )
