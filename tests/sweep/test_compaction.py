from __future__ import annotations

import logging
import multiprocessing
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from shells import Shell
from sweeps import planned

from attacks.errors import InputError
from sweep.bits import pack
from sweep.compaction import Done, compact
from sweep.lease import Lease
from sweep.storage import Storage
from sweep.store import Store

SPAWN = multiprocessing.get_context("spawn")
TABLES = ("trials", "results", "epochs", "examples")
ROWS = ("clean", "linf", "l2")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(Storage(str(tmp_path)), "s1")
    made.create({})
    return made


@pytest.fixture
def copied(tmp_path: Path, swept: Store) -> Store:
    shutil.copytree(swept.storage.uri, tmp_path / "results")
    return Store(Storage(str(tmp_path / "results")), swept.sweep_id)


def verdicts(number: int, name: str) -> list[dict[str, Any]]:
    return [
        {"attack": a, "number": number, "split": name, "n": 3, "n_robust": 1, "robust_bits": pack([0, 1, 0])}
        for a in ROWS
    ]


def work(store: Store, number: int, state: str = "COMPLETE") -> str:
    """A whole run, as a trial and its driver leave it."""
    key = f"k{number}"
    store.write_plan(number, planned(key))
    for epochs in (1, 2, 3):
        store.write_epochs(key, [{"number": number, "epoch": epoch} for epoch in range(1, epochs + 1)])
        store.write_results(key, f"epoch-{epochs}-val-averaged", verdicts(number, f"val{epochs}"))
    store.write_examples(key, "val-averaged", [{"number": number, "attack": "l2", "rank": 1, "png": b"png"}])
    store.write_results(key, "val-averaged", verdicts(number, "val"))
    store.commit_trial({"number": number, "key": key, "state": state, "value": 0.5})
    return key


def held(store: Store) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, in an order of their own."""
    tables = {name: getattr(store, name)() for name in TABLES}
    return {name: sorted(table.to_pylist(), key=repr) for name, table in tables.items()}


def names(store: Store, table: str = "results") -> list[str]:
    return store.files(table)


def test_a_sweep_of_the_service_reads_the_same(copied: Store, sweep: Shell) -> None:
    def told() -> list[str]:
        where = ("--storage", copied.storage.uri, "--format", "json")
        return [sweep(verb, copied.sweep_id, *where).out for verb in ("table", "status")]

    before, said, keys = held(copied), told(), copied.trials().column("key").to_pylist()
    weights = {key: copied.weights_of(key) for key in keys}
    counts = {table: len(names(copied, table)) for table in TABLES}
    first = {done.table: done for done in compact(copied)}
    assert (held(copied), told()) == (before, said)
    assert {table: done.files for table, done in first.items()} == counts
    assert {table: len(names(copied, table)) for table in TABLES if counts[table]} == {
        table: count + 1 for table, count in counts.items() if count
    }
    again = compact(copied, delete_after=0)
    assert [(done.files, done.waiting) for done in again] == [(0, 0)] * 4
    assert {done.table: done.deleted for done in again} == counts
    assert all(len(names(copied, table)) == min(count, 1) for table, count in counts.items())
    assert (held(copied), told()) == (before, said)
    assert {key: copied.weights_of(key) for key in keys} == weights
    assert set(weights.values()) == {"live", "averaged"}
    assert compact(copied) == [Done(table) for table in TABLES]


def test_what_may_be_written_again_is_left_alone(store: Store) -> None:
    for number, state in enumerate(["COMPLETE", "PRUNED", "FAILED"]):
        work(store, number, state)
    store.write_plan(3, planned("k3"))
    store.write_epochs("k3", [{"number": 3, "epoch": 1}])
    done = {one.table: one for one in compact(store, delete_after=0)}
    assert (done["results"].files, done["results"].untouched) == (4, 8)
    assert (done["epochs"].files, done["epochs"].untouched) == (0, 3)  # one file has none to be merged with
    assert (done["trials"].files, done["trials"].untouched) == (0, 2)
    store.write_epochs("k3", [{"number": 3, "epoch": epoch} for epoch in (1, 2)])
    assert store.epochs().column("epoch").to_pylist() == [1, 2, 3] * 3 + [1, 2]


def test_later_work_is_merged_into_what_was_merged(store: Store) -> None:
    work(store, 0)
    compact(store)
    work(store, 1)
    before = held(store)
    compact(store)
    assert held(store) == before
    compact(store, delete_after=0)
    assert held(store) == before
    assert [len(names(store, table)) for table in TABLES] == [1, 1, 1, 1]
    assert len(store.written("results")) == 1 + 1 + 8  # the two compacted ones, and what they stand for


def test_large_files_are_not_written_again(store: Store) -> None:
    work(store, 0)
    compact(store, delete_after=0, large=1)
    (first,) = names(store)
    work(store, 1)
    assert {one.table: one.into for one in compact(store, delete_after=0, large=1)}["results"] == 1
    assert first in names(store)
    assert len(names(store)) == 2
    assert store.results().num_rows == 24


def test_a_name_written_again_counts_once(store: Store) -> None:
    key = work(store, 0)
    before = held(store)
    compact(store, delete_after=0)
    store.write_results(key, "val-averaged", verdicts(0, "val"))
    store.commit_trial({"number": 0, "key": key, "state": "COMPLETE", "value": 0.75})
    store.commit_trial({"number": 0, "key": key, "state": "FAILED"})
    assert held(store) == before
    assert store.judged(f"{key}-val-averaged.")
    assert not store.judged(f"{key}-test-")


def test_models_that_are_no_trials_are_merged_once_judged(store: Store) -> None:
    for key in ("pretrained", "link"):
        store.write_epochs(key, [{"epoch": 1}])
    for name in ("val-live", "test-live"):
        store.write_results("pretrained", name, verdicts(0, name))
    done = {one.table: one for one in compact(store)}
    assert (done["results"].files, done["epochs"].untouched) == (2, 1)


def test_a_spoilt_compacted_file_hides_nothing_and_deletes_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    work(store, 0)
    before = held(store)
    compact(store)
    for table in TABLES:
        for path in Path(store.storage.uri, "s1", "parquet", table).glob("compact-*"):
            data = bytearray(path.read_bytes())
            data[40] ^= 255  # in a page: the end, with the names, is sound
            path.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING):
        assert held(store) == before
    assert "skipped 1 of 5 files of results of s1: parquet/results/compact-" in caplog.text
    assert [one.deleted for one in compact(store, delete_after=0)] == [0] * 4
    assert held(store) == before


def test_unsound_files_stay(store: Store) -> None:
    work(store, 0)
    store.folder.write("parquet/results/bad.parquet", b"PAR1")
    done = {one.table: one for one in compact(store, delete_after=0)}
    assert (done["results"].files, done["results"].untouched) == (4, 1)
    assert "bad.parquet" in names(store)


def test_one_compacts_at_a_time(store: Store) -> None:
    work(store, 0)
    with (
        Lease(store.folder.child("compaction")),
        pytest.raises(InputError, match="compaction is being driven by process"),
    ):
        compact(store)
    assert not [name for name in names(store) if name.startswith("compact-")]


def test_the_command(sweep: Shell, store: Store) -> None:
    work(store, 0)
    assert "unknown sweep 's2'" in sweep.refused("compact", "s1", "s2", "--storage", store.storage.uri)
    answer = sweep("compact", "s1", "s1", "--storage", store.storage.uri)
    assert answer.code == 0
    assert [line.split()[:5] for line in answer.out.splitlines()][2] == ["s1", "results", "4", "12", "1"]


# several processes


def write(uri: str, worker: int) -> None:
    for n in range(15):
        work(Store(Storage(uri), "s1"), worker * 1000 + n)


def merge(uri: str, large: int) -> None:
    while True:
        compact(Store(Storage(uri), "s1"), delete_after=1.0, large=large, lease_seconds=0.5)


def test_readers_lose_nothing_while_writers_write_and_compactors_are_killed(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(0)
    uri = store.storage.uri
    writers = [SPAWN.Process(target=write, args=(uri, worker)) for worker in range(2)]
    wrong: list[str] = []
    stop = threading.Event()
    reader = threading.Thread(target=watch, args=(store, stop, wrong))
    for one in (*writers, reader):
        one.start()
    kills = 0
    while any(writer.is_alive() for writer in writers) or kills < 3:
        compactor = SPAWN.Process(target=merge, args=(uri, draw.choice([1, 10_000, 1 << 30])))
        compactor.start()
        compactor.join(draw.uniform(1.5, 3.0))
        compactor.kill()
        compactor.join()
        kills += 1
    stop.set()
    reader.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert wrong == []
    assert caplog.text == ""
    compact(store, delete_after=0, lease_seconds=0.5)
    assert compact(store, delete_after=0) == [Done(table) for table in TABLES]
    assert faults(store) == []
    assert [getattr(store, table)().num_rows for table in TABLES] == [30, 30 * 12, 30 * 3, 30]


def watch(store: Store, stop: threading.Event, wrong: list[str]) -> None:
    while not stop.is_set() and not wrong:
        wrong += faults(store)


def faults(store: Store) -> list[str]:
    """What a reader must never see: a committed run that lacks rows, or a row twice."""
    done = [row["key"] for row in store.trials().to_pylist() if row["state"] == "COMPLETE"]
    found = []
    for table, count in {"results": 12, "epochs": 3, "examples": 1}.items():
        rows = getattr(store, table)().column("trial").to_pylist()
        found += [f"{table} of {key}: {rows.count(key)}" for key in set(done) if rows.count(key) != count]
        found += [f"{table} of {key}: {rows.count(key)}" for key in set(rows) if rows.count(key) > count]
    return found
