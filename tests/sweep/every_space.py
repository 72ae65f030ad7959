"""`sweep run SPACE --trials 2` for every space given, on digits under the smoke profile, in one process and on one Ray
cluster, so that its workers need not import everything anew; a line of JSON for each that has ended."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys

from sweep import cli, engine, spaces
from sweep.settings import read_yaml


def is_experiment(space: str) -> bool:
    return "experiment" in read_yaml(spaces.read(space), space)


def run(space: str, storage: str) -> tuple[int, str]:
    """(exit code, stderr)"""
    few = ["--profile", "smoke", "--dataset", "digits", "--seeds", "0", "--max-concurrent", "1"]
    where = ["--id", space.replace("/", "-"), "--storage", storage]
    sys.argv = ["sweep", "run", space, "--trials", "2", *where, *([] if is_experiment(space) else few)]
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0), said.getvalue()


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    folder, *names = sys.argv[1:]
    with engine.cluster(None, verbose=False):
        for name in names:
            code, err = run(name, folder)
            print(json.dumps({"space": name, "code": code, "err": err}), flush=True)
