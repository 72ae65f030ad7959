"""A Matplotlib figure as SVG inside of a page: it takes the page's colours and font, and its text stays text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "ink": "#1b1f24",
    "muted": "#59636e",
    "rule": "#d1d9e0",
    "paper": "#ffffff",
    "one": "#0b5cad",
    "two": "#a84300",
    "three": "#1a7f38",
    "four": "#7a3eb1",
    "five": "#6e6a00",
}
"""Name -> colour on white, each in one name only. In a page it is the CSS variable of that name."""
FORMATS = ("svg", "pdf")
_SMALL, _LARGE = 0.85, 1.4
"""Pixels for each point of a figure in a page, at least and at most: 10 points read as 8.5 to 14 pixels."""
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["ink"],
    "ytick.color": COLOURS["ink"],
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.use": True,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Within it figures are made and saved in the page's style; no name is read as mathematics."""
    from matplotlib import rc_context

    with rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the reader's font will have it
        yield


def save(figure: Figure, path: Path) -> Path:
    """A file for a paper, SVG or PDF by its suffix; the same figure gives the same bytes. Returns the path."""
    dateless = {"Date": None} if path.suffix == ".svg" else {"CreationDate": None}
    with drawing(), _salted(path.stem):
        figure.savefig(path, metadata=dateless)
    return path


def inline(figure: Figure, name: str, alt: str) -> str:
    """The <svg> element: ids are its own by the `name`, `alt` is its text alternative. Text in it is escaped."""
    from html import escape

    out = io.StringIO()
    with drawing(), _salted(name):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = _themed(_own_ids(text, name))
    box = _view_box(text)
    width = float(box.split()[2])
    size = f"width: 100%; min-width: {_SMALL * width:.0f}px; max-width: {_LARGE * width:.0f}px"
    opening = f'<svg role="img" class="{name}" aria-label="{escape(alt)}" viewBox="{box}" style="{size}">'
    return opening + re.sub(r"\s*\n\s*", "\n", text[text.index(">") + 1 :]).strip()


@contextmanager
def _salted(name: str) -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": name}):
        yield


def _view_box(text: str) -> str:
    found = re.search(r'viewBox="([^"]*)"', text)
    assert found, "Matplotlib writes one"
    return found[1]


def _own_ids(text: str, name: str) -> str:
    """Keeps the ids that something refers to, and puts the name before them."""
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    return re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', text)


def _themed(text: str) -> str:
    """Inside of tags only: a name that looks like a colour stays as it is."""

    def one(tag: re.Match[str]) -> str:
        shown = re.sub(r"(?:font-family|font): [^;\"]*;? ?", _size_only, tag[0])
        for name, colour in COLOURS.items():
            shown = shown.replace(colour, f"var(--{name})")
        return re.sub(r"(\.\d\d)\d+", r"\1", shown)  # hundredths of a point will do

    return re.sub(r"<[^>]*>", one, text)


def _size_only(found: re.Match[str]) -> str:
    size = re.search(r"[\d.]+px", found[0])
    return f"font-size: {size[0]}; " if size else ""
