"""What may be searched at an address: a range of numbers, or a list of values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from attacks.errors import InputError
from sweep.settings import RANGE, VALUES, Number, Strict, distinct


def _plain(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for value in values:
        if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"expected text, finite numbers, true or false, got {value!r}")
    return values


class Floats(Strict):
    """A number between `low` and `high`, uniformly or, with `log`, uniformly in its logarithm; with `step`, on a grid.
    `integer` follows from what is searched."""

    low: Number
    high: Number
    log: bool = False
    step: Annotated[Number, Field(gt=0)] | None = None
    integer: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Floats:
        if not self.low < self.high:
            raise InputError(f"expected low < high, got {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise InputError(f"expected low > 0 and no step with log: true, got low {self.low} and step {self.step}")
        if self.integer and any(v is not None and v != int(v) for v in (self.low, self.high, self.step)):
            raise InputError(f"expected whole numbers, got low {self.low}, high {self.high}, step {self.step}")
        low, high, step = (Decimal(str(v or 0)) for v in (self.low, self.high, self.step))
        if step and (high - low) % step:
            raise InputError(f"expected high - low to be a multiple of step, got {high - low} and {step}")
        return self

    def ends(self) -> list[Any]:
        return [int(v) if self.integer else v for v in (self.low, self.high)]

    def nearest(self, value: Any) -> Any:
        """The value of the range that is nearest to a number, the lowest where there is none."""
        low, high = self.ends()
        if value is None:
            return low
        inside = min(max(value, low), high)
        step = self.step or (1 if self.integer else None)
        on_grid = inside if step is None else low + round((inside - low) / step) * step
        return int(on_grid) if self.integer else on_grid

    def holds(self, value: Any) -> bool:
        """Whether it is one of the values of the range."""
        return isinstance(value, int | float) and math.isclose(self.nearest(value), value)

    def points(self) -> list[Any] | None:
        """Every value of a range with a step; None for a continuous one."""
        step = self.step or (1 if self.integer else None)
        if step is None:
            return None
        numbers = [self.low + k * step for k in range(round((self.high - self.low) / step) + 1)]
        return [int(n) if self.integer else n for n in numbers]


class Values(Strict):
    """One of the values given."""

    values: Annotated[tuple[Any, ...], AfterValidator(_plain), AfterValidator(distinct)]

    def ends(self) -> list[Any]:
        return list(self.values)

    def points(self) -> list[Any]:
        return list(self.values)

    def holds(self, value: Any) -> bool:
        return value in self.values

    def nearest(self, value: Any) -> Any:
        """The value, where it is one of these, else the first."""
        return value if value in self.values else self.values[0]


def is_listed(given: Any) -> bool:
    """Whether it is meant as a list of values."""
    return isinstance(given, Values) or (isinstance(given, Mapping) and "values" in given)


Distribution = Annotated[
    Annotated[Floats, Tag(RANGE)] | Annotated[Values, Tag(VALUES)],
    Discriminator(lambda given: VALUES if is_listed(given) else RANGE),
]
