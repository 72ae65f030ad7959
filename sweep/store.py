"""The results of one sweep: written one file per finished piece of work, read whole and verified.

    <storage>/<sweep-id>/sweep.json               the sweep as resolved
                         plans/<number>.json      planned trials
                         parquet/<table>/*.parquet
                         checkpoints/<key>/...

Names derive from the key of the work, so writing twice is harmless and writers never meet. A compacted file names those
that it stands for; readers leave them out.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from attacks.errors import InputError, unknown
from sweep import schema
from sweep.bits import unpack, unpack_classes
from sweep.goals import VALUE, Goal, metrics
from sweep.storage import Storage

_log = logging.getLogger(__name__)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
_ORDER = ("number", "trial", "epoch")
READERS = 16  # threads: a remote file costs a round trip
AT_ONCE = 16 * READERS  # small files that are read before they are put together
_TRIES = 5
_GONE = "deleted since it was listed"
COMPACTED = "compact-"
"""How the name of a file begins that stands for others: see compaction."""
COMPLETE, PRUNED, FAILED, PLANNED = "COMPLETE", "PRUNED", "FAILED", "PLANNED"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Store:
    """One sweep's folder. Picklable; holds no connection and no cache."""

    storage: Storage
    sweep_id: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.sweep_id):
            raise InputError(f"expected a sweep id of letters, digits and . _ = + -, got {self.sweep_id!r}")

    @property
    def folder(self) -> Storage:
        """The sweep's own storage, where checkpoints/ and lease.json lie too."""
        return self.storage.child(self.sweep_id)

    # what is planned

    def create(self, document: Row) -> None:
        """Writes sweep.json: the document with the keys of schema.SWEEPS, and whatever else resuming needs."""
        try:
            self.folder.create("sweep.json", _json({**document, "sweep_id": self.sweep_id}))
        except FileExistsError:
            raise InputError(
                f"sweep {self.sweep_id!r} exists in {self.storage.where()}: "
                f"choose another id, or: python -m sweep resume {self.sweep_id}"
            ) from None

    def document(self) -> dict[str, Any]:
        """sweep.json; InputError where the sweep is unknown or the file is not sound."""
        try:
            return _parsed(self.folder.read("sweep.json"))
        except FileNotFoundError:
            raise unknown("sweep", self.sweep_id, sweep_ids(self.storage)) from None
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{self.folder.where('sweep.json')} is corrupt: {error}") from error

    def amend(self, document: Row) -> None:
        """Writes sweep.json over the one that is there: for whoever holds the sweep's lease."""
        self.folder.write("sweep.json", _json(document))

    def write_plan(self, number: int, plan: Row) -> None:
        """plans/<number>.json: method, params (address -> value) and runs, a list of {key, seed, replay, confirm}."""
        self.folder.write(f"plans/{number:05d}.json", _json({**plan, "number": number}))

    def plans(self) -> list[dict[str, Any]]:
        """All planned trials in number order; unsound files are skipped, counted and named."""
        found, skipped = _read_all(self.folder, "plans", ".json", _plan)
        _warn(f"plans of {self.sweep_id}", found, skipped)
        return sorted(found.values(), key=lambda plan: int(plan["number"]))

    # what is done

    def write_results(self, key: str, name: str, rows: Iterable[Row]) -> None:
        """The rows of one evaluation of the trial `key`; `name` tells it from the trial's others (epoch-3-val-live)."""
        rows = self._owned(key, rows)
        for row in rows:
            _check_verdicts(row)
        self._put("results", f"{key}-{name}", rows)

    def write_examples(self, key: str, name: str, rows: Iterable[Row]) -> None:
        """The worst images of one evaluation of the trial `key`, before its results: `name` as theirs."""
        self._put("examples", f"{key}-{name}", self._owned(key, rows))

    def write_epochs(self, key: str, rows: Iterable[Row]) -> None:
        """All epochs of the trial so far, over those written before."""
        self._put("epochs", key, self._owned(key, rows))

    def write_tradeoff(self, rows: Iterable[Row]) -> None:
        """The whole matrix."""
        self._put(schema.TRADEOFF, schema.TRADEOFF, [{**row, "sweep_id": self.sweep_id} for row in rows])

    def commit_trial(self, row: Row) -> None:
        """The trial's row, last of all. The first COMPLETE row stands for ever: no later commit of the trial counts.

        It lies in a file of its own, created and never replaced, so a late FAILED of another driver cannot hide it.
        """
        complete = row["state"] == COMPLETE
        name = f"{int(row['number']):05d}-{row['key']}" + ("-complete" if complete else "")
        data = schema.encode("trials", [{**row, "sweep_id": self.sweep_id}])
        if not complete:
            return self.folder.write(_file("trials", name), data)
        try:
            self.folder.create(_file("trials", name), data)
        except FileExistsError:
            if self._unsound("trials", name):
                self.folder.write(_file("trials", name), data)

    # what is read

    def trials(self) -> pa.Table:
        """One row per planned run: the COMPLETE one where there is one, else the last written, else PLANNED.

        What a committed row leaves null comes from the plan.
        """
        planned = {(row["number"], row["key"]): row for row in self._planned()}
        runs = dict(planned)
        for row in sorted(self._read("trials").to_pylist(), key=lambda row: bool(row["state"] == COMPLETE)):
            run = row["number"], row["key"]
            runs[run] = planned.get(run, {}) | {column: value for column, value in row.items() if value is not None}
        return schema.table("trials", [runs[run] for run in sorted(runs)])

    def ended(self) -> list[dict[str, Any]]:
        """The rows of the runs that are not PLANNED any more."""
        return [row for row in self.trials().to_pylist() if row["state"] != PLANNED]

    def configurations(self) -> list[dict[str, Any]]:
        """What ended well, best first by the sweep's goal (Goal.ranked): number, method, params, the means of `value`
        and of all `metrics` over the search's seeds, and `runs`, the rows of each, with those COMPLETE that confirm it;
        its controls beside them, under `replays`. `confirmed`: the metrics over all of `runs`, if some confirm it."""
        runs: dict[int, list[dict[str, Any]]] = {}
        for row in self.trials().to_pylist():
            runs.setdefault(row["number"], []).append(row)
        found = []
        for number, rows in runs.items():
            own = [row for row in rows if not row["replay"]]
            state, value = overall(own)
            if state == COMPLETE and value is not None:
                about = {name: own[0][name] for name in ("method", "params")}
                replays = [row for row in rows if row["replay"] and row["state"] == COMPLETE]
                complete = [row for row in own if row["state"] == COMPLETE]
                about |= {"value": value, "metrics": metrics(own)}
                about |= {"confirmed": metrics(complete, confirm=True) if any(r["confirm"] for r in complete) else {}}
                found.append({"number": number, **about, "runs": complete, "replays": replays})
        return self.goal().ranked(found)

    def best(self) -> dict[str, Any] | None:
        """The first of the configurations."""
        return next(iter(self.configurations()), None)

    def goal(self) -> Goal:
        """What the sweep's search is for; of what is no sweep, the standard value."""
        spec = self.document().get("spec")
        stated = spec if isinstance(spec, Mapping) else {}
        return Goal(stated.get("objectives", (VALUE,)), stated.get("constraints", ()))

    def probabilities(self, key: str) -> dict[str, float]:
        """How probable each attack was in a run, over its epochs."""
        epochs = self.epochs(["probabilities"], pc.field("trial") == key).column("probabilities").to_pylist()
        found = [json.loads(text) for text in epochs if text]
        return {name: sum(one[name] for one in found) / len(found) for name in found[0]} if found else {}

    def weights_of(self, key: str) -> str:
        """Which weights of a COMPLETE trial were judged and kept: live or averaged."""
        return "averaged" if self.judged(f"{key}-val-averaged.") else "live"

    def judged(self, start: str) -> bool:
        """Whether results were written under a name, as `write_results` makes it, that begins so."""
        return any(name.startswith(start) for name in self.written("results"))

    def written(self, table: str) -> set[str]:
        """The names of a table's files, of those too that a compacted file stands for."""
        names = self.files(table)
        return {*names, *(gone for made in self.compacted(table, names).values() for gone in made.replaces)}

    def files(self, table: str) -> list[str]:
        """The names of a table's files."""
        names = [name.removeprefix(f"parquet/{table}/") for name in self.folder.names(f"parquet/{table}")]
        return [name for name in names if name.endswith(".parquet") and "/" not in name]

    def compacted(self, table: str, names: Iterable[str]) -> dict[str, schema.Compacted]:
        """What the compacted files among those named say of themselves; unsound ones are left out."""
        found = {}
        for name in names:
            if name.startswith(COMPACTED):
                with suppress(schema.Unverified, FileNotFoundError):
                    found[name] = schema.about(table, self.source(table, name))
        return found

    def source(self, table: str, name: str) -> schema.Source:
        """A file of a table; FileNotFoundError where there is none. Of a large one no more is read than needed."""
        path = f"parquet/{table}/{name}"
        return self.folder.open(path) if name.startswith(COMPACTED) else self.folder.read(path)

    def results(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """With `columns` only these, and with `where` only the rows that it is true of: the others are not read."""
        return self._read("results", columns, where)

    def examples(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """`columns` and `where` as for results."""
        return self._read("examples", columns, where)

    def tradeoff(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """`columns` and `where` as for results."""
        return self._read(schema.TRADEOFF, columns, where)

    def epochs(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """In the order of numbers, trials and epochs; `columns` and `where` as for results."""
        wanted = schema.EPOCHS if columns is None else columns
        read = self._read("epochs", list(dict.fromkeys([*wanted, *_ORDER])), where)
        return read.sort_by([(name, "ascending") for name in _ORDER]).select(list(wanted))

    def sweep(self) -> pa.Table:
        """The one row of the view `sweeps`."""
        try:
            document = {**self.document(), "sweep_id": self.sweep_id}
            return schema.table("sweeps", [{column: document.get(column) for column in schema.SWEEPS}])
        except (pa.ArrowException, ValueError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.folder.where('sweep.json')} is not a sweep's: {error}") from error

    def _planned(self) -> list[dict[str, Any]]:
        return [
            {
                "sweep_id": self.sweep_id,
                "number": plan["number"],
                "key": run["key"],
                "seed": run["seed"],
                "replay": run["replay"] is not None,
                "confirm": run.get("confirm", False),
                "method": plan["method"],
                "params": plan["params"],
                "state": PLANNED,
            }
            for plan in self.plans()
            for run in plan["runs"]
        ]

    def _owned(self, key: str, rows: Iterable[Row]) -> list[dict[str, Any]]:
        return [{**row, "sweep_id": self.sweep_id, "trial": key} for row in rows]

    def _put(self, table: str, name: str, rows: Sequence[Row]) -> None:
        self.folder.write(_file(table, name), schema.encode(table, rows))

    def _unsound(self, table: str, name: str) -> bool:
        try:
            schema.decode(table, self.folder.read(_file(table, name)))
        except (schema.Unverified, FileNotFoundError):
            return True
        return False

    def _read(self, table: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        decode = schema.decoder(table, columns, where)
        for _ in range(_TRIES):
            read, skipped = self._read_listed(table, decode)
            if all(reason != _GONE for reason in skipped.values()):
                break  # else a compacted file has taken its place since it was listed
        empty = schema.empty(schema.TABLES[table])
        _warn(f"{table} of {self.sweep_id}", read, skipped)
        return pa.concat_tables([empty if columns is None else empty.select(columns), *read.values()])

    def _read_listed(
        self, table: str, decode: Callable[[schema.Source], tuple[pa.Table, list[str]]]
    ) -> tuple[dict[str, pa.Table], dict[str, str]]:
        """What counts of the files there now, by name, and the reasons to skip some. Small files are put together while
        they are read: many small pieces would hold several times their memory."""
        skipped: dict[str, str] = {}

        def parse(name: str) -> tuple[str, pa.Table, list[str]] | None:
            try:
                return name, *decode(self.source(table, name))
            except (schema.Unverified, FileNotFoundError) as error:
                skipped[f"parquet/{table}/{name}"] = str(error) if isinstance(error, schema.Unverified) else _GONE
                return None

        names = self.files(table)
        large = [name for name in names if name.startswith(COMPACTED)]
        with ThreadPoolExecutor(READERS) as threads:
            compacted = [one for one in threads.map(parse, large) if one is not None]
            replaced = {gone for _, _, replaces in compacted for gone in replaces}
            read = {name: rows for name, rows, _ in compacted if name not in replaced}
            small = [name for name in names if name not in replaced and not name.startswith(COMPACTED)]
            for some in (small[at : at + AT_ONCE] for at in range(0, len(small), AT_ONCE)):
                if found := [one for one in threads.map(parse, some) if one is not None]:
                    read |= {name: rows.slice(0, 0) for name, rows, _ in found}
                    read[found[0][0]] = pa.concat_tables([rows for _, rows, _ in found]).combine_chunks()
        return read, skipped


def sweep_ids(storage: Storage) -> list[str]:
    """The sweeps in a storage, sorted."""
    return [name for name in storage.folders() if _ID.fullmatch(name) and storage.exists(f"{name}/sweep.json")]


def _file(table: str, name: str) -> str:
    return f"parquet/{table}/{name}.parquet"


def _json(document: Row) -> bytes:
    return (json.dumps(document, indent=2, default=str) + "\n").encode()


def _parsed(data: bytes) -> dict[str, Any]:
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError(f"expected a JSON object, got {type(document).__name__}")
    return document


def _plan(data: bytes) -> dict[str, Any]:
    plan = _parsed(data)
    held = plan.keys() >= {"number", "method", "params"} and isinstance(plan["number"], int)
    if not held or not all(run.keys() >= {"key", "seed", "replay"} for run in plan.get("runs") or [{}]):
        raise ValueError("foreign: no number, no configuration or no run")
    return plan


def overall(rows: Sequence[Row]) -> tuple[str, float | None]:
    """The state and mean value of a configuration from the rows of its runs: COMPLETE where all are. What confirms it
    does not count."""
    rows = [row for row in rows if not row.get("confirm")]
    states = {row["state"] for row in rows}
    for state in (PLANNED, FAILED, PRUNED):
        if state in states:
            return state, None
    values = [row["value"] for row in rows]
    return COMPLETE, None if None in values else sum(values) / len(values)


def _read_all(
    folder: Storage, prefix: str, suffix: str, parse: Callable[[bytes], Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Every file below the prefix, parsed, by name; and the skipped ones with their reasons."""

    def one(name: str) -> tuple[Any, str | None]:
        try:
            return parse(folder.read(name)), None
        except FileNotFoundError:  # deleted since it was listed
            return None, ""
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            return None, str(error)

    names = [name for name in folder.names(prefix) if name.endswith(suffix)]
    with ThreadPoolExecutor(READERS) as threads:
        read = dict(zip(names, threads.map(one, names), strict=True))
    found = {name: value for name, (value, reason) in read.items() if reason is None}
    return found, {name: reason for name, (_, reason) in read.items() if reason}


def _warn(what: str, found: Row, skipped: Mapping[str, str]) -> None:
    if skipped:
        named = "; ".join(f"{name} ({reason})" for name, reason in skipped.items())
        _log.warning("skipped %d of %d files of %s: %s", len(skipped), len(skipped) + len(found), what, named)


def _check_verdicts(row: Row) -> None:
    """A row whose count and bits disagree, or that has not a class for each image, is a bug of the writer."""
    for name in ("predicted", "labels"):
        if row.get(name) is not None:
            unpack_classes(row[name], row["n"])
    if row.get("robust_bits") is not None:
        count = int(unpack(row["robust_bits"], row["n"]).sum())
        if count != row["n_robust"]:
            raise ValueError(f"{row['attack']}: n_robust is {row['n_robust']}, but {count} bits are set")
