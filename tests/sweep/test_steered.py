"""A real sweep that is stopped, extended, cancelled and gone on with."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweeps import Sweeps, wait_until

from sweep import cli


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[Sweeps]:
    made = Sweeps(tmp_path)
    yield made
    made.end()


@pytest.mark.ray
def test_stop_extend_cancel_resume(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_STORAGE", str(sweeps.folder / "results"))
    store = sweeps.store("steered")

    def states() -> Counter[str]:
        return Counter(row["state"] for row in store.trials().to_pylist())

    def asks(verb: str) -> None:
        monkeypatch.setattr("sys.argv", ["sweep", verb, "steered"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code

    one = ["--max-concurrent", "1"]
    driver = sweeps.start("run", sweeps.space(epochs=1), "--trials", "5", "--id", "steered", *one)
    wait_until(lambda: states()["COMPLETE"] >= 1, driver)
    asks("stop")
    assert driver.wait(120) == 0
    log = (sweeps.folder / "log").read_text()
    assert "no more trials begin: it was asked to stop" in log
    done = states()
    assert 1 <= done["COMPLETE"] < 5
    assert done["PLANNED"] == 0, "what ran was finished"
    assert "on the test split" in (sweeps.folder / "out").read_text()

    driver = sweeps.start("extend", "steered", "--trials", "1", *one)
    wait_until(lambda: states()["COMPLETE"] > done["COMPLETE"], driver)
    asks("cancel")
    assert driver.wait(120) == 128 + signal.SIGINT
    assert "interrupted; go on with: python -m sweep resume steered" in (sweeps.folder / "log").read_text()
    assert states()["COMPLETE"] < 6

    code, _, err = sweeps.run("resume", "steered")
    assert code == 0, err
    assert states() == {"COMPLETE": 6}
