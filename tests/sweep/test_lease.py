from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from attacks.errors import InputError
from sweep.lease import Holder, Lease
from sweep.storage import Storage

TTL = 1.0
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(request.getfixturevalue("s3").s3() if getattr(request, "param", "") == "s3" else str(tmp_path))


anywhere = pytest.mark.parametrize("storage", ["local", "s3"], indirect=True)


def hold(uri: str, held: Event, lost: Event) -> None:
    lease = Lease(Storage(uri), TTL)
    lease.acquire()
    held.set()
    lease.lost.wait()
    lost.set()


class Other:
    """Another driver, in a process of its own, that holds the lease until it is killed."""

    def __init__(self, storage: Storage) -> None:
        self.held, self.lost = SPAWN.Event(), SPAWN.Event()
        self.process: BaseProcess = SPAWN.Process(target=hold, args=(storage.uri, self.held, self.lost), daemon=True)
        self.process.start()
        assert self.held.wait(30)

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)


@pytest.fixture
def other(storage: Storage) -> Iterator[Other]:
    made = Other(storage)
    yield made
    made.process.kill()
    made.process.join()


def read(storage: Storage) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(storage.read("lease.json"))
    return document


def stale(**changes: Any) -> bytes:
    """A lease of a machine that is not this one."""
    of = Holder("them", "far", "machine", 7, "1", counter=3, time=time.time() - 1e6, ttl_seconds=TTL)
    return json.dumps(asdict(replace(of, **changes))).encode()


def test_a_lease_says_who_holds_it_and_goes_away(storage: Storage) -> None:
    with Lease(storage, TTL) as lease:
        document = read(storage)
        assert (document["pid"], document["owner"], document["ttl_seconds"]) == (os.getpid(), lease.owner, TTL)
        assert not lease.lost.is_set()
    assert storage.names() == []
    lease.release()
    with Lease(storage, TTL):
        assert storage.names() == ["lease.json"]


def test_the_heartbeat_advances(storage: Storage) -> None:
    with Lease(storage, 0.2):
        first = read(storage)
        until = time.monotonic() + 10
        while read(storage)["counter"] < first["counter"] + 3:
            assert time.monotonic() < until
        assert read(storage)["time"] > first["time"]


@anywhere
def test_a_living_holder_is_named_and_kept(storage: Storage, other: Other) -> None:
    with pytest.raises(
        InputError, match=rf"is being driven by process {other.process.pid} on .*: wait for it, or stop"
    ):
        Lease(storage, TTL).acquire()
    assert not other.lost.is_set()
    assert other.process.is_alive()


def test_two_leases_of_one_process_exclude_each_other(storage: Storage) -> None:
    with Lease(storage, TTL), pytest.raises(InputError, match=f"process {os.getpid()} "):
        Lease(storage, TTL).acquire()


@anywhere
def test_a_killed_holder_is_followed_after_its_time(storage: Storage, other: Other) -> None:
    other.send(signal.SIGKILL)  # and not reaped: its zombie is no driver
    last = read(storage)["time"]
    with Lease(storage, TTL) as lease:
        assert time.time() - last >= TTL
        assert read(storage)["owner"] == lease.owner


def test_a_holder_dead_for_long_is_followed_at_once(storage: Storage, other: Other) -> None:
    other.process.kill()
    other.process.join()
    document = read(storage)
    storage.write("lease.json", json.dumps(document | {"time": document["time"] - 60, "ttl_seconds": 60.0}).encode())
    start = time.monotonic()
    with Lease(storage, TTL):
        assert time.monotonic() - start < 5


def test_a_number_that_was_given_again_is_another_process(storage: Storage) -> None:
    with Lease(storage, TTL):
        ours = Holder(**read(storage))
    assert not ours.dead()
    assert replace(ours, started="1").dead()
    assert not replace(ours, started="1", machine="another").dead()


def test_a_stopped_holder_notes_that_it_was_followed(storage: Storage, other: Other) -> None:
    other.send(signal.SIGSTOP)
    with Lease(storage, TTL) as lease:
        other.send(signal.SIGCONT)
        assert other.lost.wait(30)
        assert read(storage)["owner"] == lease.owner
        assert not lease.lost.is_set()


def test_a_far_holder_is_watched_for_its_time_whatever_its_clock_says(storage: Storage) -> None:
    storage.write("lease.json", stale())
    start = time.monotonic()
    with Lease(storage, 0.2):
        assert time.monotonic() - start >= TTL


def test_a_holder_that_leaves_while_watched_is_followed(storage: Storage) -> None:
    storage.write("lease.json", stale(ttl_seconds=60.0))
    leaving = threading.Timer(0.2, storage.delete, ["lease.json"])
    leaving.start()
    with Lease(storage, TTL) as lease:
        assert read(storage)["owner"] == lease.owner
    leaving.join()


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"owner": 1}', b"\xff", stale(ttl_seconds=-1.0), stale(ttl_seconds="x")]
)
def test_a_file_that_is_no_lease_is_waited_out(storage: Storage, text: bytes) -> None:
    storage.write("lease.json", text)
    start = time.monotonic()
    with Lease(storage, 0.2) as lease:
        assert time.monotonic() - start >= 0.2
        assert read(storage)["owner"] == lease.owner


def race(uri: str, ready: Any, winners: Any, done: Event) -> None:
    lease = Lease(Storage(uri), 2 * TTL if uri.startswith("/") else 8 * TTL)  # of which a fifth is to let rivals write
    Storage(uri).names()
    ready.wait()
    try:
        lease.acquire()
    except InputError:
        winners.put(None)
    else:
        winners.put(os.getpid())
        done.wait()


@anywhere
@pytest.mark.parametrize("before", [None, stale()])
def test_of_several_that_want_it_one_wins(storage: Storage, before: bytes | None) -> None:
    if before:
        storage.write("lease.json", before)
    ready, winners, done = SPAWN.Barrier(4), SPAWN.Queue(), SPAWN.Event()
    racers = [SPAWN.Process(target=race, args=(storage.uri, ready, winners, done)) for _ in range(4)]
    for racer in racers:
        racer.start()
    won = [pid for pid in (winners.get(timeout=60) for _ in racers) if pid]
    assert len(won) == 1
    assert read(storage)["pid"] == won[0]
    done.set()
    for racer in racers:
        racer.join()


def test_elsewhere_than_on_a_disk() -> None:
    storage = Storage(f"fsspec+memory://{uuid.uuid4().hex}")
    with Lease(storage, 0.4), pytest.raises(InputError, match="being driven"):
        Lease(storage, 0.4).acquire()
    assert storage.names() == []


def test_a_storage_that_went_away_is_a_lost_lease(tmp_path: Path) -> None:
    lease = Lease(Storage(str(tmp_path / "s")), 0.2)
    lease.acquire()
    (tmp_path / "s").rename(tmp_path / "gone")
    (tmp_path / "s").write_text("in the way")
    assert lease.lost.wait(30)
    lease.release()
    assert (tmp_path / "gone" / "lease.json").exists()
