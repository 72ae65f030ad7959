"""Tables for papers and pages: compiled by a real pdflatex, read by a real parser of HTML."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sweep import tables
from sweep.render import FORMATS, show
from sweep.store import Store

ROWS = [
    {"method": "cas", "clean": 0.825, "linf": 0.5, "note": None},
    {"method": "e-at_all", "clean": 0.8125, "linf": -0.4, "note": "<b>&amp;"},
]
MARKS = [{"clean": "best"}, {"clean": "tied", "linf": "best"}]
GIVEN: dict[str, Any] = {"percent": {"clean", "linf"}, "marks": MARKS, "caption": "A & B", "notes": ["n > 1"]}
ODD = [
    "\\ { } $ & # _ % ~ ^ < > | \" ' ` -- [1] *",
    "".join(map(chr, range(32, 127))),
    "àÿñçøß ½ µ€ ε 中 \U0001f600 ﬁ",
    "[x]",
    "* y",
    "--- ?` !` <<",
    "",
]


def shown(rows: Any, format: str, **options: Any) -> str:
    out = io.StringIO()
    show(rows, format, file=out, **options)
    return out.getvalue()


def test_latex() -> None:
    assert shown(ROWS, "latex", **GIVEN).splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        r"  \caption{A \& B}",
        r"  \begin{tabular}{lrrl}",
        r"    \toprule",
        r"    method & clean & linf & note \\",
        r"    \midrule",
        r"    cas & \textbf{82.5} & 50.0 & {-} \\",
        r"    e{-}at\_all & \underline{81.2} & \textbf{$-$40.0} & \textless{}b\textgreater{}\&amp; \\",
        r"    \bottomrule",
        r"  \end{tabular}",
        r"  \par\footnotesize Bold: best of its column; underlined: within noise of it.",
        r"  \par\footnotesize n \textgreater{} 1",
        r"\end{table}",
    ]


def test_latex_compiles(tmp_path: Path, swept: Store) -> None:
    """A real sweep's table, upright and on its side, and cells of every printable ASCII character and some others."""
    if shutil.which("pdflatex") is None:
        assert not os.environ.get("CI"), "CI has pdflatex"
        pytest.skip("no pdflatex here")
    found = tables.compare([swept], unions=[["linf", "l2"]])
    real = {
        "percent": tables.fractions(found.rows),
        "marks": found.marks,
        "caption": "100 % of it_",
        "notes": found.notes,
    }
    odd = [{text: text, "n": 1.5, "first": text} for text in ODD]
    parts = [
        shown(found.rows, "latex", **real),
        shown([*found.rows, *found.rows], "latex", **{**real, "marks": [*found.marks, *found.marks]}),
        *(shown([row], "latex", caption=ODD[0], notes=ODD) for row in odd),
        shown([{"a": text, "b": 1} for text in ODD], "latex"),
        shown([], "latex"),
    ]
    page = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + "\n\\clearpage\n".join(parts)
    (tmp_path / "t.tex").write_text(page + "\n\\end{document}\n", encoding="utf-8")
    call = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    made = subprocess.run(call, cwd=tmp_path, capture_output=True, check=False)
    assert made.returncode == 0, made.stdout.decode("utf-8", "replace")[-2000:]
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")


class Page(HTMLParser):
    """The cells of a page's only table, and what else is in it. Tags that do not close are an error."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.caption = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "caption" in self.open:
            self.caption += data
        elif {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_html() -> None:
    text = shown(ROWS, "html", **GIVEN)
    page = Page(text)
    assert page.caption == "A & B"
    assert page.rows == [
        ["method", "clean", "linf", "note"],
        ["cas", "82.5*", "50.0", "-"],
        ["e-at_all", "81.2~", "-40.0*", "<b>&amp;"],
    ]
    assert [one["scope"] for one in page.of("th")] == ["col"] * 4 + ["row"] * 2
    assert [one["title"] for one in page.of("abbr")] == [
        "best of its column",
        "within noise of the best",
        "best of its column",
    ]
    assert (len(page.of("table")), len(page.of("caption")), len(page.of("strong"))) == (1, 1, 2)
    assert page.of("html") == [{"lang": "en"}]
    assert "<p>n &gt; 1</p>" in text
    assert not any(word in text for word in ("href", "src", "url(", "http", "@import", "<script"))


def test_html_of_anything_odd() -> None:
    page = Page(shown([{"a": text, "b": 1} for text in ODD], "html", caption=ODD[0], notes=ODD))
    assert page.caption == ODD[0]
    assert [row[0] for row in page.rows[1:]] == ODD


def test_a_page_of_numbers_is_headed_by_the_first() -> None:
    assert [one["scope"] for one in Page(shown([{"a": 1, "b": 2}], "html")).of("th")] == ["col", "col", "row"]


@pytest.mark.parametrize("format", FORMATS)
def test_marks_do_not_change_what_is_shown_without_them(format: str) -> None:
    assert shown(ROWS, format) == shown(ROWS, format, marks=None, caption="", notes=())
