"""Models by name. A new one is one new file here with `@models.register("name")` over its class and no edit elsewhere.

A model takes un-normalised float32 images (B, C, H, W) in [0, 1] and returns logits (B, K); it normalises inside. Its
`architecture` is the dictionary of plain values that `create(**architecture)` makes the same model from.
"""

from __future__ import annotations

from trainers.models.catalogue import create, default_width, models
from trainers.models.io import dumps, load, loads, save

__all__ = ["create", "default_width", "dumps", "load", "loads", "models", "save"]
