"""A model as a folder: weights, configuration, the architecture's source, and a model card that says how to use it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from sweep.exports import FOLDER, TARGETS, Asked, Made
from sweep.exports.card import card
from sweep.exports.model import Model, chosen, config
from sweep.exports.places import replacing
from sweep.exports.standalone import written_out

CONFIG = "config.json"
FILES = ("model.safetensors", CONFIG, "model.py", "README.md")


@TARGETS.register(FOLDER)
def export(asked: Asked, where: str) -> Made:
    model = chosen(asked)
    with replacing(where, CONFIG, FILES.__contains__) as folder:
        fill(folder, model)
    weights = shlex.quote(str(Path(where).expanduser() / FILES[0]))
    judge = f"python -m sweep evaluate {weights} --dataset {model.trial.dataset}"
    return Made(where, f"README.md there says how to load it; to judge it: {judge}")


def fill(folder: Path, model: Model) -> None:
    said = json.loads(json.dumps(config(model), default=str))
    texts = (json.dumps(said, indent=2) + "\n", written_out(said["architecture"]["name"]), card(model, said))
    for name, data in zip(FILES, (model.weights, *(text.encode() for text in texts)), strict=True):
        (folder / name).write_bytes(data)
