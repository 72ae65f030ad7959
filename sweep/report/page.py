"""The page of a sweep: one HTML file that needs nothing else, and its figures as files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from attacks.errors import InputError, unknown
from sweep import status
from sweep.report import curves, effects, environment, explorer, pictures, robustness, searched, summary, svg
from sweep.report.explorer import Explorer
from sweep.report.snapshot import Snapshot
from sweep.report.standing import Standing, standing
from sweep.report.words import Chart, Section, share
from sweep.store import Store

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Report:
    """What a page tells of a sweep, read from its store at one moment. The same store gives the same page."""

    store: Snapshot
    standing: Standing
    joined: Explorer | None
    attacks: Section
    sections: Sequence[Section]

    @property
    def charts(self) -> list[Chart]:
        return [chart for section in (self.attacks, *self.sections) for chart in section.charts]

    def html(self, refresh: float | None = None, version: str = "") -> str:
        """The page. With `refresh` it asks the server that it came from every so many seconds for one of another
        `version`, until the sweep is finished."""
        state = summary.state(self.store)
        script = (_FOLDER / "page.js").read_text()
        live = refresh if state != summary.FINISHED else None
        embedded = self.joined and self.joined.embedded()
        template = _environment().get_template("page.html.j2")
        return template.render(
            sweep_id=self.store.sweep_id,
            lead=summary.lead(self.store),
            state=state,
            states=summary.states(self.store),
            facts=summary.facts(self.store, self.standing),
            split=self.standing.split_name,
            models=robustness.models(self.standing),
            attacks=self.attacks,
            explorer=self.joined,
            sections=self.sections,
            worst=pictures.worst(self.store, self.standing),
            worst_of=_worst_of(self.standing),
            environment=environment.environment(self.store),
            specification=environment.specification(self.store),
            data={"explorer": embedded, "refresh": live, "version": version},
            script=Markup(script),
            policy=_policy(script, refresh is not None),
        )

    def save_figures(self, folder: Path, format: str) -> list[Path]:
        """Every figure of the page as a file of this format in the folder; their paths."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return [svg.save(chart.figure, folder / f"{chart.name}.{format}") for chart in self.charts]
        except OSError as e:
            raise InputError(f"cannot write figures into {folder}: {e.strerror}; choose another --figures") from e


def gather(store: Store, matrix_id: str | None = None) -> Report:
    """Reads what the page tells. `matrix_id`: a matrix of the same storage for the trade-off section. InputError where
    the folder is none of a sweep's."""
    status.sound(store)
    held = Snapshot.of(store)
    found = standing(held)
    sections = [
        searched.front(held),
        searched.parameters(held),
        curves.learning(held),
        curves.probabilities(held),
        effects.tradeoff(held, matrix_id),
    ]
    return Report(held, found, explorer.explorer(found), robustness.against_start(found), sections)


def expect_format(name: str) -> None:
    """Refuses a format that no figure can be written in."""
    if name not in svg.FORMATS:
        raise unknown("figure format", name, svg.FORMATS)


def _worst_of(standing: Standing) -> str:
    model = pictures.of_whom(standing)
    return "" if model is None else explorer.label(model)


@lru_cache(1)
def _environment() -> Environment:
    """Everything is escaped: names in a store are whatever somebody wrote there."""
    loader = FileSystemLoader(_FOLDER)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"inline": _inline, "share": share}
    made.globals["style"] = Markup((_FOLDER / "page.css").read_text())
    return made


def _inline(chart: Chart) -> Markup:
    return Markup(svg.inline(chart.figure, chart.name, chart.alt))


def _policy(script: str, serves: bool) -> str:
    """No script but ours, nothing from elsewhere: a name that was not escaped could do nothing either."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    connect = "'self'" if serves else "'none'"
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
