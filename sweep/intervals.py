"""Intervals of accuracies: Wilson's for one fraction, and a paired bootstrap over images and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_CHUNK = 1 << 22  # numbers drawn at once


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a fraction (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, shrink = successes / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / shrink
    low = centre - half if successes else 0.0  # exactly: round-off would leave 1e-17
    return low, centre + half if successes < n else 1.0


def bootstrap(
    scores: Floats, base: Floats | None = None, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of scores (seeds, images), or of its paired difference from the mean of base."""
    means = resample([scores] if base is None else [scores, base], resamples, seed)
    return percentiles(means[0] if base is None else means[0] - means[1], level)


def resample(groups: Sequence[Floats], resamples: int = 2000, seed: int = 0) -> Floats:
    """Means (groups, resamples) of groups (seeds, images) over the same images.

    A resample draws the images once, for all groups and seeds, and then each group's seeds. Images are drawn as counts,
    so all means of a resample are one matrix product: 2 * resamples * images * (all seeds) operations.
    """
    rng = np.random.default_rng(seed)
    stacked = np.concatenate(groups)
    n = stacked.shape[1]
    by_seed = []
    for start in range(0, resamples, step := max(1, _CHUNK // n)):
        count = min(step, resamples - start)
        drawn = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        by_seed.append(np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n) @ stacked.T / n)
    parts = np.split(np.concatenate(by_seed), np.cumsum([len(group) for group in groups])[:-1], axis=1)
    return np.asarray([_over_seeds(rng, part) for part in parts], np.float64)


def _over_seeds(rng: np.random.Generator, means: Floats) -> Floats:
    """(resamples, seeds) to (resamples,): the mean over as many seeds, drawn again."""
    seeds = means.shape[1]
    counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), len(means))
    return np.asarray((means * counts).sum(1) / seeds, np.float64)


def percentiles(means: Floats, level: float = 0.95) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
