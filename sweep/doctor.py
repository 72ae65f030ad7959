"""Checks of the machine that a sweep is to run on, one row each."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from attacks.errors import InputError
from sweep.storage import Storage
from trainers import sources

PACKAGES = ("torch", "ray", "optuna", "pyarrow", "duckdb", "pydantic", "safetensors", "scikit-learn")
Row = dict[str, Any]


def check(storage: Storage, data_root: str | None) -> list[Row]:
    """Rows of check, state (ok, missing, FAILED) and what was found. Only FAILED stops a sweep on the default data."""
    rows = [_try("python", platform.python_version)]
    rows += [_try(name, partial(version, name)) for name in PACKAGES]
    rows += [_try("device", _device), _try("storage", lambda: _storage(storage)), _try("ray", _ray)]
    return rows + [_data_set(name, data_root) for name in sources.SOURCES]


def _try(name: str, found: Callable[[], str]) -> Row:
    try:
        return {"check": name, "state": "ok", "found": found()}
    except (InputError, PackageNotFoundError, OSError, RuntimeError) as e:
        return {"check": name, "state": "FAILED", "found": str(e).splitlines()[0]}


def _device() -> str:
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{os.cpu_count()} CPUs; {', '.join(cuda) or 'no GPU'}"


def _storage(storage: Storage) -> str:
    name, blob = f"doctor-{os.getpid()}", os.urandom(1 << 20)
    start = time.perf_counter()
    storage.write(name, blob)
    sound = storage.read(name) == blob
    seconds = time.perf_counter() - start
    storage.delete(name)
    if not sound:
        raise OSError(f"{storage.where()}: what was read back differs from what was written")
    return f"{storage.where()}: 1 MiB written and read back in {1000 * seconds:.0f} ms"


def _ray() -> str:
    import ray

    from sweep import engine

    start = time.perf_counter()
    with engine.cluster(os.environ.get("RAY_ADDRESS"), workers=1, verbose=False):
        total = ray.cluster_resources()
    seconds = time.perf_counter() - start
    return f"{total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs; started and ended in {seconds:.1f} s"


def _data_set(name: str, data_root: str | None) -> Row:
    from sweep import datasets

    try:
        return {"check": f"data {name}", "state": "ok", "found": datasets.where(name, data_root)}
    except InputError as e:
        return {"check": f"data {name}", "state": "missing", "found": str(e)}
