"""The verdicts of a run by hand: two classes, images of one pixel whose value names the iterate."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.progress import Progress


def iterate(progress: Progress, value: float, correct: list[bool], counts: bool = True) -> None:
    """One look at images of this value; the label is 1 throughout, the loss is the value times 10."""
    x = torch.full((len(correct), 1, 1, 1), value)
    logits = torch.tensor([[0.0, 1.0] if right else [1.0, 0.0] for right in correct])
    progress.add(x, logits, torch.ones(len(correct), dtype=torch.int64), x.flatten() * 10, counts)


def pixels(x: Tensor) -> list[float]:
    return [round(value, 3) for value in x.flatten().tolist()]


def test_all_iterates_count() -> None:
    progress = Progress(torch.zeros(3, 1, 1, 1), stop=False)
    iterate(progress, 0.1, [True, True, False])
    iterate(progress, 0.2, [True, False, True])
    iterate(progress, 0.3, [True, True, True], counts=False)
    assert progress.survivors() is None
    view = progress.view("toy")
    assert view.attack == "toy"
    assert view.robust_all.tolist() == [True, False, False]
    assert view.steps_correct.tolist() == [2, 1, 1]
    assert pixels(view.x) == [0.3, 0.3, 0.3]
    assert pixels(view.loss) == [3.0, 3.0, 3.0]


def test_stopping_keeps_the_iterate_that_broke_an_image() -> None:
    progress = Progress(torch.zeros(3, 1, 1, 1), stop=True)
    iterate(progress, 0.1, [True, True, False])
    iterate(progress, 0.2, [True, False, True])
    iterate(progress, 0.3, [True, True, True], counts=False)
    progress.hold(torch.full((3, 1, 1, 1), 0.9), torch.full((3,), 9.0))
    view = progress.view("toy")
    assert view.robust_all.tolist() == [True, False, False]
    assert view.steps_correct.tolist() == [2, 1, 0], "an image that recovers stays broken"
    assert pixels(view.x) == [0.9, 0.2, 0.1]
    assert pixels(view.loss) == [9.0, 2.0, 1.0]


def test_broken_images_leave_and_come_back_in_their_place() -> None:
    progress = Progress(torch.zeros(4, 1, 1, 1), stop=True)
    iterate(progress, 0.1, [True, False, True, True])
    assert progress.survivors() is None
    assert progress.survivors() is None
    rows = progress.survivors()
    assert rows is not None, "a quarter is broken"
    assert rows.tolist() == [0, 2, 3]
    iterate(progress, 0.2, [False, True, False])
    assert progress.survivors() is None
    assert progress.survivors() is None
    rows = progress.survivors()
    assert rows is not None
    assert rows.tolist() == [1]
    iterate(progress, 0.3, [True])
    view = progress.view("toy")
    assert view.robust_all.tolist() == [False, False, True, False]
    assert view.steps_correct.tolist() == [1, 0, 3, 1]
    assert pixels(view.x) == [0.2, 0.1, 0.3, 0.2]


def test_few_broken_images_are_not_worth_a_copy() -> None:
    progress = Progress(torch.zeros(5, 1, 1, 1), stop=True)
    iterate(progress, 0.1, [True, False, True, True, True])
    assert [progress.survivors() for _ in range(6)] == [None] * 6
