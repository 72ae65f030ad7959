"""The workers that train one model together: how a batch is shared, and how what they saw becomes one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_OPTIONS = inspect.signature(DistributedDataParallel.__init__).parameters
_OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers": False
}
"""torch 2.13 renamed the option."""


@dataclass(frozen=True)
class Workers:
    """`rank` of `count` processes; with count > 1 `torch.distributed` is initialised (gloo on CPU, NCCL on GPU)."""

    rank: int = 0
    count: int = 1

    def share(self, size: int) -> slice:
        """This worker's contiguous share of `size` things; shares differ by at most one."""
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def whole(self, mine: Tensor, size: int) -> Tensor:
        """(..., share) on every worker -> (..., size) on all of them, by a sum over zero-padded shares."""
        if self.count == 1:
            return mine
        whole = mine.new_zeros((*mine.shape[:-1], size))
        whole[..., self.share(size)] = mine
        dist.all_reduce(whole)
        return whole

    def wrap(self, model: nn.Module) -> nn.Module:
        """What train-mode forwards go through: DDP averages the gradients; batch norm stays each worker's own."""
        return model if self.count == 1 else DistributedDataParallel(model, **_OWN_BUFFERS)

    def from_first(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Rank 0's tensor, on all workers. They talk through `device`; the result is where `tensor` was."""
        if self.count == 1:
            return tensor
        carried = tensor.to(device, copy=True)
        dist.broadcast(carried, 0)
        return carried.to(tensor.device)

    @torch.no_grad()
    def agree_on_buffers(self, model: nn.Module, averaged: Mapping[str, Tensor] | None) -> None:
        """Averages the batch-norm statistics of the model, and of its averaged weights, over the workers: all hold, and
        save, one model."""
        if self.count == 1:
            return
        buffers = [name for name, _ in model.named_buffers()]  # the order of a loaded state differs between workers
        for weights in (model.state_dict(), averaged or {}):
            for mine in (weights[name] for name in buffers if name in weights):
                if mine.is_floating_point():
                    dist.all_reduce(mine)
                    mine /= self.count
