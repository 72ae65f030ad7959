"""Checkpoints: what was written is read, and what does not verify is never taken for it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attacks.errors import InputError
from trainers.checkpoint import Folder, newest, write


@pytest.fixture
def files(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "run")


def put(files: Folder, *epochs: int) -> None:
    for epoch in epochs:
        write(files, epoch, {"w": torch.full((3,), float(epoch)), "n": torch.tensor(epoch)}, {"epoch": epoch})


def epoch_of(files: Folder) -> int | None:
    found = newest(files)
    return None if found is None else int(found[1]["epoch"])


def kept(files: Folder) -> list[str]:
    return sorted({name.split("/")[0] for name in files.names("")})


def test_what_was_written_is_read(files: Folder) -> None:
    tensors = {"a/w": torch.randn(2, 3).T, "b": torch.tensor([1, 2]), "c": torch.tensor([True]), "d": torch.zeros(0)}
    state = {"epoch": 4, "history": [{"loss": 0.1, "gain": math.nan}]}
    write(files, 4, tensors, state)
    found = newest(files)
    assert found is not None
    assert found[0].keys() == tensors.keys()
    assert all(torch.equal(found[0][name], tensors[name]) for name in tensors)
    assert found[1]["history"][0]["loss"] == 0.1
    assert math.isnan(found[1]["history"][0]["gain"])


def test_there_is_none_in_an_empty_or_missing_folder(files: Folder) -> None:
    assert newest(files) is None
    assert newest(Folder(files.path / "missing")) is None


def test_the_newest_two_are_kept(files: Folder) -> None:
    put(files, 1, 2, 9, 10)
    assert kept(files) == ["10", "9"]
    assert epoch_of(files) == 10


def damage_truncated(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def damage_one_bit(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def damage_no_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def damage_state(folder: Path) -> None:
    (folder / "state.json").write_text("{}")


def damage_manifest_cut(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"weights.saf')


def damage_foreign_list(folder: Path) -> None:
    (folder / "manifest.json").write_text('["state.json"]')


def damage_foreign_empty(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def damage_foreign_weights(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"not a tensor in it")
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != "manifest.json"}
    (folder / "manifest.json").write_text(json.dumps(sums))


Damage = Callable[[Path], None]
DAMAGE = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
class TestDamage:
    def test_falls_back_to_the_one_before_and_says_so(
        self, damage: Damage, files: Folder, caplog: pytest.LogCaptureFixture
    ) -> None:
        put(files, 3, 4)
        damage(files.path / "4")
        with caplog.at_level(logging.WARNING):
            assert epoch_of(files) == 3
        (record,) = caplog.records
        assert "checkpoint of epoch 4 does not verify" in record.getMessage()

    def test_none_where_all_are_damaged_and_what_comes_then_is_kept(self, damage: Damage, files: Folder) -> None:
        put(files, 3, 4)
        damage(files.path / "3")
        damage(files.path / "4")
        assert newest(files) is None
        put(files, 1)
        assert epoch_of(files) == 1
        assert kept(files) == ["1"]
        put(files, 2, 3)
        assert kept(files) == ["2", "3"]


def test_files_of_others_in_the_folder_are_left_alone(files: Folder) -> None:
    files.write("outcome.json", b"{}")
    files.write("notes/1/manifest.json", b"{}")
    put(files, 1, 2, 3)
    assert epoch_of(files) == 3
    assert files.read("outcome.json") == b"{}"
    assert kept(files) == ["2", "3", "notes", "outcome.json"]


def test_unreadable_storage_is_no_damaged_checkpoint(files: Folder) -> None:
    """Else a failing network would make a run train again, and drop, what is sound."""

    class Failing(Folder):
        def read(self, name: str) -> bytes:
            raise InputError(f"cannot read {name}: connection refused")

    put(files, 1, 2)
    with pytest.raises(InputError, match="connection refused"):
        newest(Failing(files.path))
    files.delete("2/state.json")
    (files.path / "2/state.json").mkdir()
    with pytest.raises(IsADirectoryError):
        newest(files)


def test_a_write_that_stops_half_way_leaves_what_was_there(files: Folder) -> None:
    class Full(Folder):
        def write(self, name: str, data: bytes) -> None:
            if name.endswith("manifest.json"):
                raise OSError(28, "no space left")
            super().write(name, data)

    put(files, 1, 2)
    with pytest.raises(OSError, match="no space"):
        put(Full(files.path), 3)
    assert kept(files) == ["1", "2", "3"]
    assert epoch_of(files) == 2
