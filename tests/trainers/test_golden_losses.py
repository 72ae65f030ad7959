"""Each method against numbers that an earlier run of it left in golden_losses.json: what is worked by hand elsewhere
says that the parts are right, this that nothing about the whole has changed unseen.

After a change that is meant, `python tests/trainers/test_golden_losses.py` makes the file anew and prints what changed.

Tolerance: a part in a thousand. fp32 round-off itself is a part in ten million, but it turns the sign of a gradient
near 0, or which of two attack iterates counts as the worse, and a few of the million pixels here turn. Measured: AVX2,
SSE and AVX-512 kernels, with and without oneDNN, differ by up to 3.3e-4, and so do 30 runs with the weights moved by
2e-7 of themselves. A tenth off a hyper-parameter that the method uses moves most by more than 1e-3, a term left out by
far more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import BUDGETS, NAMES, attacks_of, faint_images, parts_of, train
from torch.nn.functional import cross_entropy

from trainers import methods
from trainers.loop import Fitted

STORED = Path(__file__).with_name("golden_losses.json")
TOLERANCE = 1e-3
Golden = dict[str, float]


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(name: str, **changed: Any) -> Golden:
    """Five training losses, of two batches each, which averaging does not reach: its decays and the loss of the weights
    that it reports besides; the probabilities of the last epoch, for two samplers may well draw the same attacks; the
    last budgets. MDE is cut to five epochs, so that its decays are not at their bounds all the time."""
    if methods.entry(name).averaging == "mde":
        changed["averaging"] = {"d3": 2.0, "horizon": 5} | changed.get("averaging", {})
    with one_thread():
        fitted = train(name, method=parts_of(name, burn_in=0.2, **changed))
        reported = clean_loss(fitted)
    rows = fitted.history
    found = {f"loss {epoch}": row["train_loss"] for epoch, row in enumerate(rows, 1)}
    found |= {f"decay {epoch}": row["decay"] for epoch, row in enumerate(rows, 1) if "decay" in row}
    found |= {f"probability of {attack}": p for attack, p in rows[-1]["probabilities"].items()}
    if name in BUDGETS:
        base = attacks_of(name)
        found |= {f"budget of {a}": used / base[a].epsilon for a, used in rows[-1]["budgets"].items()}
    return found | {"reported loss": reported}


def clean_loss(fitted: Fitted) -> float:
    """Of the weights that the method reports, on all images."""
    images, model = faint_images(), fitted.model.eval()
    if fitted.averaged is not None:
        model.load_state_dict(fitted.averaged)
    with torch.no_grad():
        return float(cross_entropy(model(images.images.float() / 255), images.labels))


def changes(name: str, stored: Golden, found: Golden) -> list[str]:
    """A line for each number that is not the stored one."""
    names = [*stored, *(key for key in found if key not in stored)]
    return [
        f"{name}: {key} was {stored.get(key)}, is {found.get(key)}"
        for key in names
        if key not in stored or found.get(key) != pytest.approx(stored[key], rel=TOLERANCE, abs=1e-5)
    ]


def load() -> dict[str, Golden]:
    stored: dict[str, Golden] = json.loads(STORED.read_text()) if STORED.exists() else {}
    return stored


@pytest.mark.parametrize("name", NAMES)
def test_nothing_has_changed(name: str) -> None:
    assert changes(name, load().get(name, {}), run(name)) == []


def test_every_method_has_its_own_numbers() -> None:
    """Else one could have been taken for another. Those whose parts, settings and attacks are equal differ in the
    recipe alone."""
    stored = load()
    assert list(stored) == list(NAMES)
    for one, other in combinations(NAMES, 2):
        alike = (parts_of(one), attacks_of(one)) == (parts_of(other), attacks_of(other))
        assert (changes(one, stored[one], stored[other]) == []) == alike, (one, other)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("cas", {"sampler": {"w3": 0.4}}),
        ("cas-bandit", {"sampler": {"tradeoff_reward": False}}),
        ("cas-bandit", {"objective": {"beta": 0.8}}),
        ("e-at-all", {"sampler": {"forgetting": 0.9}}),
        ("sat+mde", {"averaging": {"tau": 0.9}}),
        ("cas+ema", {"averaging": {"decay": 0.994}}),
        ("ramp", {"objective": {"lam": 0.0}}),
        ("ramp+ramp", {"averaging": {"beta": 0.4}}),
        ("trades", {"objective": {"beta": 3.5}}),
        ("vir-trades", {"weighting": {"score": "s_v"}}),
        ("mail-at", {"weighting": {"gamma": 9.0}}),
        ("gairat", {"weighting": {"lam": 0.0}}),
        ("msd", {"inner": {"keep_best": False}}),
        ("max+ab-l2", {"inner": {"clip_high": 1.0}}),
    ],
)
def test_a_change_of_a_part_is_seen(name: str, changed: dict[str, Any]) -> None:
    assert changes(name, load()[name], run(name, **changed))


def remake() -> None:
    old, new = load(), {name: {key: float(f"{x:.6g}") for key, x in run(name).items()} for name in NAMES}
    lines = [line for name in NAMES for line in changes(name, old.get(name, {}), new[name])]
    lines += [f"{name}: is no method any more" for name in old if name not in new]
    rows = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in new.items()]
    STORED.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    print("\n".join(lines) or "nothing changed by more than the tolerance")


if __name__ == "__main__":
    remake()
