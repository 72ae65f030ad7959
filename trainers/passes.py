"""How often a model was run: exact counts of images forwarded and of images whose gradient was taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Passes:
    """`forwards` and `backwards` count images; a backward that reaches the weights counts like one to the input."""

    forwards: int = 0
    backwards: int = 0

    @contextmanager
    def counted(self, model: nn.Module) -> Iterator[None]:
        """Counts what the model does meanwhile, whoever calls it."""
        handle = model.register_forward_hook(self._forward)
        try:
            yield
        finally:
            handle.remove()

    def _forward(self, model: nn.Module, inputs: Any, logits: Tensor) -> None:
        self.forwards += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._backward)  # type: ignore[no-untyped-call]

    def _backward(self, grad: Tensor) -> None:
        self.backwards += len(grad)
