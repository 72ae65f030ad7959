"""Intervals of accuracies: Wilson's for one fraction, and a paired bootstrap over images and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_CHUNK = 1 << 22  # numbers drawn at once
_ROUND_OFF = 1e-9


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
    """Means (groups, resamples) of groups (seeds, images) over the same images."""
    drawn = Draws.of(groups[0].shape[1], [len(group) for group in groups], resamples, seed)
    return np.asarray([drawn.means(k, group[None])[0] for k, group in enumerate(groups)])


@dataclass(frozen=True)
class Draws:
    """Which images, for all groups and their seeds, and then which of its seeds each group has, in each resample: as
    counts, so that all means of a group are one matrix product of 2 * resamples * images * seeds operations a column.
    """

    images: npt.NDArray[np.uint16]  # (resamples, images)
    seeds: list[npt.NDArray[np.int64]]  # by group, (resamples, seeds)

    @classmethod
    def of(cls, images: int, seeds: Sequence[int], resamples: int = 2000, seed: int = 0) -> Draws:
        rng = np.random.default_rng(seed)
        counts = []
        for start in range(0, resamples, step := max(1, _CHUNK // images)):
            size = min(step, resamples - start)
            drawn = rng.integers(0, images, (size, images)) + images * np.arange(size)[:, None]
            counts.append(np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images).astype(np.uint16))
        by_group = [rng.multinomial(n, np.full(n, 1 / n), resamples) for n in seeds]
        return cls(np.concatenate(counts), by_group)

    def means(self, group: int, scores: Floats) -> Floats:
        """Means (columns, resamples) of a group's scores (columns, seeds, images)."""
        columns, seeds, n = scores.shape
        flat = scores.reshape(-1, n).T
        resamples, step = len(self.images), max(1, _CHUNK // n)
        parts = [self.images[start : start + step] @ flat for start in range(0, resamples, step)]
        by_seed = np.concatenate(parts).reshape(resamples, columns, seeds)
        return np.asarray(np.einsum("rcs,rs->cr", by_seed, self.seeds[group]) / (n * seeds), np.float64)


def holding_zero(differences: Floats, level: float = 0.95) -> npt.NDArray[np.bool_]:
    """Of resampled differences (columns, resamples): whether the interval of each holds 0."""
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return np.asarray((low <= _ROUND_OFF) & (high >= -_ROUND_OFF))


def percentiles(means: Floats, level: float = 0.95) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
