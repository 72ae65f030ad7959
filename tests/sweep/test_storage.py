from __future__ import annotations

import errno
import os
import pickle
import resource
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attacks.errors import InputError
from sweep.storage import Storage, default_uri


@pytest.fixture(params=["path", "file", "memory", "s3", "gs"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The same contract on a local path, a URI of it, and file systems that are reached through pyarrow.fs."""
    if request.param == "s3":
        return Storage(request.getfixturevalue("s3").s3())
    if request.param == "gs":
        return Storage(request.getfixturevalue("gcs").gs())
    roots = {
        "path": str(tmp_path / "a b"),
        "file": (tmp_path / "b").as_uri(),
        "memory": f"fsspec+memory://{uuid.uuid4().hex}/root",
    }
    return Storage(roots[request.param])


def test_files_come_back_whole(storage: Storage) -> None:
    storage.write("x/y/one.bin", b"\0one")
    storage.write("x/two.bin", b"")
    storage.write("x/y/one.bin", b"again")
    assert storage.read("x/y/one.bin") == b"again"
    assert storage.read("x/two.bin") == b""
    assert storage.names() == ["x/two.bin", "x/y/one.bin"]
    assert storage.names("x/y") == ["x/y/one.bin"]
    assert storage.folders() == ["x"]
    assert storage.exists("x/two.bin")
    assert not storage.exists("x/y")


def test_missing_things(storage: Storage) -> None:
    assert storage.names() == storage.names("no/such") == storage.folders() == []
    assert not storage.exists("no")
    storage.delete("no/such")
    with pytest.raises(FileNotFoundError):
        storage.read("no/such")


def test_delete_takes_a_file_or_a_folder(storage: Storage) -> None:
    for name in ("a/1", "a/2", "b/1"):
        storage.write(name, b"x")
    storage.delete("a/1")
    assert storage.names() == ["a/2", "b/1"]
    storage.delete("a")
    assert storage.names() == ["b/1"]


def test_create_has_one_winner(storage: Storage) -> None:
    storage.create("a/x", b"first")
    with pytest.raises(FileExistsError):
        storage.create("a/x", b"second")
    assert storage.read("a/x") == b"first"
    assert storage.names() == ["a/x"]


def test_create_has_one_winner_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some mounts; without one at hand, the system call is made to fail as it does there."""

    def refused(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", refused)
    test_create_has_one_winner(Storage(str(tmp_path)))


def test_child_and_pickle_see_the_same_files(storage: Storage) -> None:
    storage.child("a").child("b").write("c", b"x")
    again = pickle.loads(pickle.dumps(storage))
    assert again == storage
    assert again.names() == ["a/b/c"]
    assert pickle.loads(pickle.dumps(storage.child("a"))).read("b/c") == b"x"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", "a/../../b", ".", ""])
def test_a_name_stays_below_the_root(storage: Storage, name: str) -> None:
    with pytest.raises(InputError, match="below the storage's root"):
        storage.write(name, b"x")


def test_an_interrupted_write_is_never_listed(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("a.parquet", b"x")
    (tmp_path / "a.parquet.tmp-0123").write_bytes(b"hal")
    assert storage.names() == ["a.parquet"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        Storage(str(tmp_path)).write("x", b"a folder is in the way")
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("root", ["file", "file/results"])
def test_storage_at_or_below_a_regular_file_is_one_line(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("")
    storage = Storage(str(tmp_path / root))
    uses: list[Callable[[], object]] = [
        lambda: storage.write("a", b""),
        lambda: storage.create("a", b""),
        lambda: storage.read("a"),
    ]
    uses += [storage.names, storage.folders, lambda: storage.read("a"), lambda: storage.delete("a/b")]
    for use in uses:
        with pytest.raises(InputError, match=r"^cannot \w+ /.*: Not a directory \(set --storage") as caught:
            use()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["nonsense://x/y", "file://relative", "fsspec+nosuchprotocol://x"])
def test_a_uri_that_nothing_opens_is_one_line(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        Storage(uri)
    assert "\n" not in str(caught.value)


def test_secrets_of_a_uri_are_not_shown() -> None:
    storage = Storage("s3://key:secret@bucket/x?region=eu-west-1&endpoint_override=localhost:1")
    assert storage.child("y").uri == "s3://key:secret@bucket/x/y?region=eu-west-1&endpoint_override=localhost:1"
    assert storage.child("y").where("z") == "s3://bucket/x/y/z"
    assert "secret" not in repr(storage)


def test_relative_paths_are_fixed_when_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = Storage("results")
    monkeypatch.chdir("/")
    storage.write("a", b"x")
    assert (tmp_path / "results" / "a").read_bytes() == b"x"


def test_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEP_STORAGE", raising=False)
    assert default_uri() == "./results"
    monkeypatch.setenv("SWEEP_STORAGE", "s3://b")
    assert default_uri() == "s3://b"


@pytest.fixture
def full() -> Iterator[Callable[[], None]]:
    """A process whose files may grow to 4 bytes, until the function given is called."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_storage_that_is_full_for_a_while_is_waited_for(tmp_path: Path, full: Callable[[], None]) -> None:
    threading.Timer(0.5, full).start()
    Storage(str(tmp_path)).patient(60).child("a").write("x", b"longer than four bytes")
    assert (tmp_path / "a" / "x").read_bytes() == b"longer than four bytes"


def test_without_patience_it_is_one_line_at_once(tmp_path: Path, full: Callable[[], None]) -> None:
    with pytest.raises(InputError, match=r"^cannot write /.*/x: File too large \(set --storage"):
        Storage(str(tmp_path)).write("x", b"longer than four bytes")
    assert os.listdir(tmp_path) == []


def test_patience_ends_and_has_none_for_what_lasts(tmp_path: Path, full: Callable[[], None]) -> None:
    with pytest.raises(InputError, match="File too large"):
        Storage(str(tmp_path)).patient(0.2).write("x", b"longer than four bytes")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Not a directory"):
        Storage(str(tmp_path / "file")).patient(1000).write("x", b"")
    with pytest.raises(FileNotFoundError):
        Storage(str(tmp_path)).patient(1000).read("none")
