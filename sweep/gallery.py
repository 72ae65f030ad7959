"""A picture of one image under every attack, each with what it changed beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from attacks import Attack
from trainers.data import ImageSet
from trainers.evaluate import image_seeds

SIDE = 112
GAP = 8
LINE = 16
ACROSS = 4


def gallery(
    model: nn.Module, images: ImageSet, row: int, attacks: Mapping[str, Attack], path: Path, *, seed: int = 0
) -> None:
    """Writes a PNG. A change is drawn around grey, scaled to its largest entry, which stands beside the name."""
    rows = torch.tensor([row])
    x, y = images.floats(rows), images.labels[rows]
    cells: list[tuple[str, Tensor, Tensor | None]] = [("clean", x[0], None)]
    for name, attack in attacks.items():
        seeds = image_seeds(images.ids[rows], seed, name)
        cells.append((name, attack(model, x, y, seeds=seeds)[0], x[0]))
    down, cell = -(-len(cells) // ACROSS), 2 * SIDE + 2 + GAP
    sheet = Image.new("RGB", (ACROSS * cell + GAP, down * (SIDE + LINE + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, attacked, clean) in enumerate(cells):
        left, top = GAP + i % ACROSS * cell, GAP + i // ACROSS * (SIDE + LINE + GAP)
        label = name
        sheet.paste(_picture(attacked), (left, top + LINE))
        if clean is not None:
            change = attacked - clean
            largest = float(change.abs().max())
            label = f"{name}: changes up to {largest:.2f}"
            sheet.paste(_picture(0.5 + change / (2 * max(largest, 1e-6))), (left + SIDE + 2, top + LINE))
        draw.text((left, top), label, fill="black")
    sheet.save(path, "PNG", optimize=True)


def _picture(x: Tensor) -> Image.Image:
    """(C, H, W) in [0, 1] enlarged without smoothing."""
    pixels = (x.expand(3, -1, -1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
