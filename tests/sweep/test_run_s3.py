"""A whole sweep on a real S3 server, by real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from object_stores import BUCKET, SECRET, Server
from shells import Shell
from sweeps import Sweeps, wait_until

from sweep.storage import Storage
from sweep.store import Store

pytestmark = pytest.mark.ray


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[Sweeps]:
    made = Sweeps(tmp_path)
    yield made
    made.end()


def complete(store: Store) -> dict[int, float]:
    return {row["number"]: row["value"] for row in store.trials().to_pylist() if row["state"] == "COMPLETE"}


def test_a_killed_sweep_on_s3_is_resumed_and_read(
    s3: Server, sweeps: Sweeps, sweep: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun with credentials in the environment, resumed with credentials in the URI."""
    bare = f"s3://{BUCKET}/{uuid4().hex}"
    sweeps.environment |= {**s3.environment(), "SWEEP_STORAGE": bare}
    for name, value in sweeps.environment.items():
        monkeypatch.setenv(name, value)
    store = Store(Storage(bare), "s")
    process = sweeps.start("run", sweeps.space(), "--trials", "3", "--max-concurrent", "1", "--id", "s")
    wait_until(lambda: bool(complete(store)), process)
    process.kill()
    process.wait()
    before = complete(store)
    assert 1 <= len(before) < 3

    in_uri = f"{bare.replace('://', '://test-key:test%2Bsecret%2Fof%25all@')}?{s3.options}"
    code, out, err = sweeps.run("resume", "s", "--storage", in_uri)
    assert code == 0, err
    assert sorted(complete(store)) == [0, 1, 2]
    assert complete(store).items() >= before.items()
    assert f"--storage '{bare}?scheme=http&endpoint_override=127.0.0.1:{s3.port}'" in out
    assert not [text for text in (out, err) if SECRET in text or "test%2B" in text]
    outcome = json.loads(store.folder.read(f"checkpoints/{store.plans()[0]['runs'][0]['key']}/outcome.json"))
    assert outcome["attempts"] == 1, "a finished trial was run again"

    assert sweep("status", "s").out.count("COMPLETE") >= 1
    asked = sweep("query", "select count(*) as n from trials", "--format", "json")
    assert json.loads(asked.out) == [{"n": 3}]
    assert "cas" in sweep("table", "s").out or "sat" in sweep("table", "s").out
    assert sweep("report", "s").code == 0
    assert b"<html" in store.folder.read("report/index.html")
    assert sweep("compact", "s").code == 0
    assert sweep("gc", "s", "--keep", "1").code == 0
    assert len({name.split("/")[1] for name in store.folder.names("checkpoints")}) == 1
    assert sorted(complete(store)) == [0, 1, 2]
    assert not store.folder.exists("lease.json")
