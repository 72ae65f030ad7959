"""What is done where memory runs out."""

from __future__ import annotations

import torch


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch has no class of its own for that on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def free() -> None:
    """Gives back what torch keeps of a GPU's memory for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
