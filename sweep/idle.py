"""How much of the time of a sweep's workers no trial took."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from attacks.errors import InputError
from sweep import lease
from sweep.store import Store


@contextmanager
def recorded(store: Store, owner: str, slots: int) -> Iterator[None]:
    """While a driver searches, with room for so many trials at a time: when, in drives/<owner>.json."""
    drive: dict[str, Any] = {"began": datetime.now(UTC).isoformat(), "slots": slots}
    name = f"drives/{owner}.json"
    store.folder.write(name, json.dumps(drive).encode())
    try:
        yield
    finally:
        drive["ended"] = datetime.now(UTC).isoformat()
        with suppress(InputError):
            store.folder.patient(0).write(name, json.dumps(drive).encode())


def share(store: Store) -> tuple[float, float] | None:
    """(share of the time of all slots in which no trial ran, hours of slots); None where no driver has searched yet.
    A driver that was killed counts until the last trial that ended under it, and what an attempt did that did not end
    counts as idle."""
    rows = [row for row in store.ended() if row["started"] and row["finished"]]
    drives = sorted(_drives(store), key=lambda drive: drive["began"])
    after = [*(drive["began"] for drive in drives[1:]), datetime.max.replace(tzinfo=UTC)]
    there = busy = 0.0
    for drive, following in zip(drives, after, strict=False):
        began, until = drive["began"], drive["ended"]
        if until is None:
            until = max([began, *(row["finished"] for row in rows if began <= row["started"] < following)])
        there += drive["slots"] * (until - began).total_seconds()
        spans = [(max(began, row["started"]), min(until, row["finished"])) for row in rows]
        busy += sum(max(0.0, (last - first).total_seconds()) for first, last in spans)
    return (max(0.0, 1 - busy / there), there / 3600) if there else None


def _drives(store: Store) -> Iterator[dict[str, Any]]:
    """Each driver's `began`, `ended` (now for one at work, None for one that was killed) and `slots`."""
    holder = lease.holder(store.folder)
    working = holder.owner if holder is not None and not holder.dead() else None
    for name in store.folder.names("drives"):
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            drive = json.loads(store.folder.read(name))
            ended = datetime.fromisoformat(drive["ended"]) if "ended" in drive else None
            if name == f"drives/{working}.json":
                ended = datetime.now(UTC)
            yield {"began": datetime.fromisoformat(drive["began"]), "ended": ended, "slots": int(drive["slots"])}
