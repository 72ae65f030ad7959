"""This machine: CPUs, GPUs, room on disks and in shared memory, open files."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

import torch

from sweep.doctor.rows import Row, limited, row

GIB = 1 << 30
DISK_BYTES = 5 * GIB  # Ray spills there, and refuses work on a disk that is 95 % full
SHARED_BYTES = 2 * GIB  # Ray's object store; a container has 64 MiB unless told otherwise
OPEN_FILES = 4096


def check() -> list[Row]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    many = float("inf") if files == resource.RLIM_INFINITY else files
    return [
        row("cpus", "ok", f"{os.cpu_count()}"),
        gpus(Path("/dev/nvidia0").exists()),
        room("disk for temporary files", tempfile.gettempdir(), DISK_BYTES, "free some, or set TMPDIR to another disk"),
        room("shared memory", "/dev/shm", SHARED_BYTES, "in a container: docker run --shm-size=8g"),
        limited("open files", f"up to {many:g}", many, OPEN_FILES, "ulimit -n 65536 before Ray starts"),
    ]


def gpus(driver: bool) -> Row:
    """FAILED where the machine has a GPU that torch cannot use."""
    if torch.cuda.is_available():
        return row("gpus", "ok", ", ".join(_gpu(i) for i in range(torch.cuda.device_count())))
    if driver:
        return row(
            "gpus", "FAILED", f"a GPU that torch {torch.__version__} cannot use", "install a CUDA build of torch"
        )
    return row("gpus", "ok", "none: trials train on CPUs here")


def _gpu(index: int) -> str:
    free, total = torch.cuda.mem_get_info(index)
    return f"{torch.cuda.get_device_name(index)} ({free / GIB:.0f} of {total / GIB:.0f} GiB free)"


def room(check: str, path: str, needs: float, remedy: str) -> Row:
    try:
        usage = shutil.disk_usage(path)
    except OSError as e:
        return row(check, "warn", f"{path}: {e.strerror}", remedy)
    found = f"{path}: {usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free"
    return limited(check, found, usage.free, needs, remedy)
