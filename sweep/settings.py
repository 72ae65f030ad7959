"""Settings by address: nested documents, how layers of them merge, and one message for every fault in them."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model, model_validator

from attacks.errors import InputError

Document = dict[str, Any]


class Strict(BaseModel):
    """Unknown keys are faults; nothing changes after validation; 1e-3 and "1e-3" are numbers, true is not."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {str(value).lower()}")
    return value


Whole = Annotated[int, BeforeValidator(_no_boolean)]
"""A whole number; true is none."""


@cache
def section(cls: type[Any], *, name: str | None = None) -> type[Strict]:
    """A settings section whose keys, types and defaults are those of a dataclass, and whose rules are its own: while
    validating, the dataclass is built once for each key alone, so that every fault is found, and once for all together.
    Every field needs a default. With `name`, the section also carries that as its `name`."""
    hints = typing.get_type_hints(cls)

    def alone(key: str) -> Any:
        def obey(value: Any) -> Any:
            cls(**{key: value})
            return value

        number = (BeforeValidator(_no_boolean),) if hints[key] in (int, float) else ()
        return Annotated[(hints[key], AfterValidator(obey), *number)]

    keys: dict[str, Any] = {f.name: (alone(f.name), f.default) for f in fields(cls)}

    def obey(self: Any) -> Any:
        cls(**{key: getattr(self, key) for key in keys})
        return self

    extra: dict[str, Any] = {} if name is None else {"name": (typing.Literal[name], name)}
    return create_model(
        cls.__name__, __base__=Strict, __validators__={"obey": model_validator(mode="after")(obey)}, **extra, **keys
    )


def read_yaml(text: str, source: str) -> Document:
    """The document in a YAML text, dotted keys nested; a key given twice is a fault, as in a program."""
    try:
        found = yaml.load(text, _Loader)  # noqa: S506
    except yaml.YAMLError as e:
        raise InputError(f"{source} is not valid YAML: {' '.join(str(e).split())}") from e
    if not isinstance(found or {}, dict):
        raise InputError(f"expected a mapping at the top of {source}, got {type(found).__name__}")
    return nest(found or {})


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice in one mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"{', '.join(twice)} is given twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def assignment(text: str) -> tuple[str, Any]:
    """`sampler.w1=10` -> ("sampler.w1", 10), the value read as YAML."""
    address, equals, value = text.partition("=")
    if not equals or not address.strip():
        raise InputError(f"expected --set ADDRESS=VALUE, got {text!r}")
    try:
        return address.strip(), yaml.safe_load(value)
    except yaml.YAMLError as e:
        raise InputError(f"expected a YAML value after {address}=, got {value!r}") from e


def nest(flat: Mapping[str, Any]) -> Document:
    """{"a.b": 1} -> {"a": {"b": 1}}; `search` keeps its addresses as they are."""
    document: Document = {}
    for address, value in flat.items():
        inner = nest(value) if isinstance(value, Mapping) and address not in ("search", "epsilons") else value
        for key in reversed(str(address).split(".")):
            inner = {key: inner}
        document = merge(document, inner)
    return document


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Document:
    """The document `below` with everything that `above` says."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(address, value) for every leaf of a nested document."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def at(document: Mapping[str, Any], address: str) -> Any:
    """The value at an address; KeyError where there is none."""
    value: Any = document
    for key in address.split("."):
        value = value[key]
    return value


RANGE, VALUES = "<range>", "<values>"
"""Tags of the kinds of distribution, which are no part of an address."""
SEPARATOR = "\n"
"""Between the faults that one validator found."""


def faults(error: ValidationError, known: Iterable[str]) -> list[str]:
    """One line for each fault: the address, the rule and what was got."""
    lines = [line for one in error.errors() for line in _fault(one, sorted(known)).split(SEPARATOR)]
    return list(dict.fromkeys(lines))


def _fault(one: Any, known: list[str]) -> str:
    address = ".".join(str(part) for part in one["loc"] if part not in (RANGE, VALUES))
    if one["type"] == "extra_forbidden":
        near = difflib.get_close_matches(address, known, n=1)
        return f"{address}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    if one["type"] == "value_error":
        return f"{address}: {one['ctx']['error']}" if address else str(one["ctx"]["error"])
    return f"{address}: {one['msg'][0].lower()}{one['msg'][1:]}, got {one['input']!r}"


def complain(source: str, found: list[str]) -> InputError:
    """One error that lists every fault."""
    if len(found) == 1:
        return InputError(f"{source}: {found[0]}")
    return InputError("\n  ".join([f"{len(found)} faults in {source}:", *found]))
