from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from object_stores import Server, fake_gcs, seaweed
from shells import FAMILY, Shell, verdict
from sweeps import Sweeps, planned

from sweep.layers import resolve
from sweep.settings import nest
from sweep.storage import Storage
from sweep.store import Store


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("SWEEP_STORAGE", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("SWEEP_DATA", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def finished(sweep: Shell) -> Store:
    """A finished sweep `s` of two trials, and the pre-trained model's verdicts."""
    made = Store(Storage(str(sweep.results)), "s")
    resolved = resolve("sat", nest({"trials": 2, "dataset": "digits"}))
    document = {"space": "sat", "method": "sat", "dataset": "digits", "fingerprint": "f", "trials": 2, "seed": 0}
    made.create(document | {"created": "2026-11-20T10:00:00+00:00", "spec": resolved.model_dump(mode="json")})
    for number, (key, method) in enumerate([("k0", "sat"), ("k1", "sat"), ("p", "pretrained")]):
        for split in ("val", "test"):
            made.write_results(key, f"{split}-live", [verdict(number, method, split, a) for a in FAMILY])
        if method == "sat":
            params = {"optimizer.lr": 0.1 + number}
            made.write_plan(number, planned(key, **params))
            made.commit_trial({"number": number, "key": key, "state": "COMPLETE", "value": 0.5, "params": params})
    return made


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The finished sweep `fixture` of tests/sweep/fixture.yaml, made once for all test processes; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "swept"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            space, sweeps = Path(__file__).with_name("fixture.yaml"), Sweeps(folder)
            try:
                code, _, err = sweeps.run("run", str(space), "--attacks", "all", "--id", "fixture", seconds=500)
            finally:
                sweeps.end()
            assert code == 0, err
    return Store(Storage(str(folder / "results")), "fixture")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real S3 server."""
    with seaweed(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server
