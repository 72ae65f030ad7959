"""Merges the small Parquet files of a sweep into large ones, beside running writers and readers.

A compacted file is written whole and names the files that it stands for; readers leave those out from that moment. They
are deleted later, when no reader that listed the files before can still be at it. Killed at any point, what is there is
complete: the same command goes on. One compactor works on a sweep at a time (a lease of its own).

Only what no writer will write again is merged: what belongs to a run whose COMPLETE row is committed, or to no planned
run at all (the pre-trained model, evaluations). A name that is written again all the same stays left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pyarrow as pa

from attacks.errors import InputError
from sweep import schema
from sweep.lease import TTL_SECONDS, Lease
from sweep.store import AT_ONCE, COMPACTED, COMPLETE, READERS, Store

DELETE_AFTER_SECONDS = 3600.0
LARGE_BYTES = 256 << 20  # in memory, of what becomes one file
_TABLES = ("trials", "results", "epochs", "examples")


@dataclass
class Done:
    """What was done to a table. `files` were merged `into` fewer; of those replaced, now or earlier, some are `deleted`
    and the others `waiting`; what is left of a run that may go on, or is unsound, stays as it is (`untouched`)."""

    table: str
    files: int = 0
    rows: int = 0
    into: int = 0
    deleted: int = 0
    waiting: int = 0
    untouched: int = 0


def compact(
    store: Store,
    delete_after: float = DELETE_AFTER_SECONDS,
    large: int = LARGE_BYTES,
    lease_seconds: float = TTL_SECONDS,
) -> list[Done]:
    """Merges what can be merged, table by table, then deletes what was replaced at least `delete_after` seconds ago.
    InputError where another process compacts the sweep. A few times `large` bytes are in memory, 1.1 GB in all
    where that was measured at the default."""
    store.document()  # an unknown sweep says so
    with Lease(store.folder.child("compaction"), lease_seconds) as lease:

        def check() -> None:
            if lease.lost.is_set():
                raise InputError(f"another process compacts {store.sweep_id}, or the storage was away: run it again")

        return [_compact(store, table, timedelta(seconds=delete_after), large, check) for table in _TABLES]


def _compact(store: Store, table: str, delete_after: timedelta, large: int, check: Callable[[], None]) -> Done:
    done = Done(table)
    for group in _groups(store, done, large):
        if len(group.names) > 1:
            check()
            data = schema.pack(pa.concat_tables(group.tables), table, group.replaces)
            store.folder.write(f"parquet/{table}/{group.name}", data)
            done.files, done.rows, done.into = done.files + len(group.names), done.rows + group.rows, done.into + 1
    _delete(store, done, delete_after, check)
    return done


@dataclass
class _Group:
    """What becomes one file."""

    names: list[str] = field(default_factory=list)
    replaces: set[str] = field(default_factory=set)
    tables: list[pa.Table] = field(default_factory=list)

    def add(self, found: list[_Found]) -> None:
        if found:
            self.names += [one.name for one in found]
            self.replaces |= {gone for one in found for gone in (one.name, *one.replaces)}
            self.tables.append(pa.concat_tables([one.rows for one in found]).combine_chunks())

    @property
    def name(self) -> str:
        """The same for the same files, so that a rival would write this very file."""
        return f"{COMPACTED}{sha256(' '.join(sorted(self.replaces)).encode()).hexdigest()[:16]}.parquet"

    @property
    def rows(self) -> int:
        return sum(map(len, self.tables))

    @property
    def size(self) -> int:
        return sum(rows.nbytes for rows in self.tables)


@dataclass(frozen=True)
class _Found:
    """A file that can be merged."""

    name: str
    rows: pa.Table
    replaces: list[str]


def _groups(store: Store, done: Done, large: int) -> Iterator[_Group]:
    """The files to merge, small compacted ones first, group by group; each is as large as it should be but the last."""
    names = store.files(done.table)
    compacted = store.compacted(done.table, names)
    replaced = {gone for made in compacted.values() for gone in made.replaces}
    merged = [name for name, made in compacted.items() if name not in replaced and made.size < large]
    small = [name for name in names if name not in replaced and not name.startswith(COMPACTED)]
    if not small:
        return
    settled = _settled(store, done.table)  # after the files were listed: a run is planned before it writes
    group = _Group()
    for some in [*([name] for name in merged), *(small[at : at + AT_ONCE] for at in range(0, len(small), AT_ONCE))]:
        found = _mergeable(store, done.table, some, settled)
        done.untouched += len(some) - len(found)
        group.add(found)
        if group.size >= large:
            yield group
            group = _Group()
    yield group


def _mergeable(store: Store, table: str, names: list[str], settled: Callable[[pa.Table], bool]) -> list[_Found]:
    """The sound files of those named, if no writer will write them again."""

    def read(name: str) -> _Found | None:
        try:
            found = _Found(name, *schema.decode(table, store.source(table, name)))
        except (schema.Unverified, FileNotFoundError):
            return None
        return found if settled(found.rows) else None

    with ThreadPoolExecutor(READERS) as threads:
        return [one for one in threads.map(read, names) if one is not None]


def _settled(store: Store, table: str) -> Callable[[pa.Table], bool]:
    """Whether all rows are of runs that have ended for good, or of what is not planned and was judged."""
    if table == "trials":
        return lambda rows: set(rows.column("state").to_pylist()) == {COMPLETE}
    runs = store.trials().select(["key", "state"]).to_pylist()
    complete = {run["key"] for run in runs if run["state"] == COMPLETE}
    going = {run["key"] for run in runs} - complete
    if table != "epochs":
        return lambda rows: going.isdisjoint(rows.column("trial").to_pylist())
    judged = complete | set(store.results(["trial"]).column("trial").unique().to_pylist()) - going
    return lambda rows: judged.issuperset(rows.column("trial").to_pylist())


def _delete(store: Store, done: Done, after: timedelta, check: Callable[[], None]) -> None:
    names = store.files(done.table)
    for name, made in store.compacted(done.table, names).items():
        gone = sorted(set(names).intersection(made.replaces))
        if gone and datetime.now(UTC) - made.made >= after and _verifies(store, done.table, name):
            check()
            for one in gone:
                store.folder.delete(f"parquet/{done.table}/{one}")
            done.deleted += len(gone)
        else:
            done.waiting += len(gone)


def _verifies(store: Store, table: str, name: str) -> bool:
    try:
        schema.decode(table, store.source(table, name))
    except (schema.Unverified, FileNotFoundError):
        return False
    return True
