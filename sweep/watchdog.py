"""Ends a process that hangs: in native code, or in waiting for another process, nothing else can."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import traceback
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any

from torch import nn

EXIT_HUNG = 70
HANG_SECONDS = 1800.0


class Watchdog:
    """While it is entered, ends this process once none of the watched networks has been called for so many seconds,
    after telling `last_words` where each thread stood. Ray then starts the trial again, from its last checkpoint."""

    def __init__(self, seconds: float, last_words: Callable[[str], None]) -> None:
        self.seconds, self.last_words = seconds, last_words
        self._called = monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def watch(self, *networks: nn.Module) -> None:
        """Counts their calls as progress, and those of copies made of them."""

        def called(*_: Any) -> None:
            self._called = monotonic()

        for network in networks:
            network.register_forward_pre_hook(called)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        """Native code that holds Python's lock keeps this thread from running: then the C library's timer, set anew
        each time that it does, ends the process without last words."""
        while not self._over.wait(self.seconds / 10):
            faulthandler.dump_traceback_later(2 * self.seconds, exit=True)
            if monotonic() - self._called > self.seconds:
                self.last_words(f"{_stacks()}\nno progress for {self.seconds:g} s: this process ends itself")
                os._exit(EXIT_HUNG)
        faulthandler.cancel_dump_traceback_later()


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame)).rstrip()}"
        for ident, frame in sys._current_frames().items()
    )
