"""A matrix of differences as a picture: red falls, blue rises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

CELL, MARGIN, TEXT = 44, 96, 12
RED, BLUE = (178, 24, 43), (33, 102, 172)


def heatmap(rows: Sequence[Mapping[str, Any]], names: Sequence[str], label: str, total: str, path: Path) -> None:
    """Writes a PNG of the rows' `names`, each row named by its `label`: in percent, colours up to the largest value
    outside of the row and the column of sums, which are called `total`."""
    values = {(i, j): 100 * float(row[name]) for i, row in enumerate(rows) for j, name in enumerate(names)}
    single = [abs(v) for (i, j), v in values.items() if names[j] != total and rows[i][label] != total]
    largest = max(single) or 1.0
    font = ImageFont.load_default(TEXT)
    sheet = Image.new("RGB", (MARGIN + CELL * len(names), MARGIN + CELL * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        middle = MARGIN + CELL * i + CELL // 2
        draw.text((MARGIN - 6, middle), str(row[label]), fill="black", font=font, anchor="rm")
    for j, name in enumerate(names):
        words = Image.new("RGB", (MARGIN - 6, TEXT + 6), "white")
        ImageDraw.Draw(words).text((0, (TEXT + 6) // 2), name, fill="black", font=font, anchor="lm")
        sheet.paste(words.rotate(90, expand=True), (MARGIN + CELL * j + (CELL - TEXT) // 2, 0))
    for (i, j), value in values.items():
        left, top = MARGIN + CELL * j, MARGIN + CELL * i
        strength = min(1.0, abs(value) / largest)
        draw.rectangle((left, top, left + CELL - 2, top + CELL - 2), fill=_mixed(BLUE if value > 0 else RED, strength))
        dark = "white" if strength > 0.6 else "black"
        draw.text((left + CELL // 2, top + CELL // 2), f"{value:+.1f}", fill=dark, font=font, anchor="mm")
    sheet.save(path, "PNG", optimize=True)


def _mixed(colour: tuple[int, int, int], strength: float) -> tuple[int, ...]:
    return tuple(round(255 + (part - 255) * strength) for part in colour)
