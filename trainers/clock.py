"""The time on a device. A GPU works behind the host's back: the host's clock would charge it to whoever waits next."""

from __future__ import annotations

from time import perf_counter

import torch

Mark = float | torch.cuda.Event


def mark(device: torch.device) -> Mark:
    """Now, as the device will see it; waits for nothing."""
    if device.type != "cuda":
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def between(earlier: Mark, later: Mark) -> float:
    """Seconds from one mark to another of the same device; waits until the later one is reached."""
    if isinstance(earlier, float):
        assert isinstance(later, float), "marks of two devices"
        return later - earlier
    assert not isinstance(later, float), "marks of two devices"
    later.synchronize()
    return float(earlier.elapsed_time(later)) / 1000
