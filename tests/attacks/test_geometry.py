"""The balls: inside, idempotent, identity inside, nearest point by a slow reference, steepest among all unit steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attacks import geometry

Project = Callable[[Tensor, float], Tensor]
BALLS: dict[str, tuple[Project, float]] = {
    "linf": (geometry.project_linf, np.inf),
    "l2": (geometry.project_l2, 2),
    "l1": (geometry.project_l1, 1),
}
every_ball = pytest.mark.parametrize("ball", list(BALLS))

sizes = st.floats(-4, 4, width=32) | st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-20, -1e-7])
rows = st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(sizes, min_size=n, max_size=n), min_size=1, max_size=4))
radii = st.floats(0.0625, 8, width=32) | st.just(1.0)
quick = settings(max_examples=60, deadline=None)


def tensor(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None, :]


def norms(delta: Tensor, order: float) -> Tensor:
    return torch.linalg.vector_norm(delta.double().flatten(1), ord=order, dim=1)


def bisect(falls: Callable[[float], float], target: float, high: float) -> float:
    """The least t >= 0 with falls(t) <= target."""
    if falls(0.0) <= target:
        return 0.0
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) > target else (low, middle)
    return high


def slow_l1(delta: Tensor, epsilon: float) -> Tensor:
    out = []
    for row in delta.double().flatten(1).numpy():
        theta = bisect(lambda t, row=row: np.maximum(abs(row) - t, 0).sum(), epsilon, abs(row).max() + 1)
        out.append(np.sign(row) * np.maximum(abs(row) - theta, 0))
    return torch.tensor(np.array(out)).reshape(delta.shape)


def slow_l1_box(x: Tensor, delta: Tensor, epsilon: float) -> Tensor:
    out = []
    for image, row in zip(x.double().flatten(1).numpy(), delta.double().flatten(1).numpy(), strict=True):
        room = np.where(row > 0, 1 - image, image)

        def shrunk(t: float, row: np.ndarray = row, room: np.ndarray = room) -> np.ndarray:
            return np.clip(abs(row) - t, 0, room)

        theta = bisect(lambda t, shrunk=shrunk: shrunk(t).sum(), epsilon, abs(row).max() + 1)
        out.append(np.sign(row) * shrunk(theta))
    return torch.tensor(np.array(out)).reshape(delta.shape)


@every_ball
@given(values=rows, epsilon=radii)
@quick
def test_inside_idempotent_identity_inside(ball: str, values: list[list[float]], epsilon: float) -> None:
    project, order = BALLS[ball]
    delta = tensor(values)
    once = project(delta, epsilon)
    rounding = 1e-6 * (epsilon + norms(delta, order))  # of delta - theta, where delta is much larger than the ball
    assert (norms(once, order) <= epsilon + rounding).all()
    torch.testing.assert_close(project(once, epsilon), once, rtol=1e-5, atol=1e-6)
    inside = norms(delta, order) <= epsilon * (1 - 1e-6)
    assert torch.equal(once[inside], delta[inside])


@every_ball
@given(values=rows, epsilon=radii)
@quick
def test_nearest_point(ball: str, values: list[list[float]], epsilon: float) -> None:
    """p is the nearest point of a convex set exactly if <delta - p, z - p> <= 0 for every z of the set."""
    project, order = BALLS[ball]
    delta = tensor(values)
    nearest = project(delta, epsilon).double()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        z = torch.randn(delta.shape, generator=generator, dtype=torch.float64)
        z = z * (epsilon / norms(z, order))[:, None, None, None]
        assert (((delta - nearest) * (z - nearest)).flatten(1).sum(1) <= 1e-4).all()
    if ball == "l1":
        torch.testing.assert_close(nearest, slow_l1(delta, epsilon), rtol=1e-5, atol=1e-5)


@given(values=rows, epsilon=radii, seed=st.integers(0, 99))
@quick
def test_l1_ball_and_box(values: list[list[float]], epsilon: float, seed: int) -> None:
    delta = tensor(values)
    x = torch.rand(delta.shape, generator=torch.Generator().manual_seed(seed)).mul(1.4).sub(0.2).clamp(0, 1)
    moved = geometry.project_l1_box(x, delta, epsilon)
    assert (norms(moved, 1) <= epsilon + 1e-6 * (epsilon + norms(delta, 1))).all()
    assert (x + moved).min() >= 0
    assert (x + moved).max() <= 1
    torch.testing.assert_close(moved.double(), slow_l1_box(x, delta, epsilon), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(geometry.project_l1_box(x, moved, epsilon), moved, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 2.0, 12.0, 400.0, 5000.0])
def test_l1_at_the_size_of_images(epsilon: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 32, 32, generator=generator)
    delta = torch.randn(3, 3, 32, 32, generator=generator) * torch.tensor([0.01, 0.3, 5.0])[:, None, None, None]
    torch.testing.assert_close(
        geometry.project_l1(delta, epsilon).double(), slow_l1(delta, epsilon), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        geometry.project_l1_box(x, delta, epsilon).double(), slow_l1_box(x, delta, epsilon), rtol=1e-5, atol=1e-5
    )


def test_l1_by_hand() -> None:
    delta = tensor([[3.0, -1.0, 0.5], [0.2, -0.2, 0.1]])
    expected = tensor([[2.0, 0.0, 0.0], [0.2, -0.2, 0.1]])  # theta = 1; the second image lies inside
    torch.testing.assert_close(geometry.project_l1(delta, 2.0), expected)


def test_l1_box_by_hand() -> None:
    """Room 0.5 each: the first is cut by the box, so that the others keep 0.5 of the budget 1: theta = 0.15."""
    x, delta = tensor([[0.5, 0.5, 0.5]]), tensor([[3.0, -0.5, 0.3]])
    torch.testing.assert_close(geometry.project_l1_box(x, delta, 1.0), tensor([[0.5, -0.35, 0.15]]))


def test_l1_box_that_the_box_fills_exactly() -> None:
    """Black and white pixels with as many units of room as the budget: the slope vanishes at the solution."""
    x, delta = tensor([[0.0, 1.0, 0.0, 1.0]]), tensor([[9.0, -9.0, 0.0, 0.0]])
    assert torch.equal(geometry.project_l1_box(x, delta, 2.0).abs(), tensor([[1.0, 1.0, 0.0, 0.0]]))


@given(values=rows, scale=st.sampled_from([1.0, 1e-18, 1e15]))
@quick
def test_steepest_l2(values: list[list[float]], scale: float) -> None:
    grad = tensor(values) * scale
    grad = torch.where(grad.abs() < 1e-30, 0, grad)
    step = geometry.steepest_l2(grad).double()
    length = norms(grad, 2)
    torch.testing.assert_close(norms(step, 2), (length > 0).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close((step * grad).flatten(1).sum(1), length, rtol=1e-5, atol=0)


def test_steepest_l2_of_what_is_no_number() -> None:
    grad = tensor([[torch.nan, 3.0, 4.0], [torch.inf, 1.0, 0.0]])
    torch.testing.assert_close(geometry.steepest_l2(grad), tensor([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]]))


def test_steepest_l1_by_hand() -> None:
    grad = tensor([[3.0, -2.0, 1.0, 0.0], [0.0, 0.0, -1.0, 0.0]])
    expected = tensor([[0.5, -0.5, 0.0, 0.0], [0.0, 0.0, -1 / 3, 0.0]])
    torch.testing.assert_close(geometry.steepest_l1(grad, torch.tensor([2, 3]), 3), expected)


@pytest.mark.parametrize("ball", ["linf", "l2", "l1"])
def test_random_starts(ball: str) -> None:
    draw = {"linf": geometry.random_linf, "l2": geometry.random_l2, "l1": geometry.random_l1}[ball]
    seeds = torch.arange(64)
    delta = draw(seeds, (3, 8, 8), 0.5)
    assert delta.shape == (64, 3, 8, 8)
    reached = norms(delta, BALLS[ball][1])
    assert (reached <= 0.5 * (1 + 1e-6)).all()
    assert (reached >= 0.48).all()
    assert delta.mean().abs() < 0.01
    assert torch.equal(delta[5:7], draw(seeds[5:7], (3, 8, 8), 0.5))
