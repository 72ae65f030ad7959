"""Random crop and flip: what comes out, how often, and that it depends on nothing but the image's seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trainers.augment import augment

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 8, 5)]


def pictures(n: int, shape: tuple[int, int, int]) -> Tensor:
    """No two pixels of a picture are alike in all channels, none is black."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(1, 256, (n, *shape), dtype=torch.uint8, generator=generator)


def every_crop(image: Tensor, padding: int) -> dict[tuple[int, int, bool], Tensor]:
    """(shift down, shift right, mirrored) -> the image that it makes: pad, cut out, mirror, one at a time."""
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding), dtype=np.uint8)
    padded[:, padding : padding + height, padding : padding + width] = image
    crops = {}
    for down in range(2 * padding + 1):
        for right in range(2 * padding + 1):
            crop = padded[:, down : down + height, right : right + width]
            crops[down - padding, right - padding, False] = torch.from_numpy(crop.copy())
            crops[down - padding, right - padding, True] = torch.from_numpy(crop[:, :, ::-1].copy())
    return crops


def what_was_drawn(image: Tensor, out: Tensor, padding: int) -> tuple[int, int, bool]:
    fits = [draw for draw, crop in every_crop(image, padding).items() if torch.equal(crop.float() / 255, out)]
    assert len(fits) == 1
    return fits[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", [0, 2, 4])
def test_every_image_is_one_of_the_crops(shape: tuple[int, int, int], padding: int) -> None:
    images, seeds = pictures(6, shape), torch.arange(6) * 7919
    out = augment(images, seeds, crop_padding=padding)
    assert out.dtype == torch.float32
    assert out.shape == images.shape
    for image, one in zip(images, out, strict=True):
        what_was_drawn(image, one, padding)


def test_all_crops_are_equally_likely_and_flips_a_coin() -> None:
    image = pictures(1, (1, 6, 6))
    n = 4500
    out = augment(image.expand(n, -1, -1, -1), torch.arange(n), crop_padding=1)
    crops = every_crop(image[0], 1)
    counts = [int((out == crop.float() / 255).flatten(1).all(1).sum()) for crop in crops.values()]
    assert sum(counts) == n
    expected = n / len(crops)
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    assert chi_square < 40.8  # 17 degrees of freedom: the 0.1 % point


def test_without_padding_and_flip_images_are_only_scaled() -> None:
    images = pictures(4, (3, 32, 32))
    assert torch.equal(augment(images, torch.arange(4), crop_padding=0, flip=False), images.float() / 255)


def test_without_flip_nothing_is_mirrored() -> None:
    images, seeds = pictures(40, (1, 9, 9)), torch.arange(40)
    out = augment(images, seeds, crop_padding=1, flip=False)
    assert not any(what_was_drawn(image, one, 1)[2] for image, one in zip(images, out, strict=True))


def test_the_crop_is_the_same_with_and_without_flip() -> None:
    images, seeds = pictures(20, (3, 10, 10)), torch.arange(20)
    straight, mixed = (augment(images, seeds, crop_padding=2, flip=flip) for flip in (False, True))
    mirrored = (mixed == straight.flip(3)).flatten(1).all(1)
    assert ((mixed == straight).flatten(1).all(1) ^ mirrored).all()
    assert 0 < int(mirrored.sum()) < 20


def test_an_image_comes_out_the_same_in_any_batch() -> None:
    images, seeds = pictures(9, (3, 32, 32)), torch.arange(9) - 4
    whole = augment(images, seeds)
    order = torch.tensor([5, 0, 8, 8])
    assert torch.equal(augment(images[order], seeds[order]), whole[order])
    assert torch.equal(torch.cat([augment(images[i : i + 1], seeds[i : i + 1]) for i in range(9)]), whole)


def test_seeds_decide_and_the_global_generator_does_not() -> None:
    images = pictures(16, (3, 32, 32))
    before = torch.get_rng_state()
    first = augment(images, torch.arange(16))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(augment(images, torch.arange(16)), first)
    assert not torch.equal(augment(images, torch.arange(16) + 100), first)


def test_images_are_left_as_they_were() -> None:
    images = pictures(4, (3, 32, 32))
    copy = images.clone()
    augment(images, torch.arange(4))
    assert torch.equal(images, copy)
