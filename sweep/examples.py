"""The worst images of an evaluation as rows of the table `examples`, each pair as 8-bit PNGs."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from PIL import Image
from torch import Tensor

from sweep.verdicts import Subject
from trainers.evaluate import Verdict

SPLIT = "test"
"""The one split that keeps its worst images."""


def rows(about: Subject, seed: int, verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """Of every verdict that kept some; `rank` from 1, the highest loss."""
    shared = asdict(about) | {"seed": seed, "split": SPLIT}
    return [
        shared
        | {"attack": verdict.attack, "rank": rank, "image": one.image, "label": one.label}
        | {"predicted": one.predicted, "loss": one.loss}
        | {"png": png(one.clean), "adversarial_png": png(one.attacked)}
        for verdict in verdicts
        for rank, one in enumerate(verdict.worst, start=1)
    ]


def png(pixels: Tensor) -> bytes:
    """uint8 (C, H, W) of one channel or three, as a PNG."""
    shown = pixels.permute(1, 2, 0).numpy()
    out = io.BytesIO()
    Image.fromarray(shown[:, :, 0] if shown.shape[2] == 1 else shown).save(out, "PNG", optimize=True)
    return out.getvalue()
