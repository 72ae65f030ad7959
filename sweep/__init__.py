"""Sweeps: many trials through Ray, their results in Parquet. `from sweep import results` gives them as a DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


def results(
    storage: str | None = None, sweep_id: str | Sequence[str] | None = None, columns: Sequence[str] | None = None
) -> pandas.DataFrame:
    """The rows of the SQL view `results`: one per trial, weights, epoch, split and attack, accuracies 0..1.

    `storage`: path or URI; default $SWEEP_STORAGE, else ./results. `sweep_id`: one, several, or all. `columns`: of
    docs/schema.md, those alone, which is faster.
    """
    from attacks.errors import unknown
    from sweep import schema
    from sweep.query import view
    from sweep.storage import Storage, default_uri

    if strange := [name for name in columns or () if name not in schema.RESULTS]:
        raise unknown("column", strange[0], schema.RESULTS)
    frame: pandas.DataFrame = view(Storage(storage or default_uri()), "results", sweep_id, columns).to_pandas()
    return frame
