"""Checks of the machine, the storage and the cluster that a sweep is to run on, one row each."""

from __future__ import annotations

import os

from sweep.doctor import cluster, machine, stored, versions
from sweep.doctor.rows import Row, finding, row
from sweep.storage import Storage
from trainers import sources


def check(storage: Storage, data_root: str | None, address: str | None = None) -> list[Row]:
    """Rows of check, state, what was found and what to do. Only FAILED stops a sweep on the default data: `missing` is
    a data set that another sweep may need, and `warn` is what may hurt later."""
    address = address or os.environ.get("RAY_ADDRESS")
    rows = [*versions.check(), *machine.check(), *stored.check(storage)]
    rows += cluster.check(address, storage)
    return rows + [_data_set(name, data_root) for name in sources.SOURCES]


def _data_set(name: str, data_root: str | None) -> Row:
    from sweep import datasets

    found = finding(f"data {name}", lambda: datasets.where(name, data_root))
    return found if found["state"] == "ok" else row(found["check"], "missing", found["found"], found["remedy"])


__all__ = ["Row", "check"]
