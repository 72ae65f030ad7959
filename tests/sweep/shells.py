"""`sweep ...` in the process of the test, and a finished sweep for it to read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sweep import cli
from sweep.bits import pack


@dataclass
class Answer:
    code: int
    out: str
    err: str


@dataclass
class Shell:
    """`sweep ...` in this process, with $SWEEP_STORAGE in a folder that is not there yet."""

    folder: Path
    patch: pytest.MonkeyPatch
    streams: pytest.CaptureFixture[str]

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def __call__(self, *arguments: str) -> Answer:
        self.patch.setattr(sys, "argv", ["sweep", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = self.streams.readouterr()
        return Answer(int(ended.value.code or 0), told.out, told.err)

    def refused(self, *arguments: str) -> str:
        """The message of wrong use: exit code 2, nothing on stdout, no traceback, nothing written."""
        before = sorted(self.folder.rglob("*"))
        answer = self(*arguments)
        assert answer.code == 2, answer
        assert answer.out == ""
        assert "Traceback" not in answer.err
        head, *faults = answer.err.removesuffix("\n").split("\n")
        assert head.startswith("error: ")
        assert not faults or (head.endswith(":") and all(line.startswith("  ") for line in faults))
        assert sorted(self.folder.rglob("*")) == before
        return answer.err.removeprefix("error: ").removesuffix("\n")

    def write(self, text: str) -> str:
        path = self.folder / "space.yaml"
        path.write_text(text)
        return str(path)


FAMILY = {"clean": "clean", "linf": "lp", "l1": "lp", "blur": "semantic"}


def verdict(number: int, method: str, split: str, attack: str) -> dict[str, Any]:
    bits = [i % (2 + number) == 0 or attack == "clean" for i in range(12)]
    row: dict[str, Any] = {
        "number": None if method == "pretrained" else number,
        "method": method,
        "split": split,
        "attack": attack,
    }
    row |= {"family": FAMILY[attack], "epoch": 1, "weights": "live", "images": split, "protocol": "quick"}
    row |= {"n": 12, "n_robust": sum(bits), "robust_accuracy": sum(bits) / 12, "robust_bits": pack(bits)}
    return row | {"budget_id": "digits", "epsilon": 0.1, "num_steps": 10, "conditional": False}
