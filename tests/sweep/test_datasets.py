from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from attacks.errors import InputError
from sweep import datasets
from trainers.data import Dataset
from trainers.sources import SOURCES, DataSource

NAMES = [f"kind {i}" for i in range(10)]


@pytest.fixture(autouse=True)
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEP_DATA", raising=False)


def png(label: int, shape: tuple[int, int, int]) -> bytes:
    """An image that tells its label: its first pixel."""
    channels, height, width = shape
    pixels = np.random.default_rng(label).integers(0, 256, (height, width, channels), np.uint8)
    pixels[0, 0] = label
    out = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(out, "PNG")
    return out.getvalue()


def table(source: DataSource, labels: list[Any], images: list[Any] | None = None, names: Any = None) -> pa.Table:
    if images is None:
        images = [png(0 if label is None else label % 256, source.shape) for label in labels]
    column = pa.array(
        [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    result = pa.table({source.image_column: column, source.label_column: pa.array(labels, pa.int64())})
    if names is not None:
        features = {source.label_column: {"names": names, "_type": "ClassLabel"}}
        result = result.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return result


def folder(root: Path, name: str) -> Path:
    path = root / name / SOURCES[name].folder
    path.mkdir(parents=True, exist_ok=True)
    return path


def write(root: Path, name: str = "cifar10", train_shards: int = 2, names: Any = None) -> Path:
    """A data set in the hub's layout, 20 training images a shard and 20 test images, every class in all of them."""
    source, path = SOURCES[name], folder(root, name)
    labels = [i % source.num_classes for i in range(20)]
    for i in range(train_shards):
        shard = f"{source.train_split}-{i:05d}-of-{train_shards:05d}.parquet"
        pq.write_table(table(source, labels, names=names), path / shard)
    pq.write_table(table(source, labels, names=names), path / f"{source.test_split}-00000-of-00001.parquet")
    return path


def load(root: Path, name: str = "cifar10", **options: Any) -> Dataset:
    return datasets.load(name, data_root=root, **options)


def refusal(root: Path, name: str = "cifar10", **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load(root, name, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- what loads


@pytest.mark.parametrize("name", sorted(name for name, source in SOURCES.items() if not source.embedded))
def test_every_data_set_of_files_loads_from_its_layout(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    dataset = load(tmp_path, name, val_size=10)
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [30, 10, 20]
    assert dataset.shape == SOURCES[name].shape
    assert dataset.source == str(folder(tmp_path, name))
    assert dataset.train.ids.tolist() + dataset.val.ids.tolist() != list(range(40))
    assert torch.cat([dataset.train.ids, dataset.val.ids]).sort().values.equal(torch.arange(40))
    assert dataset.test.ids.equal(torch.arange(40, 60))
    for part in (dataset.train, dataset.val, dataset.test):
        assert part.images[:, 0, 0, 0].long().equal(part.labels)  # each image has kept its own label
        assert part.images.is_contiguous()


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    path = write(tmp_path, train_shards=11)
    second = table(SOURCES["cifar10"], [7] * 20)
    pq.write_table(second, path / "train-00002-of-00011.parquet")
    dataset = load(tmp_path, val_size=10)
    of_that_shard = (dataset.train.ids >= 40) & (dataset.train.ids < 60)
    assert set(dataset.train.labels[of_that_shard].tolist()) == {7}


def test_class_names_come_from_the_file_and_are_numbers_without(tmp_path: Path) -> None:
    write(tmp_path / "a", names=NAMES)
    write(tmp_path / "b")
    assert load(tmp_path / "a").class_names == tuple(NAMES)
    assert load(tmp_path / "b").class_names == tuple("0123456789")


def test_hub_names_with_a_hash_are_shards_too(tmp_path: Path) -> None:
    path = write(tmp_path, "tiny-imagenet", train_shards=1)
    for file in list(path.iterdir()):
        file.rename(file.with_suffix(".parquet").with_name(f"{file.stem}-1359597a978bc4fa.parquet"))
    assert len(load(tmp_path, "tiny-imagenet", val_size=4).train) == 16


def test_the_root_can_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setenv("SWEEP_DATA", str(tmp_path))
    assert datasets.load("cifar10").fingerprint == load(tmp_path).fingerprint
    assert datasets.where("cifar10") == f"{folder(tmp_path, 'cifar10')}: 3 files"


def test_only_the_images_chosen_are_decoded(tmp_path: Path) -> None:
    path = write(tmp_path)
    chosen = set(load(tmp_path, train_size=10, eval_size=4).test.ids.tolist())
    spoilt = [b"broken" if 40 + i not in chosen else png(i % 10, (3, 32, 32)) for i in range(20)]
    pq.write_table(table(SOURCES["cifar10"], [i % 10 for i in range(20)], spoilt), path / "test-00000-of-00001.parquet")
    assert set(load(tmp_path, train_size=10, eval_size=4).test.ids.tolist()) == chosen
    assert "expected a PNG or JPEG image at row" in refusal(tmp_path)


def test_embedded_data_sets_need_no_root(tmp_path: Path) -> None:
    assert len(load(tmp_path, "digits").test) == 360
    assert datasets.where("digits-photo") == "embedded (scikit-learn)"


# ---- what is refused


def test_unknown_data_set(tmp_path: Path) -> None:
    assert refusal(tmp_path, "cifar11") == "unknown data set 'cifar11': did you mean 'cifar10'?"


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert f"expected cifar10 in the folder {tmp_path / 'cifar10' / 'plain_text'}, got no such folder" in message
    assert "--data-root" in message
    folder(tmp_path, "cifar10")
    assert "expected files train-00000-of-0000n.parquet" in refusal(tmp_path)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, train_shards=4)
    (path / "train-00001-of-00004.parquet").unlink()
    (path / "train-00003-of-00004.parquet").unlink()
    message = refusal(tmp_path)
    assert "expected 4 train files" in message
    assert "missing train-00001-of-00004.parquet, train-00003-of-00004.parquet" in message
    with pytest.raises(InputError, match="missing train-00001"):
        datasets.where("cifar10", tmp_path)


def test_a_missing_test_split_and_two_downloads_in_one_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    (path / "test-00000-of-00001.parquet").unlink()
    assert "expected files test-00000-of-0000n.parquet" in refusal(tmp_path / "a")
    write(tmp_path / "b", train_shards=2)
    write(tmp_path / "b", train_shards=1)
    assert "expected one set of train files" in refusal(tmp_path / "b")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_parquet(tmp_path: Path, share: float) -> None:
    file = write(tmp_path) / "train-00001-of-00002.parquet"
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    message = refusal(tmp_path)
    assert f"expected a readable Parquet file, got {file}" in message
    assert "download it again" in message


def test_a_damaged_page(tmp_path: Path) -> None:
    file = write(tmp_path) / "train-00001-of-00002.parquet"
    data = bytearray(file.read_bytes())
    data[8 : len(data) // 2] = bytes(len(data) // 2 - 8)
    file.write_bytes(data)
    assert str(file) in refusal(tmp_path)


@pytest.mark.parametrize("wrong", [10, -1, 255, None])
def test_label_out_of_range(tmp_path: Path, wrong: int | None) -> None:
    file = write(tmp_path) / "train-00001-of-00002.parquet"
    labels = [i % 10 for i in range(20)]
    pq.write_table(table(SOURCES["cifar10"], [*labels[:5], wrong, *labels[6:]]), file)
    message = refusal(tmp_path)
    assert message.startswith(f"expected labels 0..9 for cifar10, got {wrong} in row 5 of {file} (1 such rows)")


def test_another_data_sets_columns(tmp_path: Path) -> None:
    file = write(tmp_path) / "test-00000-of-00001.parquet"
    pq.write_table(table(SOURCES["mnist"], [1, 2]), file)
    assert f"expected a column 'img' for cifar10, got image, label in {file}" in refusal(tmp_path)
    pq.write_table(table(SOURCES["cifar100"], [1, 2]), file)
    assert "expected a column 'label' for cifar10, got img, fine_label" in refusal(tmp_path)


def test_columns_of_another_type(tmp_path: Path) -> None:
    file = write(tmp_path) / "test-00000-of-00001.parquet"
    good = table(SOURCES["cifar10"], [1, 2])
    pq.write_table(good.set_column(0, "img", pa.array(["a.png", "b.png"])), file)
    assert "expected encoded images (struct with bytes) in column 'img'" in refusal(tmp_path)
    pq.write_table(good.set_column(1, "label", pa.array(["cat", "dog"])), file)
    assert "expected whole numbers in column 'label'" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"not an image", "expected a PNG or JPEG image at row 1 of"),
        (None, "expected a PNG or JPEG image at row 1 of"),
        (png(1, (3, 32, 32))[:400], "expected a PNG or JPEG image at row 1 of"),
        (png(1, (3, 64, 64)), "expected images of 32x32 pixels, got 64x64 at row 1 of"),
    ],
)
def test_an_image_that_is_none_or_another_data_sets(tmp_path: Path, image: bytes | None, message: str) -> None:
    file = write(tmp_path) / "test-00000-of-00001.parquet"
    pq.write_table(table(SOURCES["cifar10"], [0, 1], [png(0, (3, 32, 32)), image]), file)
    got = refusal(tmp_path)
    assert message in got
    assert str(file) in got


def test_a_file_without_rows(tmp_path: Path) -> None:
    file = write(tmp_path) / "test-00000-of-00001.parquet"
    pq.write_table(table(SOURCES["cifar10"], []), file)
    assert refusal(tmp_path) == f"expected images of cifar10, got a file without rows: {file}"


def test_class_names_that_cannot_be_right(tmp_path: Path) -> None:
    write(tmp_path / "a", names=[*NAMES, "one too many"])
    assert "expected 10 class names for cifar10, got 11" in refusal(tmp_path / "a")
    path = write(tmp_path / "b", names=NAMES)
    other = table(SOURCES["cifar10"], [1, 2], names=NAMES[::-1])
    pq.write_table(other, path / "test-00000-of-00001.parquet")
    assert "expected the same class names in all files of cifar10" in refusal(tmp_path / "b")


def test_sizes_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path)
    assert "expected 0 < train_size <= 36 (the training images of cifar10), got 37" in refusal(tmp_path, train_size=37)
    assert "expected 0 < eval_size <= 4 (the validation images of cifar10)" in refusal(tmp_path, eval_size=5)


def test_a_small_set_is_on_no_hub() -> None:
    with pytest.raises(InputError, match="cifar10-small is on no hub: give --data-root"):
        datasets.load("cifar10-small")
    assert datasets.where("cifar10") == "to download: uoft-cs/cifar10"


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"cannot download ufldl-stanford/svhn \(.*\): check the network") as caught:
        datasets.load("svhn")
    assert "\n" not in str(caught.value)


# ---- the real ones

REAL = Path(os.environ.get("SWEEP_DATA") or Path(__file__).parents[2].parent / "shared" / "data")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sizes", "first"),
    [
        ("cifar10-small", [1800, 200, 500], "airplane"),
        ("cifar100-small", [1800, 200, 500], "apple"),
        ("cifar10", [45000, 5000, 10000], "airplane"),
        ("mnist", [54000, 6000, 10000], "0"),
    ],
)
def test_real_images(name: str, sizes: list[int], first: str) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"no {name} under $SWEEP_DATA or ../shared/data")
    dataset = datasets.load(name, data_root=REAL)
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == sizes
    assert dataset.class_names[0] == first
    for part in (dataset.val, dataset.test):
        counts = torch.bincount(part.labels, minlength=dataset.num_classes)
        assert int(counts.min()) > 0
    means = dataset.train.floats(slice(2000)).mean((0, 2, 3))
    wanted = [0.13] if name == "mnist" else [0.49, 0.48, 0.45] if name.startswith("cifar10-") else None
    if wanted:
        torch.testing.assert_close(means, torch.tensor(wanted), atol=0.03, rtol=0)
