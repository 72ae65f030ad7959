"""One verdict bit per image: packed, unpacked, and the exact union of attacks, which is an AND. And one class each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.errors import InputError

Bits = npt.NDArray[np.bool_]
Classes = npt.NDArray[np.int64]
PERCEPTUAL = "perceptual"


def pack(robust: npt.ArrayLike) -> bytes:
    """Verdicts (N,) as ceil(N/8) bytes, first image in the highest bit, zero-padded."""
    return np.packbits(np.asarray(robust, dtype=np.bool_)).tobytes()


def unpack(packed: bytes, n: int) -> Bits:
    """The N verdicts that `pack` packed."""
    if len(packed) != (n + 7) // 8:
        raise ValueError(f"expected {(n + 7) // 8} bytes for {n} images, got {len(packed)}")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=n).astype(np.bool_)


def pack_classes(classes: npt.ArrayLike) -> bytes:
    """Classes (N,), 0 to 65534, as one little-endian uint16 each; -1, no class, as 65535."""
    given = np.asarray(classes, np.int64)
    if given.size and not -1 <= given.min() <= given.max() < 65535:
        raise ValueError(f"expected classes from 0 to 65534, or -1 for none, got {given.min()} to {given.max()}")
    return given.astype("<u2").tobytes()


def unpack_classes(packed: bytes, n: int) -> Classes:
    """The N classes that `pack_classes` packed."""
    if len(packed) != 2 * n:
        raise ValueError(f"expected {2 * n} bytes for the classes of {n} images, got {len(packed)}")
    found = np.frombuffer(packed, "<u2").astype(np.int64)
    return np.where(found == 65535, -1, found)


def union(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int, Bits]:
    """(n_robust, n, verdicts (n,)) against all the attacks together, of `results` rows of one model.

    Exact, and clean accuracy is within it, since robust means correct on the clean image too. Refused (InputError)
    where the rows differ in model, weights, images, protocol or budget set, or one saw only the survivors of another.
    """
    expect_union(rows)
    n = int(rows[0]["n"])
    robust = np.logical_and.reduce([unpack(row["robust_bits"], n) for row in rows])
    return int(robust.sum()), n, robust


def expect_union(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuses rows that have no union."""
    if not rows:
        raise InputError("expected at least one attack for a union, got none")
    for row in rows:
        if row.get("conditional"):
            raise InputError(f"no union with {row['attack']}: it saw only the survivors of the attacks before it")
    for field, what in _SAME.items():
        same(rows, field, what)
    same(_by_set(rows), "budget_id", "budgets")


def _by_set(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows with the set that their budget is of: a perceptual budget's name may go on, SET+MODEL, with the model
    whose features measure it (sweep.evaluation)."""
    sets = {str(row["budget_id"]) for row in rows if row.get("budget_id") and row.get("family") != PERCEPTUAL}
    found = []
    for row in rows:
        longer = [one for one in sets if str(row.get("budget_id")).startswith(f"{one}+")]
        found.append({**row, "budget_id": longer[0]} if longer and row.get("family") == PERCEPTUAL else row)
    return found


_SAME = {
    "trial": "trials",
    "weights": "weights",
    "epoch": "epochs",
    "split": "splits",
    "images": "images",
    "n": "numbers of images",
    "protocol": "protocols",
}


def same(rows: Sequence[Mapping[str, Any]], field: str, what: str) -> None:
    """Refuses rows that differ in a field; a null (clean has no budget) agrees with everything."""
    seen = {row.get(field): row for row in rows if row.get(field) is not None}
    if len(seen) > 1:
        a, b = list(seen.values())[:2]
        apart = a.get("sweep_id") != b.get("sweep_id")
        one, other = (
            f"{row['attack']}{' of ' + row['sweep_id'] if apart else ''} has {row[field]!r}" for row in (a, b)
        )
        raise InputError(f"not comparable, different {what}: {one}, {other}")
