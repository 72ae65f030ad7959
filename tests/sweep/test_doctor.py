"""The checks of `doctor`, one by one under the conditions that they are to find, and all of them by the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_stores import Server
from shells import Shell

from sweep.doctor import cluster, machine, stored, versions
from sweep.doctor.rows import Row
from sweep.storage import Storage


def told(rows: list[Row], check: str) -> Row:
    return next(row for row in rows if row["check"] == check)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "full"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", place], check=True)


# the storage


def test_a_sound_storage_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    rows = stored.check(Storage(str(tmp_path / "results")))
    assert [row["state"] for row in rows[:2]] == ["ok", "ok"]
    assert "MB/s" in rows[0]["found"]
    assert "renamed into place, one winner" in rows[0]["found"]
    assert list(tmp_path.iterdir()) == []


def test_object_stores_are_sound(s3: Server, gcs: Server) -> None:
    for uri in (s3.s3(), gcs.gs()):
        rows = stored.check(Storage(uri))
        assert [row["state"] for row in rows] == ["ok", "ok"], rows
        assert "the last writer wins" in rows[0]["found"]
        assert Storage(uri).names() == []


def test_a_full_disk_is_found(full: Path) -> None:
    rows = stored.check(Storage(str(full)))
    assert rows[0]["state"] == "FAILED"
    assert "No space left on device" in rows[0]["found"]
    assert "--storage" in rows[0]["remedy"]
    assert told(rows, "disk of the storage")["state"] == "warn"
    assert list(full.iterdir()) == []


def test_a_storage_that_may_only_be_read_is_found(s3: Server) -> None:
    (row,) = stored.check(Storage(s3.s3(who="reader:readers-secret@")))
    assert (row["state"], "access denied" in row["found"]) == ("FAILED", True)
    assert row["remedy"].startswith("set AWS_ACCESS_KEY_ID")


def test_wrong_credentials_are_found(s3: Server) -> None:
    (row,) = stored.check(Storage(s3.s3(who="test-key:hidden@")))
    assert row["found"].endswith("the secret key is not the access key's")
    assert row["remedy"] == "set AWS_SECRET_ACCESS_KEY"


# clocks


@pytest.mark.parametrize(("then", "off"), [(10.0, 0.0), (12.0, 0.0), (11.0, 0.0), (7.0, -3.0), (15.5, 3.5)])
def test_a_time_is_off_by_what_it_lies_outside(then: float, off: float) -> None:
    assert stored.skew(then, before=10.0, after=12.0) == off


def test_clocks_that_differ_are_named() -> None:
    assert stored.agreement("clocks", [("a", 0.5), ("b", -1.9)])["state"] == "ok"
    row = stored.agreement("clocks", [("a", 0.5), ("b", -90.0), ("c", 7.0)])
    assert (row["state"], row["found"]) == ("warn", "differs from this machine's: b -90 s, c +7 s")


# versions and this machine


def test_other_versions_than_the_tested_are_named() -> None:
    tested = versions.pinned("# tested\nray==2.60.0\ntorch==2.13.0  # CPU\n\n")
    assert tested == {"ray": "2.60.0", "torch": "2.13.0"}
    assert versions.compared("torch", "2.13.0+cu128", tested["torch"])["state"] == "ok"
    row = versions.compared("ray", "2.61.0", tested["ray"])
    assert (row["state"], row["found"], row["remedy"]) == ("warn", "2.61.0, an untested version", "tested with 2.60.0")


def test_this_environment_is_the_tested_one() -> None:
    assert {row["check"]: row["state"] for row in versions.check()} == dict.fromkeys(
        ("python", *versions.PACKAGES), "ok"
    )


def test_little_room_is_a_warning(full: Path) -> None:
    row = machine.room("disk", str(full), 1 << 30, "free some")
    assert (row["state"], row["remedy"]) == ("warn", "free some")
    assert machine.room("disk", str(full / "none"), 1, "free some")["state"] == "warn"
    assert machine.room("disk", str(full), 1 << 20, "free some")["state"] == "ok"


@pytest.mark.skipif(machine.torch.cuda.is_available(), reason="torch can use the GPU here")
def test_a_gpu_that_torch_cannot_use_is_found() -> None:
    assert machine.gpus(driver=True)["state"] == "FAILED"
    assert machine.gpus(driver=False)["found"].startswith("none")


def test_few_open_files_are_a_warning() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))\n"
        "from sweep.doctor import machine; print(machine.check()[-1])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'warn'" in said
    assert "up to 512" in said


# the cluster


@pytest.mark.parametrize(
    ("address", "environment", "state"),
    [
        (None, {}, "ok"),
        (None, {"RAY_AUTH_MODE": "token"}, "FAILED"),
        ("head:6379", {}, "warn"),
        ("head:6379", {"RAY_AUTH_MODE": "disabled"}, "warn"),
        ("head:6379", {"RAY_AUTH_TOKEN": "t"}, "ok"),
        ("head:6379", {"RAY_AUTH_TOKEN": "t", "RAY_AUTH_MODE": "token"}, "ok"),
    ],
)
def test_what_is_said_of_tokens(address: str | None, environment: dict[str, str], state: str) -> None:
    row = cluster.auth(address, {"RAY_AUTH_TOKEN_PATH": "/none", **environment})
    assert row["state"] == state
    assert bool(row["remedy"]) == (state != "ok")


def test_a_node_that_cannot_use_the_storage_is_named(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("x", b"told")
    assert cluster.look(storage, "x", b"told").fault == ""
    seen = [cluster.look(storage, "x", b"told"), cluster.look(Storage(str(tmp_path / "not shared")), "x", b"told")]
    row = cluster.storage_on(seen)
    assert row["state"] == "FAILED"
    assert "not shared/x is not there" in row["found"]
    assert "before `ray start`" in row["remedy"]


ON_NODES = """
import json, sys
from sweep import engine
from sweep.doctor import cluster
from sweep.storage import Storage
with engine.cluster(None, verbose=False):
    print(json.dumps(cluster.check("the one at hand", Storage(sys.argv[1]))))
"""


@pytest.mark.ray
def test_every_node_of_a_cluster_is_asked(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ON_NODES, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows: list[Row] = json.loads(said.splitlines()[-1])[1:]
    checks = ["ray cluster", "clocks of the nodes", "storage on the nodes", "gpus of the nodes"]
    assert [(row["check"], row["state"]) for row in rows] == [(check, "ok") for check in checks]
    assert "1 nodes" in rows[0]["found"]
    assert told(rows, "storage on the nodes")["found"] == "read on 1 of 1"
    assert list(tmp_path.iterdir()) == []


# the command


def test_the_command_exits_with_one_where_something_failed(sweep: Shell, s3: Server) -> None:
    answer = sweep(
        "doctor", "--storage", s3.s3("nosuch"), "--address", "127.0.0.1:1", "--format", "json", "--data-root", "/none"
    )
    assert answer.code == 1
    assert answer.err == ""
    rows = json.loads(answer.out)
    assert all(set(row) == {"check", "state", "found", "remedy"} for row in rows)
    assert [row["check"] for row in rows if row["state"] == "FAILED"] == ["storage", "ray cluster"]
    assert "there is no bucket 'nosuch'" in told(rows, "storage")["found"]
    assert told(rows, "ray cluster")["found"].startswith("cannot reach a Ray cluster at 127.0.0.1:1")
    assert told(rows, "data cifar10")["state"] == "missing"
    assert told(rows, "data digits")["state"] == "ok"
    assert not [row for row in rows if row["state"] in ("FAILED", "missing") and not row["remedy"]]
