"""The worst images: for each attack those that a model lost with the highest loss, and what the attack changed."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image, UnidentifiedImageError

from sweep.report.snapshot import Snapshot, of_trials
from sweep.report.standing import Standing, keys_of
from sweep.tables.models import Model

MOST_EACH = 3
MOST_SIDE = 96
"""Pixels: a larger picture is shrunk to it, or a page of large images would be too large itself."""


@dataclass(frozen=True)
class Picture:
    """One image under one attack; the three pictures are data URIs. `largest`: of the changes, 0..1."""

    image: int
    label: int
    predicted: int
    loss: float
    before: str
    after: str
    change: str
    largest: float


def worst(store: Snapshot, standing: Standing) -> dict[str, list[Picture]]:
    """Attack -> pictures, the highest loss first, of the chosen model's first seed; empty where none are stored."""
    if (model := of_whom(standing)) is None:
        return {}
    mine = (pc.field("split") == standing.split) & (pc.field("weights") == model.weights)
    rows = _first_run(store.worst(of_trials(keys_of([model])) & mine).to_pylist())
    found: dict[str, list[Picture]] = {}
    for one in sorted(rows, key=lambda one: one["rank"]):
        pictures = found.setdefault(one["attack"], [])
        if len(pictures) < MOST_EACH and (made := _picture(one)) is not None:
            pictures.append(made)
    order = {name: k for k, name in enumerate(standing.attacks)}
    return {name: found[name] for name in sorted(found, key=lambda name: order.get(name, len(order))) if found[name]}


def of_whom(standing: Standing) -> Model | None:
    """The chosen model, or the starting one as long as there is none."""
    place = standing.start if standing.best is None else standing.best
    return None if place is None else standing.table.models[place]


def _first_run(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of one seed, at its last epoch."""
    first = min(((row["seed"] or 0, row["trial"]) for row in rows), default=None)
    mine = [row for row in rows if (row["seed"] or 0, row["trial"]) == first]
    last = max((row["epoch"] or 0 for row in mine), default=0)
    return [row for row in mine if (row["epoch"] or 0) == last]


def _picture(row: Mapping[str, Any]) -> Picture | None:
    """None where the stored pictures are damaged."""
    try:
        before, after = _pixels(row["png"]), _pixels(row["adversarial_png"])
        change = after.astype(np.int16) - before
    except (UnidentifiedImageError, OSError, ValueError, TypeError, Image.DecompressionBombError):
        return None
    largest = int(np.abs(change).max(initial=0))
    shown = np.round(127.5 + change * (127.5 / max(largest, 1))).astype(np.uint8)
    about = (row["image"], row["label"], row["predicted"], row["loss"])
    return Picture(*about, _uri(before), _uri(after), _uri(shown), largest / 255)


def _pixels(png: bytes) -> Any:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as held:
        return np.asarray(held.convert("RGB"))


def _uri(pixels: Any) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((MOST_SIDE, MOST_SIDE))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
