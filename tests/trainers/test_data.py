"""The embedded data sets, the splits of any data set, and fingerprints."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from attacks.errors import InputError
from trainers import data, embedded
from trainers.data import Dataset, ImageSet
from trainers.sources import SOURCES, DataSource, Pool, decode, source
from trainers.splits import stratified

EMBEDDED = ["digits", "digits-photo"]
SPLITS = ["train", "val", "test"]


def counts(images: ImageSet) -> list[int]:
    return torch.bincount(images.labels).tolist()


def ids(images: Dataset) -> list[set[int]]:
    return [set(getattr(images, split).ids.tolist()) for split in SPLITS]


@pytest.mark.parametrize(
    ("name", "fingerprints"),
    [
        ("digits", ["55b6069e56c8623b", "050d6ee4b61cb1c8", "b6799c87ab339ffc", "38c216f65339a4f5"]),
        ("digits-photo", ["91bb80502088573e", "b2290f929c591d5a", "354b1fea14e7bf0f", "2d4ebf10483c80a5"]),
    ],
)
def test_embedded_images_are_the_same_everywhere(name: str, fingerprints: list[str]) -> None:
    images = data.load(name)
    assert [getattr(images, split).fingerprint for split in SPLITS] + [images.fingerprint] == fingerprints


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_are_whole_stratified_and_disjoint(name: str) -> None:
    images = data.load(name)
    assert [len(getattr(images, split)) for split in SPLITS] == [1150, 287, 360]
    assert images.shape == (3, 32, 32)
    assert images.num_classes == len(images.class_names) == 10
    train, val, test = ids(images)
    assert train | val | test == set(range(1797))
    for split in SPLITS:
        part = getattr(images, split)
        assert part.images.dtype == torch.uint8
        assert part.images.is_contiguous()
        assert max(counts(part)) - min(counts(part)) <= 0.06 * len(part) / 10 + 1


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_split_seed_moves_val_and_leaves_test(name: str) -> None:
    first, second = data.load(name, split_seed=0), data.load(name, split_seed=1)
    assert first.test.fingerprint == second.test.fingerprint
    assert ids(first)[1] != ids(second)[1]
    assert first.fingerprint != second.fingerprint
    assert data.load(name, split_seed=1).fingerprint == second.fingerprint
    assert second.split_seed == 1


def test_digits_are_scikit_learns_enlarged() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
    large = torch.nn.functional.interpolate(small, (32, 32), mode="bilinear", align_corners=False)
    test = data.load("digits").test
    assert torch.equal(test.labels, torch.from_numpy(digits.target)[test.ids])
    assert float((test.images - large[test.ids]).abs().max()) <= 0.5


def test_digits_photo_is_the_difference_of_patch_and_digit() -> None:
    plain, photo = data.load("digits"), data.load("digits-photo")
    for split in SPLITS:
        one, other = getattr(plain, split), getattr(photo, split)
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.labels, other.labels)
        patches = embedded.patches(one.ids, split)
        assert torch.equal(other.images.int(), (patches.int() - one.images.int()).abs())
        assert float(patches.float().std((1, 2, 3)).mean()) > 10


def numbered_pixels() -> NDArray[np.uint8]:
    """Two photographs in which no two pixels are alike: each says in its three bytes where it is."""
    where = np.arange(2 * 427 * 640, dtype=np.uint32).reshape(2, 427, 640)
    return np.stack([where & 255, where >> 8 & 255, where >> 16], axis=-1).astype(np.uint8)


def test_the_splits_share_no_pixel_of_the_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded._photographs().shape == numbered_pixels().shape
    monkeypatch.setattr(embedded, "_photographs", numbered_pixels)
    used = []
    for split in SPLITS:
        patches = embedded.patches(torch.arange(6000), split).long()
        where = patches[:, 0] + 256 * patches[:, 1] + 65536 * patches[:, 2]
        assert (where[:, 0, 0, None] + torch.arange(32) == where[:, 0]).all()
        assert (where[:, 31, 31] - where[:, 0, 0] == 31 * 640 + 31).all()
        used.append(set(where.flatten().tolist()))
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert not used[one] & used[other]
    shares = [len(pixels) / numbered_pixels()[..., 0].size for pixels in used]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.04)


def test_a_patch_depends_on_the_image_and_its_split_alone() -> None:
    whole = embedded.patches(torch.arange(50), "train")
    assert torch.equal(embedded.patches(torch.tensor([31, 4]), "train"), whole[[31, 4]])
    assert len({bytes(patch.numpy().tobytes()) for patch in whole}) == 50


@pytest.mark.parametrize("name", EMBEDDED)
def test_smaller_parts_are_parts_of_the_whole(name: str) -> None:
    whole, part = data.load(name), data.load(name, train_size=200, eval_size=50)
    assert [len(getattr(part, split)) for split in SPLITS] == [200, 50, 50]
    for split in SPLITS:
        large, small = getattr(whole, split), getattr(part, split)
        share = len(small) / len(large)
        assert all(abs(n - share * of) < 1 for n, of in zip(counts(small), counts(large), strict=True))
        places = torch.tensor([large.ids.tolist().index(i) for i in small.ids.tolist()])
        assert large.subset(places).fingerprint == small.fingerprint
        assert (places.diff() > 0).all()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train_size": 1151}, "0 < train_size <= 1150 .*got 1151"),
        ({"train_size": 0}, "train_size .*got 0"),
        ({"eval_size": 300}, "0 < eval_size <= 287 .*validation images of digits.*got 300"),
        ({"eval_size": -1}, "eval_size .*got -1"),
        ({"eval_size": 361, "val_size": 400}, "0 < eval_size <= 360 .*test images of digits.*got 361"),
        ({"val_size": 1437}, "0 < val_size < 1437 .*got 1437"),
        ({"val_size": 0}, "val_size .*got 0"),
    ],
)
def test_sizes_that_are_not_there(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        data.load("digits", **sizes)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_names() -> None:
    with pytest.raises(InputError, match="unknown data set 'cifar-10': did you mean 'cifar10'"):
        data.load("cifar-10")
    with pytest.raises(InputError, match="mnist is read from files"):
        data.load("mnist")
    assert set(EMBEDDED) < set(SOURCES)
    assert [source(name).name for name in SOURCES] == list(SOURCES)


def test_a_mirrored_digit_is_no_digit() -> None:
    assert not any(source(name).flip for name in [*EMBEDDED, "mnist", "svhn"])
    assert all(source(name).flip for name in ["cifar10", "cifar100", "tiny-imagenet"])


def test_only_the_images_that_are_kept_are_decoded() -> None:
    decoded: dict[str, list[int]] = {}
    labels = torch.arange(1000) % 10

    def pixels(rows: Tensor, split: str) -> Tensor:
        decoded[split] = rows.tolist()
        return rows.view(-1, 1, 1, 1).expand(-1, 3, 32, 32).to(torch.uint8)

    def read(about: DataSource) -> Pool:
        return Pool(labels, torch.arange(1000) >= 800, pixels, tuple("abcdefghij"), "made up")

    images = data.load("cifar10", read, train_size=30, eval_size=20)
    assert {split: len(rows) for split, rows in decoded.items()} == {"train": 30, "val": 20, "test": 20}
    assert decoded == {split: getattr(images, split).ids.tolist() for split in SPLITS}
    assert torch.equal(images.train.images[:, 0, 0, 0], images.train.ids.to(torch.uint8))
    assert min(decoded["test"]) >= 800 > max(decoded["train"] + decoded["val"])


some_labels = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@given(some_labels, st.data(), st.integers(0, 2**40), st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_a_stratified_choice(classes: list[int], draw: st.DataObject, seed: int, purpose: int) -> None:
    labels = torch.tensor(classes)
    numbers = torch.arange(len(classes)) * 3 + 5
    size = draw.draw(st.integers(0, len(classes)))
    chosen = stratified(numbers, labels, size, seed=seed, purpose=purpose)
    assert len(chosen) == size
    assert (chosen.diff() > 0).all()
    assert torch.isin(chosen, numbers).all()
    taken = torch.bincount(labels[torch.isin(numbers, chosen)], minlength=5)
    assert ((taken - torch.bincount(labels, minlength=5) * size / len(classes)).abs() < 1).all()


def test_every_image_is_chosen_as_often_as_another() -> None:
    numbers, labels = torch.arange(40), torch.arange(40) % 4
    times = torch.zeros(40)
    for seed in range(600):
        times[stratified(numbers, labels, 12, seed=seed, purpose=1)] += 1
    chi_square = float(((times - 180) ** 2).sum()) / (600 * 0.3 * 0.7)
    assert chi_square < 73.4  # 40 images, 3 of 10 in each of 4 classes: the 0.1 % point for 40 degrees of freedom


def a_set(n: int = 6) -> ImageSet:
    pixels = torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return ImageSet(pixels, torch.arange(n) % 3, torch.arange(n) + 100)


def test_parts_of_a_set() -> None:
    images = a_set()
    part = images.subset(torch.tensor([4, 1]))
    assert len(part) == 2
    assert part.ids.tolist() == [104, 101]
    assert part.labels.tolist() == [1, 1]
    assert torch.equal(part.floats(torch.tensor([1])), images.images[1:2].float() / 255)
    assert float(images.floats().max()) <= 1
    assert torch.equal(images.to("cpu").images, images.images)


def test_the_fingerprint_sees_order_ids_labels_and_pixels() -> None:
    images = a_set()
    pixels = images.images.clone()
    pixels[3, 2, 1, 0] ^= 1
    others = [
        images.subset(torch.tensor([1, 0, 2, 3, 4, 5])),
        images.subset(torch.arange(5)),
        ImageSet(images.images, images.labels, images.ids + 1),
        ImageSet(images.images, images.labels + 1, images.ids),
        ImageSet(pixels, images.labels, images.ids),
        ImageSet(images.images.reshape(6, 3, 2, 8), images.labels, images.ids),
    ]
    assert len({images.fingerprint} | {other.fingerprint for other in others}) == 7
    strided = ImageSet(images.images.to(memory_format=torch.channels_last), images.labels, images.ids)
    assert strided.fingerprint == images.fingerprint == a_set().fingerprint
    assert pickle.loads(pickle.dumps(images)).fingerprint == images.fingerprint


def png(mode: str = "RGB", size: tuple[int, int] = (32, 32), kind: str = "PNG") -> bytes:
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@given(st.data(), st.sampled_from(["PNG", "JPEG"]))
@settings(max_examples=300, deadline=None)
def test_damaged_images_are_decoded_or_refused(draw: st.DataObject, kind: str) -> None:
    whole = bytearray(png(kind=kind))
    for _ in range(draw.draw(st.integers(1, 4))):
        whole[draw.draw(st.integers(0, len(whole) - 1))] = draw.draw(st.integers(0, 255))
    damaged = bytes(whole[: draw.draw(st.integers(0, len(whole)))])
    try:
        said = f"row 7 of here: {decode(damaged, (3, 32, 32), 'row 7 of here').shape}"
    except InputError as error:
        said = str(error)
    assert "row 7 of here" in said
    assert "\n" not in said


def test_decoding_grey_and_colour() -> None:
    assert decode(png("L"), (3, 32, 32), "here").shape == (32, 32, 3)
    assert decode(png("L", (28, 28)), (1, 28, 28), "here").shape == (28, 28, 1)
    with pytest.raises(InputError, match="expected 1-channel images, got mode RGB at here"):
        decode(png("RGB", (28, 28)), (1, 28, 28), "here")
