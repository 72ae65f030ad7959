"""Who drives a sweep: a heartbeat file, so that two drivers never run one sweep and a dead one does not block it.

Clocks of different hosts are never compared: a lease is alive while its file changes as it is watched.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from attacks.errors import InputError
from sweep.storage import Storage

_NAME = "lease.json"
TTL_SECONDS = 10.0


@dataclass(frozen=True)
class Holder:
    """What lease.json says. `machine` and `started` tell a process from a later one with its number."""

    owner: str
    host: str
    machine: str
    pid: int
    started: str
    counter: int
    time: float
    ttl_seconds: float

    def shown(self) -> str:
        return f"process {self.pid} on {self.host}"

    def dead(self) -> bool:
        """Whether the process is known to be gone; one on another machine never is."""
        return self.machine == _machine() and _started(self.pid) != self.started

    def age(self) -> float:
        """Seconds since the heartbeat by this machine's clock, which may not agree with the holder's."""
        return max(0.0, time.time() - self.time)

    def remaining(self) -> float:
        """Seconds to watch it before it counts as abandoned: less only for a dead process of this very machine."""
        passed = time.time() - self.time if self.dead() else 0.0
        return self.ttl_seconds - min(max(passed, 0.0), self.ttl_seconds)


class Lease:
    """The right to drive one sweep, kept by a daemon thread that rewrites lease.json five times in a time-to-live.

    `with Lease(store.folder) as lease:` acquires and releases; `lease.lost` is set if another driver took it over or
    the storage could not be written for a whole time-to-live and as long as it has patience: stop working then.
    """

    def __init__(self, storage: Storage, ttl_seconds: float = TTL_SECONDS) -> None:
        self.storage = storage.patient(0)
        self.patience = max(ttl_seconds, storage.patience)
        self.ttl_seconds = ttl_seconds
        self.owner = uuid.uuid4().hex
        self.lost = threading.Event()
        self._stop = threading.Event()
        self._counter = 0
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Takes the lease, or raises InputError naming who holds it.

        A living holder is recognised within a heartbeat; a silent one is waited out: at most its time-to-live,
        less what has passed already where it was of this machine and is dead.
        """
        while not self._take_free() and not self._take_over():
            pass  # the lease was released, or changed hands, between two looks at it
        self._check_ours()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stops the heartbeat and removes the file if it is still ours. Harmless twice."""
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if not self.lost.is_set() and self._owner() == self.owner:
            self.storage.delete(_NAME)

    def __enter__(self) -> Lease:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _take_free(self) -> bool:
        try:
            self.storage.create(_NAME, self._document())
        except FileExistsError:
            return False
        if not self.storage.exclusive:
            self._settle()
        return True

    def _take_over(self) -> bool:
        seen = self._wait_until_stale()
        if seen is None or seen != self._bytes():
            return False
        self.storage.write(_NAME, self._document())
        self._settle()
        return True

    def _settle(self) -> None:
        """After this every rival that decided before our write has written, and the last one is in the file.

        Were one slower still, the heartbeat of the one written over would set `lost`.
        """
        time.sleep(self.ttl_seconds / 5)

    def _wait_until_stale(self) -> bytes | None:
        """The bytes of a lease that stayed as it was for its time-to-live; None where it went away meanwhile."""
        seen = self._bytes()
        holder = _parsed(seen) if seen else None
        until = time.monotonic() + (holder.remaining() if holder else self.ttl_seconds)
        while seen is not None and time.monotonic() < until:
            time.sleep(self.ttl_seconds / 50)
            now = self._bytes()
            if now is not None and now != seen:
                raise _held(self.storage, _parsed(now))
            seen = now
        return seen

    def _check_ours(self) -> None:
        if self._owner() != self.owner:
            data = self._bytes()
            raise _held(self.storage, _parsed(data) if data else None)

    def _beat(self) -> None:
        written = time.monotonic()
        while not self.lost.is_set() and not self._stop.wait(self.ttl_seconds / 5):
            try:
                if self._owner() != self.owner:
                    self.lost.set()
                else:
                    self._counter += 1
                    self.storage.write(_NAME, self._document())
                    written = time.monotonic()
            except InputError:  # a storage that is away for a moment
                if time.monotonic() - written > self.patience:
                    self.lost.set()

    def _owner(self) -> str | None:
        data = self._bytes()
        holder = _parsed(data) if data else None
        return holder.owner if holder else None

    def _bytes(self) -> bytes | None:
        try:
            return self.storage.read(_NAME)
        except FileNotFoundError:
            return None

    def _document(self) -> bytes:
        pid = os.getpid()
        ours = Holder(
            owner=self.owner,
            host=socket.gethostname(),
            machine=_machine(),
            pid=pid,
            started=_started(pid) or "",
            counter=self._counter,
            time=time.time(),
            ttl_seconds=self.ttl_seconds,
        )
        return json.dumps(asdict(ours), indent=2).encode()


def holder(storage: Storage) -> Holder | None:
    """Whoever holds the lease by the file, alive or not; None where nobody does."""
    try:
        return _parsed(storage.read(_NAME))
    except FileNotFoundError:
        return None


def _held(storage: Storage, holder: Holder | None) -> InputError:
    who = holder.shown() if holder else "another process"
    return InputError(f"{storage.where()} is being driven by {who}: wait for it, or stop it first")


def _parsed(data: bytes) -> Holder | None:
    """The holder; None for a file that is no lease (half written, foreign): it is watched like any other."""
    try:
        document: dict[str, Any] = json.loads(data)
        holder = Holder(**document)
        return holder if float(holder.ttl_seconds) > 0 and holder.time + holder.pid > 0 else None
    except (ValueError, TypeError):
        return None


def _machine() -> str:
    """This boot of this machine and, in containers, this process space; the host's name where Linux does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; "" where that cannot be told; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        return _answers(pid)
    except (OSError, IndexError):
        return None


def _answers(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
