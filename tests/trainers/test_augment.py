from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from attacks.noise import derive
from trainers.augment import augment


def images(n: int, channels: int = 3, height: int = 6, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(1, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8)


def crops(image: Tensor, padding: int) -> Tensor:
    """Every crop of the zero-padded image and its mirror image, (2 (2 padding + 1)^2, C, H, W) in [0, 1]."""
    height, width = image.shape[1:]
    padded = pad(image, (padding,) * 4).float() / 255
    shifts = range(2 * padding + 1)
    found = torch.stack([padded[:, i : i + height, j : j + width] for i in shifts for j in shifts])
    return torch.cat([found, found.flip(3)])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.booleans(), st.sampled_from([1, 3]), st.integers(-(2**63), 2**63 - 1))
def test_each_result_is_a_crop_of_its_own_image(padding: int, flip: bool, channels: int, seed: int) -> None:
    batch = images(4, channels)
    result = augment(batch, derive(torch.arange(4), seed), crop_padding=padding, flip=flip)
    assert result.dtype == torch.float32
    assert result.shape == batch.shape
    for image, moved in zip(batch, result, strict=True):
        possible = crops(image, padding)
        if not flip:
            possible = possible[: len(possible) // 2]
        assert any(moved.equal(crop) for crop in possible)


def test_every_shift_and_both_mirrors_are_drawn_equally_often() -> None:
    n = 3600
    one = images(1)
    result = augment(one.expand(n, -1, -1, -1), torch.arange(n), crop_padding=1, flip=True)
    counts = (result[:, None] == crops(one[0], 1)[None]).flatten(2).all(2).sum(0)
    assert int(counts.sum()) == n
    assert 150 < int(counts.min()) <= int(counts.max()) < 250  # 200 +- 3.6 standard deviations


def test_nothing_asked_nothing_done() -> None:
    batch = images(3)
    assert augment(batch, torch.arange(3), crop_padding=0, flip=False).equal(batch.float() / 255)


def test_an_image_is_treated_the_same_in_any_batch_and_the_global_state_stays() -> None:
    batch, seeds = images(8), torch.arange(8) + 2**40
    state = torch.get_rng_state()
    whole = augment(batch, seeds)
    halves = torch.cat([augment(batch[i : i + 4], seeds[i : i + 4]) for i in (0, 4)])
    assert whole.equal(halves)
    assert torch.get_rng_state().equal(state)
    assert not augment(batch, seeds + 1).equal(whole)
