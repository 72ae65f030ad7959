from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.intervals import bootstrap, resample, wilson


def test_wilson_by_hand() -> None:
    """p = 0.8, n = 10, z = 1.96: centre (0.8 + 0.1921) / 1.3841 = 0.7167, half 1.96 sqrt(0.016 + 0.0096) / 1.3841."""
    assert wilson(8, 10) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_fraction_and_mirrors(drawn: tuple[int, int]) -> None:
    successes, n = drawn
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1
    mirrored = wilson(n - successes, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == (pytest.approx(low), pytest.approx(high))


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    scores = np.random.default_rng(0).random((1, 400))
    half = 1.96 * scores.std() / 20
    low, high = bootstrap(scores)
    assert low == pytest.approx(scores.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(scores.mean() + half, abs=0.1 * half)
    assert (low, high) == bootstrap(scores)
    assert (low, high) != bootstrap(scores, seed=1)


def test_a_paired_difference_takes_the_same_images() -> None:
    base = (np.random.default_rng(0).random((1, 200)) > 0.5).astype(np.float64)
    assert bootstrap(base + 0.25, base) == (pytest.approx(0.25), pytest.approx(0.25))


def test_seeds_are_resampled_with_the_images() -> None:
    """Two seeds that are all wrong and all right: a quarter of the resamples holds one of them twice."""
    (means,) = resample([np.repeat([[0.0], [1.0]], 50, axis=1)])
    values, counts = np.unique(means.round(9), return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    assert counts / 2000 == pytest.approx([0.25, 0.5, 0.25], abs=0.05)


def test_means_do_not_depend_on_the_company() -> None:
    one, two = np.random.default_rng(0).random((2, 1, 30))
    assert np.allclose(resample([one, two])[0], resample([one])[0])


def test_many_images_are_drawn_in_parts() -> None:
    scores = np.random.default_rng(0).random((1, 50_000))
    low, high = bootstrap(scores, resamples=200)
    assert high - low == pytest.approx(3.92 * scores.std() / 50_000**0.5, rel=0.3)
