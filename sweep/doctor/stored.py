"""The storage: whether it can be written, read, listed and cleared, how fast, and what its clock says."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

from attacks.errors import InputError
from sweep.doctor.machine import DISK_BYTES, room
from sweep.doctor.rows import Row, failed, row
from sweep.storage import Storage

LARGE_BYTES = 16 << 20
SMALL_FILES = 5
SKEW_SECONDS = 2.0


def check(storage: Storage) -> list[Row]:
    """Everything written is removed again, and the folder too if the check made it."""
    name, local = f"doctor-{uuid.uuid4().hex[:8]}", "://" not in storage.uri
    made = local and not Path(storage.uri).exists()
    probe = storage.child(name)
    try:
        found = [row("storage", "ok", f"{storage.where()}: {_used(probe)}"), _clock(probe)]
    except (OSError, InputError) as e:
        found = [failed("storage", e)]
    if local:
        found.append(room("disk of the storage", storage.uri, DISK_BYTES, "free some, or set another --storage"))
    with suppress(OSError, InputError):
        storage.delete(name)
        if made:
            os.rmdir(storage.uri)
    return found


def _used(probe: Storage) -> str:
    """A large file there and back, small ones one by one, one winner of two that create; each found in the listing."""
    blob = os.urandom(LARGE_BYTES)
    start = time.perf_counter()
    probe.write("large", blob)
    writing = time.perf_counter() - start
    start = time.perf_counter()
    back = probe.read("large")
    reading = time.perf_counter() - start
    names = [f"small-{i}" for i in range(SMALL_FILES)]
    start = time.perf_counter()
    for name in names:
        probe.write(name, b"x")
    each = (time.perf_counter() - start) / SMALL_FILES
    _expect(probe, back == blob, "what is read back differs from what was written")
    _expect(probe, probe.names() == ["large", *names], "the listing is not what was written")
    _expect(probe, _refused(probe), "a file that is there can be created again")
    probe.delete("large")
    _expect(probe, not probe.exists("large"), "a deleted file is still there")
    speeds = f"written at {LARGE_BYTES / writing / 1e6:.0f} MB/s, read at {LARGE_BYTES / reading / 1e6:.0f}"
    return f"{speeds}, {1000 * each:.1f} ms a small file; {_guarantee(probe)}"


def _guarantee(probe: Storage) -> str:
    return "renamed into place, one winner" if probe.exclusive else "whole objects, the last writer wins"


def _refused(probe: Storage) -> bool:
    try:
        probe.create("small-0", b"again")
    except FileExistsError:
        return probe.read("small-0") == b"x"
    return False


def _clock(probe: Storage) -> Row:
    before = time.time()
    probe.write("now", b"")
    then = probe.written_at("now")
    if then is None:
        return row("clock of the storage", "ok", "it tells no times")
    return agreement("clock of the storage", [("storage", skew(then, int(before), time.time()))])


def skew(then: float, before: float, after: float) -> float:
    """How far a time lies outside of the span in which it was taken by our clock; negative where it is behind."""
    return min(then - before, 0.0) + max(then - after, 0.0)


def agreement(check: str, skews: list[tuple[str, float]]) -> Row:
    """warn where the clock of one differs from ours."""
    worst = max((abs(seconds) for _, seconds in skews), default=0.0)
    if worst <= SKEW_SECONDS:
        return row(check, "ok", f"within {SKEW_SECONDS:g} s of this machine's")
    named = ", ".join(f"{name} {seconds:+.0f} s" for name, seconds in skews if abs(seconds) > SKEW_SECONDS)
    return row(check, "warn", f"differs from this machine's: {named}", "let all machines set their clocks by NTP")


def _expect(probe: Storage, true: bool, otherwise: str) -> None:
    if not true:
        raise OSError(f"{probe.where()}: {otherwise}")
