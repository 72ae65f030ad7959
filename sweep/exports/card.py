"""README.md of an exported model: a Hugging Face model card."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from sweep import render
from sweep.exports.model import Model

Config = Mapping[str, Any]
SPLIT_NAMES = {"test": "test", "val": "validation"}
_CARD = """\
---
# license: say which, see https://huggingface.co/docs/hub/repositories-licenses
{front}
---

# {title}

{about}

## Accuracies

{accuracies}

## Use

In a copy of this folder. Images are floats in [0, 1] of shape {shape}, and the model normalises them itself.

With torch and safetensors alone (`model.py` is the architecture's source):

```python
from model import load

model = load()  # in eval mode: images (N, C, H, W) -> logits (N, {classes})
```

With the Python package adversarial-sweep installed, which also has the data and the attacks:

```python
import json
from pathlib import Path

import torch

from sweep import datasets
from trainers.models import io

config = json.loads(Path("config.json").read_text())
model = io.load("model.safetensors")
images = datasets.load(**config["data"]["load"]).{split}
with torch.no_grad():
    logits = torch.cat([model(batch) for batch in images.floats().split(256)])
correct = logits.argmax(1) == images.labels
print(f"clean accuracy {{correct.double().mean():.4f}} on {{len(images)}} images")
```

## How it was made

{provenance}

`config.json` has every setting of it, and the budgets and settings of the attacks.
"""
_JUDGED = """\
In percent, of n = {n} images of the {split} split, with 95 % intervals over the images; robust means classified
correctly both clean and attacked. Protocol `{protocol}`.{tuned} A robust accuracy holds for these attacks, budgets and
images; a stronger attack can only lower it.

{attacks}

{averages}"""
_TUNED = " The column `before` is the model that it was fine-tuned from."
_SELECTED = " The search chose by this split, which flatters what it chose."


def card(model: Model, config: Config) -> str:
    provenance = [{"what": name, "is": value} for name, value in _flat(config["provenance"]).items()]
    return _CARD.format(
        front=_front(model, config).to_yaml(),
        title=f"{config['architecture']['name']}, {config['data']['load']['name']}, {model.method}",
        about=_about(model, config),
        accuracies=_accuracies(model, config),
        shape=tuple(config["data"]["shape"]),
        classes=config["data"]["num_classes"],
        split=config["split"] or "test",
        provenance=_markdown(provenance),
    )


def _about(model: Model, config: Config) -> str:
    architecture, name = config["architecture"], config["data"]["load"]["name"]
    what = f"A {architecture['name']} of width {architecture['width']} for {name}"
    if model.run is None:
        return f"{what}: the model that the sweep `{model.store.sweep_id}` started from (`{model.trial.init}`)."
    trained = ", ".join(model.trial.trained())
    return f"{what}, fine-tuned by `{model.method}` from `{model.trial.init}` against: {trained}."


def _accuracies(model: Model, config: Config) -> str:
    rows = config["accuracies"]
    if not rows:
        return "It was not judged."
    attacks = [
        {
            "attack": row["attack"],
            "budget": row["epsilon"] or None,
            "steps": row["num_steps"] or None,
            "accuracy": row["robust_accuracy"],
            "95 % interval": _interval(row),
        }
        | ({"before": row["before"]} if model.run else {})
        | ({"flags": ", ".join(row["flags"] or [])} if any(row["flags"] for row in rows) else {})
        for row in rows
    ]
    averages = [
        {
            "over all attacks": _TITLES[row["name"]].removeprefix("robust accuracy, "),
            "accuracy": row["accuracy"],
            "95 % interval": _interval(row),
        }
        for row in config["averages"]
    ]
    return _JUDGED.format(
        n=rows[0]["n"],
        split=SPLIT_NAMES[config["split"]],
        protocol=rows[0]["protocol"],
        tuned=(_TUNED + (_SELECTED if config["split"] == "val" else "")) if model.run else "",
        attacks=_markdown(attacks),
        averages=_markdown(averages),
    )


def _interval(row: Mapping[str, Any]) -> str | None:
    return None if row.get("low") is None else f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"


def _markdown(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    render.show(rows, "md", percent=("accuracy", "before"), file=out)
    return out.getvalue().rstrip()


def _flat(held: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in held.items():
        found |= _flat(value, f"{name} ") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _front(model: Model, config: Config) -> ModelCardData:
    """The YAML at the top, by which the hub finds and compares models."""
    repository = config["data"]["repository"]
    tags = ["adversarial-robustness", "adversarial-training", "multi-attack", "image-classification"]
    return ModelCardData(
        library_name="adversarial-sweep",
        pipeline_tag="image-classification",
        tags=[*tags, model.method, config["architecture"]["name"]],
        datasets=[repository] if repository else None,  # an embedded one is on no hub
        metrics=["accuracy"],
        model_name=model.name,
        eval_results=_results(config) or None,
    )


def _results(config: Config) -> list[EvalResult]:
    """Every accuracy with how it came about."""
    rows = config["accuracies"]
    found = [_result(config, _title(row), row["robust_accuracy"], row) for row in rows]
    shared = {name: rows[0][name] for name in ("n", "protocol")} if rows else {}
    return found + [_result(config, _TITLES[row["name"]], row["accuracy"], shared | row) for row in config["averages"]]


def _title(row: Mapping[str, Any]) -> str:
    return "clean accuracy" if row["family"] == "clean" else f"robust accuracy, {row['attack']}"


def _result(config: Config, title: str, accuracy: float | None, how: Mapping[str, Any]) -> EvalResult:
    name = config["data"]["load"]["name"]
    return EvalResult(
        task_type="image-classification",
        dataset_type=config["data"]["repository"] or name,
        dataset_name=name,
        dataset_split=SPLIT_NAMES[config["split"]],
        metric_type="accuracy",
        metric_name=title,
        metric_value=accuracy,
        metric_args={key: how[key] for key in _HOW if how.get(key)},
    )


_HOW = ("n", "protocol", "epsilon", "num_steps", "low", "high")
_TITLES = {
    "avg_lp": "robust accuracy, average over lp norms",
    "avg_semantic": "robust accuracy, average over semantic and perceptual attacks",
    "average": "robust accuracy, mean of both averages",
    "union": "robust accuracy, all attacks together",
}
