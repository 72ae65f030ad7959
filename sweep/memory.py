"""What memory a worker takes, of its GPU or, where it has none, of its process; and what is done where it runs out."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of what getrusage counts."""


def forget() -> None:
    """Forgets the peak of what this process did before, and gives back what torch keeps of a GPU's memory for later.
    Where the system cannot forget, the peak of a process is that of its whole life."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most bytes since `forget`: on a GPU of all that torch had reserved there, used at the time or not."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def total() -> int:
    """Bytes of this worker's GPU, or of the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch has no class of its own for that on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
