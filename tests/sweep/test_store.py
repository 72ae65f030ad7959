from __future__ import annotations

import logging
import multiprocessing
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweeps import planned

import sweep
from attacks.errors import InputError
from sweep import schema
from sweep.bits import pack
from sweep.storage import Storage
from sweep.store import Store, sweep_ids

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        return Store(Storage(request.getfixturevalue("s3").s3()), "s1")
    uri = str(tmp_path / "results") if request.param == "local" else f"fsspec+memory://{uuid.uuid4().hex}"
    return Store(Storage(uri), "s1")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    made = Store(Storage(str(tmp_path)), "s1")
    made.create({})
    return made


def verdict(attack: str = "linf", robust: Any = (1, 0, 1), **changes: Any) -> dict[str, Any]:
    bits = {"n": len(robust), "n_robust": int(np.sum(robust)), "robust_bits": pack(robust)}
    return {"attack": attack, "number": 0, "split": "val", **bits, **changes}


def folder(store: Store, table: str) -> Path:
    return Path(store.storage.uri) / store.sweep_id / "parquet" / table


# round trips


VALUES: dict[Any, st.SearchStrategy[Any]] = {
    pa.string(): st.text(st.characters(codec="utf-8"), max_size=8),
    pa.float64(): st.floats(allow_nan=False),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.bool_(): st.booleans(),
    pa.binary(): st.binary(max_size=9),
    pa.timestamp("us", "UTC"): st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    pa.list_(pa.string()): st.lists(st.text(st.characters(codec="utf-8"), max_size=3), max_size=3),
}


@pytest.mark.parametrize("name", schema.TABLES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_table_comes_back(name: str, data: st.DataObject) -> None:
    needed = schema.NEEDED.get(name, ())
    columns = {f.name: VALUES[f.type] if f.name in needed else st.none() | VALUES[f.type] for f in schema.TABLES[name]}
    rows = data.draw(st.lists(st.fixed_dictionaries(columns), max_size=3))
    read, replaced = schema.decode(name, schema.encode(name, rows))
    assert read.to_pylist() == rows
    assert read.schema.equals(schema.TABLES[name], check_metadata=True)
    assert replaced == []


def test_objects_become_strict_json() -> None:
    losses = {"linf": np.float32(0.5), "l2": float("nan"), "l1": float("inf"), "n": np.int64(3)}
    row = schema.table("epochs", [{"losses": losses}]).to_pylist()[0]
    assert row["losses"] == '{"l1": null, "l2": null, "linf": 0.5, "n": 3}'


def test_times_may_be_given_as_text() -> None:
    rows = schema.table("trials", [{"started": "2026-11-20T10:00:00", "finished": "2026-11-20T10:00:00+01:00"}])
    assert rows.select(["started", "finished"]).to_pylist() == [
        {"started": datetime(2026, 11, 20, 10, tzinfo=UTC), "finished": datetime(2026, 11, 20, 9, tzinfo=UTC)}
    ]


def test_a_column_of_no_table_is_a_bug() -> None:
    with pytest.raises(ValueError, match="table epochs has no column 'loss'"):
        schema.table("epochs", [{"loss": 1.0}])


# a sweep's life


def test_a_sweep_is_written_and_read(store: Store) -> None:
    assert sweep_ids(store.storage) == []
    store.create(
        {"created": "2026-11-20T10:00:00+00:00", "trials": 2, "seed": 7, "spec": {"space": "cas"}, "more": [1]}
    )
    assert store.document()["more"] == [1]
    assert sweep_ids(store.storage) == ["s1"]
    assert store.sweep().to_pylist()[0] | {"spec": None} == {
        **dict.fromkeys(schema.SWEEPS),
        "sweep_id": "s1",
        "created": datetime(2026, 11, 20, 10, tzinfo=UTC),
        "trials": 2,
        "seed": 7,
    }
    for number in (1, 0):
        store.write_plan(number, planned(f"k{number}", "cas", 3, **{"sampler.w1": number}))
    assert [plan["runs"][0]["key"] for plan in store.plans()] == ["k0", "k1"]
    store.write_results("k0", "epoch-1-val-live", [verdict("clean"), verdict("linf")])
    store.write_epochs("k0", [{"number": 0, "epoch": e, "lr": 0.1} for e in (2, 1)])
    store.commit_trial({"number": 0, "key": "k0", "state": "COMPLETE", "value": 0.5})
    assert store.trials().select(["number", "key", "state", "value", "method", "seed", "params"]).to_pylist() == [
        {"number": 0, "key": "k0", "state": "COMPLETE", "value": 0.5, "method": "cas", "seed": 3}
        | {"params": '{"sampler.w1": 0}'},
        {"number": 1, "key": "k1", "state": "PLANNED", "value": None, "method": "cas", "seed": 3}
        | {"params": '{"sampler.w1": 1}'},
    ]
    assert store.results().column("attack").to_pylist() == ["clean", "linf"]
    assert set(store.results().column("trial").to_pylist()) == {"k0"}
    assert store.epochs().column("epoch").to_pylist() == [1, 2]


def test_the_worst_images_of_an_evaluation_come_back(store: Store) -> None:
    store.create({})
    row = {"number": 0, "attack": "fog", "rank": 1, "image": 2**40, "label": 3, "predicted": 5, "loss": 4.5}
    store.write_examples("k", "test-live", [row | {"png": b"\x89PNG", "adversarial_png": b"\x89"}])
    (read,) = store.examples().to_pylist()
    assert read.items() >= (row | {"sweep_id": "s1", "trial": "k", "png": b"\x89PNG"}).items()


def test_one_number_may_have_several_seeds(store: Store) -> None:
    store.create({})
    runs = [{"key": "a", "seed": 0, "replay": None}, {"key": "b", "seed": 1, "replay": None}]
    store.write_plan(4, {"params": {"x": 1}, "method": "sat", "runs": runs})
    store.commit_trial({"number": 4, "key": "b", "state": "PRUNED"})
    rows = store.trials().select(["number", "key", "seed", "state", "params"]).to_pylist()
    assert [(row["key"], row["seed"], row["state"]) for row in rows] == [("a", 0, "PLANNED"), ("b", 1, "PRUNED")]
    assert {row["params"] for row in rows} == {'{"x": 1}'}


def test_a_configuration_is_what_all_of_its_seeds_are(store: Store) -> None:
    """Number 1 is first by its mean, 2 lacks a seed, 3 has failed with one; a control counts for nothing."""
    store.create({})
    ends = {1: ("COMPLETE", 0.7, 0.5), 0: ("COMPLETE", 0.5, 0.6), 3: ("FAILED", 0.9, None)}
    for number, (state, first, second) in ends.items():
        for seed, value in enumerate((first, second)):
            row = {"number": number, "key": f"k{number}{seed}", "seed": seed, "method": "sat", "replay": False}
            store.commit_trial(row | {"state": "COMPLETE" if value else state, "value": value, "params": {"x": 1}})
    control = {"number": 0, "key": "c", "seed": 0, "method": "sat", "replay": True, "state": "COMPLETE", "value": 1.0}
    store.commit_trial(control | {"params": {"x": 1}})
    runs = [{"key": f"k2{seed}", "seed": seed, "replay": None} for seed in (0, 1)]
    store.write_plan(2, {"params": {"x": 1}, "method": "sat", "runs": runs})
    store.commit_trial({"number": 2, "key": "k20", "seed": 0, "state": "COMPLETE", "value": 1.0, "replay": False})
    found = store.configurations()
    assert [(one["number"], one["value"]) for one in found] == [(1, pytest.approx(0.6)), (0, pytest.approx(0.55))]
    assert [[run["key"] for run in one["runs"]] for one in found] == [["k10", "k11"], ["k00", "k01"]]
    assert [run["key"] for run in found[1]["replays"]] == ["c"]
    assert store.best() == found[0]


def test_an_id_that_exists_is_refused(store: Store) -> None:
    store.create({"seed": 1})
    with pytest.raises(InputError, match=r"sweep 's1' exists in .*: choose another id, or: python -m sweep resume s1"):
        store.create({"seed": 2})
    assert store.document()["seed"] == 1


def test_an_unknown_sweep_is_told_with_the_nearest(store: Store) -> None:
    store.create({})
    with pytest.raises(InputError, match=r"unknown sweep 's11': did you mean 's1'\?"):
        Store(store.storage, "s11").document()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "-x"])
def test_an_id_is_a_plain_name(store: Store, name: str) -> None:
    with pytest.raises(InputError, match="expected a sweep id"):
        Store(store.storage, name)


def test_an_empty_sweep_has_empty_tables(store: Store) -> None:
    store.create({})
    for name, read in {"trials": store.trials(), "results": store.results(), "epochs": store.epochs()}.items():
        assert read.num_rows == 0
        assert read.schema == schema.TABLES[name]


def test_writing_twice_changes_nothing(store: Store) -> None:
    store.create({})
    for _ in range(2):
        store.write_plan(0, planned("k"))
        store.write_results("k", "val", [verdict()])
        store.write_epochs("k", [{"number": 0, "epoch": 1}])
        store.commit_trial({"number": 0, "key": "k", "state": "FAILED"})
    assert [t.num_rows for t in (store.trials(), store.results(), store.epochs())] == [1, 1, 1]


@pytest.mark.parametrize("late", ["COMPLETE", "FAILED", "PRUNED"])
def test_a_complete_row_stands(store: Store, late: str) -> None:
    store.create({})
    store.commit_trial({"number": 0, "key": "k", "state": "FAILED", "error": "NaN"})
    store.commit_trial({"number": 0, "key": "k", "state": "COMPLETE", "value": 0.25})
    store.commit_trial({"number": 0, "key": "k", "state": late, "value": 0.75})
    assert store.trials().select(["state", "value", "error"]).to_pylist() == [
        {"state": "COMPLETE", "value": 0.25, "error": None}
    ]


def test_a_retry_replaces_a_failure(store: Store) -> None:
    store.create({})
    store.commit_trial({"number": 0, "key": "k", "state": "FAILED", "attempts": 1})
    store.commit_trial({"number": 0, "key": "k", "state": "FAILED", "attempts": 2})
    assert store.trials().column("attempts").to_pylist() == [2]


def test_a_spoilt_complete_row_can_be_committed_again(local: Store) -> None:
    local.commit_trial({"number": 0, "key": "k", "state": "COMPLETE", "value": 0.25})
    (folder(local, "trials") / "00000-k-complete.parquet").write_bytes(b"")
    local.commit_trial({"number": 0, "key": "k", "state": "COMPLETE", "value": 0.25})
    assert local.trials().column("value").to_pylist() == [0.25]


def test_bits_that_contradict_the_count_are_a_bug(store: Store) -> None:
    with pytest.raises(ValueError, match="linf: n_robust is 3, but 2 bits are set"):
        store.write_results("k", "val", [verdict(n_robust=3)])
    with pytest.raises(ValueError, match="bytes for 99 images"):
        store.write_results("k", "val", [verdict(n=99)])


# reading a part


def test_columns_and_rows_are_read_alone(store: Store) -> None:
    store.create({})
    for key in ("a", "b"):
        store.write_results(key, "val", [verdict("clean", [1, 1, 1]), verdict("linf"), verdict("l2", [0, 0, 1])])
        store.write_epochs(key, [{"number": 0, "epoch": e, "lr": e / 10} for e in (2, 1)])
    whole = store.results()
    assert store.results(["attack", "trial"]).equals(whole.select(["attack", "trial"]))
    weak = (pc.field("n_robust") < 3) & (pc.field("trial") == "b")
    assert store.results(["attack"], weak).column("attack").to_pylist() == ["linf", "l2"]
    assert store.results(where=weak).equals(whole.filter(weak))
    assert store.results(["attack"], pc.field("epoch") == 1).num_rows == 0
    assert store.epochs(["lr"], pc.field("trial") == "a").num_rows == 2
    assert store.epochs(["lr"]).column("lr").to_pylist() == [0.1, 0.2, 0.1, 0.2]


def test_a_part_is_verified_and_the_rest_is_not_read(local: Store, caplog: pytest.LogCaptureFixture) -> None:
    local.write_results("good", "val", [verdict()])
    local.write_results("bad", "val", [verdict(mean_loss=0.12345)])
    path = folder(local, "results") / "bad-val.parquet"
    pages = pq.ParquetFile(path).metadata.row_group(0)
    (loss,) = (pages.column(i) for i in range(pages.num_columns) if pages.column(i).path_in_schema == "mean_loss")
    data = bytearray(path.read_bytes())
    data[loss.dictionary_page_offset + loss.total_compressed_size - 3] ^= 255
    path.write_bytes(bytes(data))
    assert local.results(["trial"]).column("trial").to_pylist() == ["bad", "good"]
    assert caplog.text == ""
    assert local.results(["trial"], pc.field("mean_loss").is_null()).column("trial").to_pylist() == ["good"]
    assert "skipped 1 of 2 files of results of s1: parquet/results/bad-val.parquet (corrupt" in caplog.text


# what others left in the folder


def test_a_file_of_an_older_version_reads_null(local: Store) -> None:
    local.write_results("k", "new", [verdict()])
    old = schema.table("results", [verdict("l2", sweep_id="s1", trial="k")]).drop_columns(["flags", "predicted"])
    path = folder(local, "results") / "a-old.parquet"
    pq.write_table(old.select(old.column_names[::-1]), path)
    rows = local.results().select(["attack", "flags", "predicted", "n"]).to_pylist()
    assert rows[0] == {"attack": "l2", "flags": None, "predicted": None, "n": 3}
    assert len(rows) == 2


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 255]) + data[41:]


def of_another_type(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"trial": ["k"], "split": ["val"], "attack": ["linf"], "n": ["many"]})
    table = table.replace_schema_metadata({"sweep.table": "results"})
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def foreign(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"attack": ["linf"], "n": [3]}), sink)
    return bytes(sink.getvalue())


def lacking(data: bytes) -> bytes:
    return schema.encode("results", [verdict(trial=None)])


def of_another_table(data: bytes) -> bytes:
    return schema.encode("epochs", [{"epoch": 1}])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncated, "corrupt"),
        (flipped, "corrupt"),
        (of_another_type, "corrupt"),
        (foreign, "foreign"),
        (of_another_table, "foreign"),
        (lacking, "foreign: rows without trial"),
        (lambda data: b"", "corrupt"),
        (lambda data: b"attack,n\nlinf,3\n", "corrupt"),
    ],
)
def test_unsound_files_are_skipped_counted_and_named(
    local: Store, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    local.write_results("good", "val", [verdict()])
    data = (folder(local, "results") / "good-val.parquet").read_bytes()
    (folder(local, "results") / "bad-val.parquet").write_bytes(spoil(data))
    with caplog.at_level(logging.WARNING):
        assert local.results().column("trial").to_pylist() == ["good"]
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("skipped 1 of 2 files of results of s1: parquet/results/bad-val.parquet (" + reason)
    assert "\n" not in message


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_spoilt_byte_gives_other_rows(data: st.DataObject) -> None:
    rows = [verdict(robust=[1, 0] * 40, sweep_id="s1", mean_loss=float(i)) for i in range(3)]
    good = schema.encode("results", rows)
    at = data.draw(st.integers(4, good.index(b"sweep_id", 200) - 1))  # within the pages, which carry checksums
    spoilt = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        read, _ = schema.decode("results", spoilt)
    except schema.Unverified:
        return
    assert read.equals(schema.table("results", rows))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "k"}', '{"number": 1}', '{"number": 2, "runs": [{}]}'])
def test_unsound_plans_are_skipped_and_named(local: Store, caplog: pytest.LogCaptureFixture, text: str) -> None:
    local.write_plan(0, planned("k"))
    local.folder.write("plans/00001.json", text.encode())
    assert [plan["number"] for plan in local.plans()] == [0]
    assert "skipped 1 of 2 files of plans of s1: plans/00001.json" in caplog.text


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff\xfe", b""])
def test_an_unsound_sweep_document_is_one_line(local: Store, text: bytes) -> None:
    local.folder.write("sweep.json", text)
    with pytest.raises(InputError, match=r"sweep\.json is corrupt: [^\n]*$"):
        local.document()


def test_a_compacted_file_hides_what_it_replaces(local: Store) -> None:
    local.write_results("a", "val", [verdict()])
    local.write_results("b", "val", [verdict()])
    both = schema.encode("results", local.results().to_pylist(), replaces=["a-val.parquet", "b-val.parquet"])
    local.folder.write("parquet/results/compact-1.parquet", both)
    assert local.results().column("trial").to_pylist() == ["a", "b"]


def test_a_storage_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^cannot write .*: Not a directory"):
        Store(Storage(str(tmp_path / "file")), "s1").create({})


# several processes


def commit(uri: str, value: float) -> None:
    state = "COMPLETE" if value < 0.5 else "FAILED"
    for _ in range(20):
        Store(Storage(uri), "s1").commit_trial({"number": 0, "key": "k", "state": state, "value": value})


def test_one_of_several_committers_wins_for_good(local: Store) -> None:
    processes = [SPAWN.Process(target=commit, args=(local.storage.uri, i / 4)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    (row,) = local.trials().to_pylist()
    assert (row["state"], row["value"]) in [("COMPLETE", i / 4) for i in range(4)]
    commit(local.storage.uri, 0.1)
    assert local.trials().to_pylist() == [row]


def work(uri: str, worker: int) -> None:
    store = Store(Storage(uri), "s1")
    for n in range(1, 31):
        key = f"w{worker}-{n % 5}"
        store.write_epochs(key, [{"number": worker, "epoch": e} for e in range(n)])
        store.write_results(key, f"epoch-{n}", [verdict(number=worker, epoch=n)])
        store.commit_trial({"number": worker * 100 + n, "key": key, "state": "COMPLETE"})


def test_readers_see_whole_files_while_writers_write(local: Store, caplog: pytest.LogCaptureFixture) -> None:
    writers = [SPAWN.Process(target=work, args=(local.storage.uri, worker)) for worker in range(2)]
    for writer in writers:
        writer.start()
    seen = [0]
    while any(writer.is_alive() for writer in writers):
        seen.append(local.results().num_rows)
        local.epochs(), local.trials()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen == sorted(seen)
    assert caplog.text == ""
    assert (local.results().num_rows, local.trials().num_rows) == (60, 60)
    assert local.epochs().num_rows == 2 * sum(range(26, 31))
    assert not [path for path in folder(local, "results").iterdir() if path.suffix != ".parquet"]


# from Python


def test_results_as_a_data_frame(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    local.write_results("k", "val", [verdict("linf"), verdict("l2")])
    frame = sweep.results(local.storage.uri, "s1")
    assert list(frame.columns) == list(schema.RESULTS)
    assert list(frame["attack"]) == ["linf", "l2"]
    monkeypatch.setenv("SWEEP_STORAGE", local.storage.uri)
    assert sweep.results().equals(frame)
    assert len(sweep.results(sweep_id=[])) == 0
    with pytest.raises(InputError, match="unknown sweep 'x'"):
        sweep.results(sweep_id="x")


def test_results_in_polars_straight_from_the_files(local: Store) -> None:
    import polars

    local.write_results("k", "val", [verdict("linf"), verdict("l2")])
    frame = polars.read_parquet(folder(local, "results") / "*.parquet")
    assert frame.filter(polars.col("attack") == "l2")["n_robust"].to_list() == [2]
