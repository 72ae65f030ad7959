"""The tables of docs/attacks.md, from a model pre-trained on real CIFAR-10. Prints Markdown; what is done is kept.

    python docs/measure_attacks.py train model.safetensors --data-root DATA        # about an hour on one core
    python docs/measure_attacks.py strength model.safetensors --data-root DATA     # accuracies
    python docs/measure_attacks.py cost                                            # time and kernels

The model is written by `train`; `strength` keeps what it has measured beside it, in <model>.json, and goes on there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import attacks
from attacks.catalogue import PUBLISHED
from sweep import datasets, render, spaces
from trainers import models
from trainers.data import ImageSet
from trainers.evaluate import evaluate, image_seeds, protocol
from trainers.models import io
from trainers.pretrain import Pretraining, pretrain
from trainers.speed import bench_attacks

WIDTH, TRAIN_SIZE, N, BATCH = 16, 30_000, 200, 100
RECIPE = Pretraining(clean_epochs=4, epochs=9, attack_steps=3, lr=0.1, batch_size=128, flip=True, crop_padding=4)


def train(path: Path, data_root: str | None, width: int, size: int) -> None:
    """Four clean epochs and nine with linf APGD of 3 steps, on a stratified part of the training images."""
    images = datasets.load("cifar10", data_root=data_root, train_size=size).train
    model = models.create(num_classes=10, width=width)

    def told(epoch: int, history: list[dict[str, Any]]) -> bool:
        print(epoch, {key: round(history[-1][key], 3) for key in ("train_loss", "train_accuracy")}, file=sys.stderr)
        return True

    pretrain(model, images, attacks.get("linf"), RECIPE, seed=0, report=told)
    io.save(model, path)


def strength(path: Path, data_root: str | None) -> None:
    """Accuracy (%) on test images: under the first iterate, and under the whole attack, at each level."""
    model, test = io.load(path).eval(), datasets.load("cifar10", data_root=data_root, train_size=10, test_size=N).test
    kept = path.with_suffix(".json")
    done = json.loads(kept.read_text()) if kept.exists() else {}
    rows = []
    for name in spaces.default_attacks():
        for level in PUBLISHED:
            if f"{name} {level}" not in done:
                done[f"{name} {level}"] = _accuracies(model, test, attacks.get(name, epsilon=level).bind(model))
                kept.write_text(json.dumps(done, indent=1))
        row: dict[str, Any] = {"attack": name, "steps": attacks.get(name).num_steps}
        for level in PUBLISHED:
            first, whole = done[f"{name} {level}"]
            row[level] = f"{100 * first:.1f} → {100 * whole:.1f}"
        rows.append(row)
    (clean,) = evaluate(model, test, {}, protocol=protocol("full"), seed=0)
    print(f"clean: {100 * float(clean.robust.float().mean()):.1f} % of {N}\n")
    render.show(rows, "md")


def _accuracies(model: nn.Module, test: ImageSet, attack: attacks.Attack) -> tuple[float, float]:
    seen: list[Tensor] = []

    def first(x: Tensor) -> Tensor:
        logits: Tensor = model(x)
        seen.append(logits.detach())
        return logits

    right = 0
    for rows in torch.arange(len(test)).split(BATCH):
        x, y = test.floats(rows), test.labels[rows]
        seen.clear()
        attack.with_steps(1).run(first, x, y, seeds=image_seeds(test.ids[rows], 0, attack.name))
        with torch.no_grad():
            right += int(((seen[0].argmax(1) == y) & (model(x).argmax(1) == y)).sum())
    verdicts = list(evaluate(model, test, {attack.name: attack}, protocol=protocol("full"), seed=0, batch_size=BATCH))
    return right / len(test), float(verdicts[1].robust.float().mean())


def cost() -> None:
    rows = bench_attacks(spaces.default_attacks(), width=WIDTH, batch_size=32, rounds=9, steps=10)
    render.show(rows, "md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "strength", "cost"))
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--data-root")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--train-size", type=int, default=TRAIN_SIZE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "cost":
        cost()
    elif given.model is None:
        parser.error(f"{given.what} needs MODEL")
    elif given.what == "train":
        train(given.model, given.data_root, given.width, given.train_size)
    else:
        strength(given.model, given.data_root)


if __name__ == "__main__":
    main()
