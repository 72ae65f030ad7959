"""Streaks of leaders, in an epoch and through a training, as in Table 5 of adaptive-budget."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer_toys import ones, toy_attacks, toy_images, toy_net

from trainers import methods
from trainers.domination import streaks, through
from trainers.loop import fit
from trainers.recipe import Recipe

PLAYERS = ("l1", "l2", "linf")
TABLE_5 = ("l1", "l1", "l2", "linf", "linf")


def test_table_5s_example() -> None:
    row = streaks(PLAYERS, TABLE_5)
    assert [row[f"longest.{name}"] for name in PLAYERS] == [2, 1, 2]
    assert row["mean_streak"] == pytest.approx(5 / 3)
    assert [row[f"leads.{name}"] for name in PLAYERS] == pytest.approx([0.4, 0.2, 0.4])
    assert (row["streaks"], row["first.l1"], row["last.linf"]) == (3, 2, 2)
    assert {key for key in row if key.startswith(("first", "last"))} == {"first.l1", "last.linf"}
    assert streaks(("a", "b"), ("a",) * 4)["longest.b"] == 0


def test_a_player_that_comes_back_begins_a_streak() -> None:
    row = streaks(("1", "2", "inf"), ["1", "1", "2", "inf", "inf", "2"])
    assert [row[f"longest.{name}"] for name in ("1", "2", "inf")] == [2, 1, 2]
    assert (row["mean_streak"], row["streaks"], row["leads.inf"]) == (6 / 4, 4, pytest.approx(2 / 6))


@pytest.mark.parametrize("border", [1, 2, 3, 4])
def test_table_5s_example_cut_into_two_epochs(border: int) -> None:
    found = through([streaks(PLAYERS, part) | {"by_gradient": 1.0} for part in (TABLE_5[:border], TABLE_5[border:])])
    assert found is not None
    assert found.longest == {"l1": 2, "l2": 1, "linf": 2}
    assert (found.mean, found.streaks, found.by_gradient) == (pytest.approx(5 / 3), 3, True)


@given(st.lists(st.lists(st.sampled_from(PLAYERS), min_size=1, max_size=6), min_size=1, max_size=6))
def test_epochs_add_up_to_the_training(epochs: list[list[str]]) -> None:
    found = through([streaks(PLAYERS, led) | {"by_gradient": 0.0} for led in epochs])
    runs = [(leader, len(list(run))) for leader, run in groupby(leader for led in epochs for leader in led)]
    assert found is not None
    for name in PLAYERS:
        assert found.longest[name] == max((n for leader, n in runs if leader == name), default=0)
    assert found.streaks == len(runs)
    assert found.mean == pytest.approx(sum(n for _, n in runs) / len(runs))
    assert not found.by_gradient


def test_what_tells_no_leader_has_no_table() -> None:
    assert through([]) is None
    assert through([{"wins.l1": 1.0}]) is None


@pytest.mark.parametrize("name", ["avg", "max", "msd", "max+ab-l1"])
def test_a_training_leaves_what_table_5_needs(name: str) -> None:
    """Of MAX, for one, with its gradients tracked: streaks over four batches, two an epoch."""
    found = methods.entry(name)
    parts: dict[str, dict[str, Any]] = {kind: {"name": part} for kind, part in found.parts().items()}
    parts["inner"] |= {"adaptive": "l1"} if "+" in name else {"track": True}
    of = toy_attacks("pgd-linf", "pgd-l2", "pgd-l1", steps=1)
    recipe = Recipe(epochs=2, batch_size=12, lr=0.05)
    rows = fit(toy_net(), toy_images(24), of, methods.compose(parts), recipe, importance=ones(of), seed=0).history
    whole = through([row["domination"] for row in rows])
    assert whole is not None
    assert whole.by_gradient
    assert set(whole.longest) == set(of)
    assert whole.mean * whole.streaks == pytest.approx(4)
    assert [row["counts"] for row in rows] == [dict.fromkeys(of, 2)] * 2
