"""A sheet as LaTeX (booktabs), and as a page of HTML."""

from __future__ import annotations

import re
from html import escape
from unicodedata import normalize

from sweep.render.sheet import BEST, SIGNS, TIED, Sheet

FEW = 8
"""Rows that a wide table may have and still be turned on its side."""
_PAGE = 90  # characters that fit across a page
_SPECIAL = (
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
    }
    | {c: f"\\{c}" for c in "{}$&#_%"}
    | {c: f"{{{c}}}" for c in "[*-`'"}
)  # \\ takes a [ or * after it, and -- is one dash
_NEGATIVE = re.compile(r"-(?=[\d.]+$)")
_MEANING = {BEST: "best of its column", TIED: "within noise of the best"}
_STYLE = """\
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif }
div { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: bold }
th, td { padding: .2em .6em; text-align: left; font-weight: normal }
thead th { border-block: 2px solid; border-bottom-width: 1px; font-weight: bold; vertical-align: bottom }
tbody tr:last-child > * { border-bottom: 2px solid }
.number { text-align: right }
abbr { text-decoration: none }"""

Grid = list[list[str]]
Marked = list[list[str | None]]


def turned(columns: list[str], texts: Grid, marks: Marked) -> tuple[list[str], Grid, Marked, list[bool]]:
    """A line per column but the first, whose cells are the heads; with the marks, and which columns go to the right."""
    heads = [columns[0], *(row[0] for row in texts)]
    body = [[name, *(row[i] for row in texts)] for i, name in enumerate(columns) if i]
    marked: Marked = [[None, *(row[i] for row in marks)] for i in range(1, len(columns))]
    return heads, body, marked, [False, *[True] * len(texts)]


def latex(sheet: Sheet) -> str:
    r"""A table that needs \usepackage{booktabs}: the best in \textbf, what is within noise of it \underline. Turned on
    its side where it is wide and has few rows."""
    columns, texts, marks, right = sheet.columns, sheet.texts, sheet.marked, sheet.numeric
    few = not sheet.upright and 0 < len(texts) <= FEW
    if few and sum(max(map(len, held)) + 2 for held in zip(columns, *texts, strict=True)) > _PAGE:
        columns, texts, marks, right = turned(columns, texts, marks)
    body = [
        " & ".join(_in_latex(text, mark) for text, mark in zip(row, marked, strict=True))
        for row, marked in zip(texts, marks, strict=True)
    ]
    lines = [r"\begin{table}", r"  \centering"]
    lines += [rf"  \caption{{{_escaped(sheet.caption)}}}"] if sheet.caption else []
    lines += [rf"  \begin{{tabular}}{{{''.join('r' if one else 'l' for one in right) or 'l'}}}", r"    \toprule"]
    lines += [f"    {' & '.join(map(_escaped, columns))} \\\\", r"    \midrule"]
    lines += [*(f"    {line} \\\\" for line in body), r"    \bottomrule", r"  \end{tabular}"]
    lines += [rf"  \par\footnotesize {_escaped(note)}" for note in sheet.told("Bold", "underlined")]
    return "\n".join(["% needs \\usepackage{booktabs}", *lines, r"\end{table}", ""])


def _in_latex(text: str, mark: str | None) -> str:
    made = ("$-$" if _NEGATIVE.match(text) else "") + _escaped(_NEGATIVE.sub("", text))
    if mark is None:
        return made
    return {BEST: r"\textbf", TIED: r"\underline"}[mark] + f"{{{made}}}"


def _escaped(text: str) -> str:
    """Letters with accents as they are; what pdflatex does not know by itself as its code point."""
    return "".join(
        _SPECIAL.get(c, c) if c.isascii() or c in _SPECIAL or _is_accented(c) else rf"\texttt{{U+{ord(c):04X}}}"
        for c in text
    )


def _is_accented(c: str) -> bool:
    return "\u00c0" <= c <= "\u00ff" and len(normalize("NFD", c)) > 1


def html(sheet: Sheet) -> str:
    """A page of its own, which asks for nothing from elsewhere."""
    title = escape(sheet.caption or "table")
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<title>{title}</title>'
    body = f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n{html_table(sheet)}</body>\n"
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n{body}</html>\n'


def html_table(sheet: Sheet) -> str:
    """The table alone, in a box that scrolls: each row is headed by its first cell of text, if it has one."""
    right = sheet.numeric
    heads = next((i for i, number in enumerate(right) if not number), 0)
    columns = [
        f'<th scope="col"{_side(number)}>{escape(name)}</th>' for name, number in zip(sheet.columns, right, strict=True)
    ]
    lines = ["<table>", f"<caption>{escape(sheet.caption or 'table')}</caption>"]
    lines += ["<thead>", f"<tr>{''.join(columns)}</tr>", "</thead>", "<tbody>"]
    for texts, marks in zip(sheet.texts, sheet.marked, strict=True):
        row = []
        for i, (text, mark) in enumerate(zip(texts, marks, strict=True)):
            kind, scope = ("th", ' scope="row"') if i == heads else ("td", "")
            row.append(f"<{kind}{scope}{_side(right[i])}>{_in_html(text, mark)}</{kind}>")
        lines.append(f"<tr>{''.join(row)}</tr>")
    lines += ["</tbody>", "</table>"]
    notes = [f"<p>{escape(note)}</p>" for note in sheet.told("Bold *", "~")]
    label = escape(sheet.caption or "table")
    return "\n".join([f'<div role="region" aria-label="{label}" tabindex="0">', *lines, "</div>", *notes, ""])


def _side(number: bool) -> str:
    return ' class="number"' if number else ""


def _in_html(text: str, mark: str | None) -> str:
    if mark is None:
        return escape(text)
    sign = f'<abbr title="{_MEANING[mark]}">{SIGNS[mark]}</abbr>'
    return f"<strong>{escape(text)}{sign}</strong>" if mark == BEST else f"{escape(text)}{sign}"
