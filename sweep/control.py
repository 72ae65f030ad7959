"""What a person asks of a sweep's driver, by a file in the sweep's folder, and what the driver was told to keep to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

from attacks.errors import InputError
from sweep import lease
from sweep.storage import Storage
from sweep.store import FAILED, Store

_NAME = "control.json"
_POLL_SECONDS = 1.0
Wish = Literal["stop", "cancel"]


class Cancelled(KeyboardInterrupt):
    """The driver was asked to end now: what runs stays planned."""


def ask(store: Store, wish: Wish) -> None:
    """Tells the driver to stop (what runs is finished first) or to cancel; InputError where nobody drives the sweep."""
    store.document()  # an unknown sweep says so
    holder = lease.holder(store.folder)
    if holder is None or holder.dead():
        raise InputError(f"expected a sweep that is being driven, got {store.sweep_id}, which nobody drives")
    store.folder.write(_NAME, json.dumps({"wish": wish, "owner": holder.owner}).encode())


@dataclass(frozen=True)
class Limits:
    """When to begin no more trials: after `seconds` of this driver's time, after `gpu_hours` of all trials of the sweep
    so far, after `failed` failed trials. None: no such limit."""

    seconds: float | None = None
    gpu_hours: float | None = None
    failed: int | None = None


@dataclass
class Control:
    """The driver's side: `owner` is its lease's. `reason` says why no more trials begin, None while they do."""

    folder: Storage
    owner: str
    limits: Limits = Limits()
    gpus: float = 0.0
    reason: str | None = None
    _began: float = field(default_factory=monotonic)
    _looked: float = 0.0
    _failed: int = 0
    _gpu_seconds: float = 0.0

    def ended(self, row: Mapping[str, Any]) -> None:
        """A trial of the sweep ended, now or under an earlier driver."""
        self._failed += row["state"] == FAILED
        self._gpu_seconds += self.gpus * (row.get("seconds") or 0.0)

    def poll(self) -> None:
        """Looks at the limits and, about once a second, whether something was asked. Raises Cancelled."""
        self.reason = self.reason or self._exhausted()
        if monotonic() - self._looked < _POLL_SECONDS:
            return
        self._looked = monotonic()
        wish = self._wish()
        if wish == "cancel":
            raise Cancelled
        if wish == "stop":
            self.reason = "it was asked to stop"

    def _exhausted(self) -> str | None:
        hours, limits = self._gpu_seconds / 3600, self.limits
        if limits.seconds is not None and monotonic() - self._began >= limits.seconds:
            return f"its {limits.seconds:g} s are over"
        if limits.gpu_hours is not None and hours >= limits.gpu_hours:
            return f"its trials took {hours:.2f} of {limits.gpu_hours:g} GPU-hours"
        if limits.failed is not None and self._failed >= limits.failed:
            return f"{self._failed} trials failed"
        return None

    def _wish(self) -> str | None:
        """What was asked of this driver; a file that another one left says nothing."""
        try:
            said = json.loads(self.folder.patient(0).read(_NAME))
            return str(said["wish"]) if said["owner"] == self.owner else None
        except (FileNotFoundError, InputError, ValueError, KeyError, TypeError):  # a storage that is away for a moment
            return None

    def close(self) -> None:
        with suppress(InputError):  # it is meant for this driver only, and may stay
            self.folder.patient(0).delete(_NAME)
