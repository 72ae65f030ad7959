"""What a person sees of a running sweep: a live view on a terminal, a line per finished trial elsewhere, on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sweep.store import COMPLETE
from sweep.tables import REPLAY
from sweep.trial import Task


@dataclass
class Progress:
    """Hears the planner (`hear`) and the driver (`say`). `quiet` keeps only what goes wrong."""

    console: Console
    quiet: bool = False
    best: tuple[float, str] | None = None
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    _ended: int = 0
    _here: int = 0
    _total: int = 0
    _seeds: int = 1
    _began: float = 0.0
    _live: Live | None = None

    def say(self, line: str) -> None:
        if not self.quiet:
            self.console.print(line, highlight=False, soft_wrap=True)

    @contextmanager
    def searching(
        self, done: int, trials: int, seeds: int = 1, best: tuple[Task, Mapping[str, Any]] | None = None
    ) -> Iterator[None]:
        """While the search runs: the live view, if this is a terminal. `best`: of the runs that are done."""
        self._ended, self._total, self._began, self._seeds = done, trials * seeds, monotonic(), seeds
        if best is not None:
            self.best = (best[1]["value"], self._label(best[0]))
        if done:
            self.say(f"{done} of {self._total} trials are done already")
        if self.quiet or not self.console.is_terminal:
            yield
            return
        with Live(self._view(), console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    @contextmanager
    def judging(self, total: int) -> Iterator[None]:
        """While models are judged: a bar on a terminal. `total` and what `judged` adds are of the same unit."""
        self._ended, self._here, self._total, self._began = 0, 0, total, 0.0
        if self.quiet or not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    def judged(self, cost: int, what: str = "", *, here: bool = True) -> None:
        """A part is judged, `here` or by an earlier run."""
        self._ended += cost
        if here and not self._began:  # until now the cluster started
            self._began = monotonic()
        elif here:
            self._here += cost
        line = f"{what}; {100 * self._ended / self._total:.0f} % done{self._left()}"
        if self._live:
            self._live.update(line)
        elif what:
            self.say(line)

    def hear(self, event: str, task: Task, facts: Mapping[str, Any]) -> None:
        """An event of a trial: "start", "epoch" with its metrics, "end" with its row."""
        if event == "start":
            self.running[self._label(task)] = {"since": monotonic(), "epoch": 0}
        elif event == "epoch":
            self.running.setdefault(self._label(task), {"since": monotonic()})["epoch"] = facts["epoch"]
        else:
            self._end(task, facts)
        if self._live:
            self._live.update(self._view())

    def _label(self, task: Task) -> str:
        return (
            f"{task.number}"
            + (f" seed {task.seed}" if self._seeds > 1 or task.confirm else "")
            + (REPLAY if task.replay else "")
        )

    def _end(self, task: Task, row: Mapping[str, Any]) -> None:
        self.running.pop(self._label(task), None)
        self._ended, self._here = self._ended + 1, self._here + 1
        self._total += task.replay is not None or task.confirm  # these come on top
        told, label = str(row.get("error") or ""), self._label(task)
        if row["state"] == COMPLETE:
            told = f"{row['value']:.4f}"
            if not task.confirm:
                self.best = max(self.best or (row["value"], label), (row["value"], label), key=lambda b: b[0])
        line = f"trial {label} {row['state']} {told} in {row.get('seconds', 0.0):.1f} s"
        if not self.quiet or row["state"] != COMPLETE:
            best = f"; best {self.best[0]:.4f} (trial {self.best[1]})" if self.best else ""
            self.console.print(
                f"{line}; {self._ended}/{self._total}{best}{self._left()}", highlight=False, soft_wrap=True
            )

    def _left(self) -> str:
        left = self._total - self._ended
        if not left or not self._here:
            return ""
        return f"; about {(monotonic() - self._began) / self._here * left / 60:.1f} min left"

    def _view(self) -> Table:
        best = f"best {self.best[0]:.4f} (trial {self.best[1]})" if self.best else "no result yet"
        view = Table(
            title=f"{self._ended}/{self._total} trials, {best}{self._left()}", title_justify="left", min_width=72
        )
        for column in ("trial", "epoch", "seconds"):
            view.add_column(column, justify="right")
        for label, facts in sorted(self.running.items()):
            view.add_row(label, str(facts["epoch"]), f"{monotonic() - facts['since']:.0f}")
        return view
