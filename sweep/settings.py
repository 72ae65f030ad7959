"""Settings by address: nested documents, how layers of them merge, and one message for every fault in them."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from attacks.errors import InputError

Document = dict[str, Any]


class Strict(BaseModel):
    """Unknown keys are faults; nothing changes after validation; 1e-3 and "1e-3" are numbers, true is not."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {str(value).lower()}")
    return value


Number = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_no_boolean)]
Count = Annotated[Whole, Field(gt=0)]
"""Numbers, of which true is none; a Count is at least 1."""


def takes_numbers(annotation: Any) -> bool:
    """Whether a key of this type takes a number: int, float, or one of them or None."""
    return {int, float} & _members(annotation) != set() and bool not in _members(annotation)


def takes_whole(annotation: Any) -> bool:
    """Whether the only numbers of a key of this type are whole ones."""
    return takes_numbers(annotation) and float not in _members(annotation)


def _members(annotation: Any) -> set[Any]:
    return set(typing.get_args(annotation)) or {annotation}


def distinct(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values, of which there must be one at least, and none twice."""
    if not given:
        raise InputError("expected at least one, got none")
    if twice := {str(one) for one in given if given.count(one) > 1}:
        raise InputError(f"expected each once, got {', '.join(sorted(twice))} twice")
    return given


@cache
def section(cls: type[Any], *, name: str | None = None) -> type[Strict]:
    """A settings section whose keys, types and defaults are those of a dataclass, and whose rules are its own: while
    validating, the dataclass is built once for each key alone, so that every fault is found, and once for all together.
    Every field needs a default, and a rule over two keys must not forbid one of them beside the other's default. With
    `name`, the section also carries that as its `name`."""
    hints = typing.get_type_hints(cls)

    def alone(key: str) -> Any:
        def obey(value: Any) -> Any:
            cls(**{key: value})
            return value

        number = (BeforeValidator(_no_boolean),) if takes_numbers(hints[key]) else ()
        return Annotated[(hints[key], AfterValidator(obey), *number)]

    keys: dict[str, Any] = {f.name: (alone(f.name), f.default) for f in fields(cls)}

    def obey(self: Any) -> Any:
        cls(**{key: getattr(self, key) for key in keys})
        return self

    whole: Any = model_validator(mode="after")(obey)
    extra: dict[str, Any] = {} if name is None else {"name": (typing.Literal[name], name)}
    return create_model(cls.__name__, __base__=Strict, __validators__={"obey": whole}, **extra, **keys)


def read_yaml(text: str, source: str) -> Document:
    """The document in a YAML text, dotted keys nested; a key given twice is a fault, as in a program."""
    try:
        found = yaml.load(text, _Loader)
        if not isinstance(found or {}, dict):
            raise InputError(f"expected a mapping at the top of {source}, got {type(found).__name__}")
        return nest(found or {}, source)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{source} is not valid YAML: {' '.join(str(e).split())}") from e


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice in one mapping and for which 1e-3 is a number, as in YAML 1.2."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"{', '.join(twice)} is given twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def assignment(text: str) -> tuple[str, Any]:
    """`sampler.w1=10` -> ("sampler.w1", 10), the value read as YAML."""
    address, equals, value = text.partition("=")
    if not equals or not address.strip():
        raise InputError(f"expected --set ADDRESS=VALUE, got {text!r}")
    try:
        return address.strip(), yaml.load(value, _Loader)
    except (yaml.YAMLError, ValueError) as e:
        raise InputError(f"expected a YAML value after {address}=, got {value!r}") from e


METHODS = "methods"
"""The key of a joint space: its alternatives by name, each a document of its own."""
METHOD = "method"
"""The address of the alternative's name among a configuration's values, where there are several."""
SEARCH = "search"
"""The key whose own keys are whole addresses: `search.sampler.w1` is the range of `sampler.w1`."""


def nest(flat: Mapping[Any, Any], source: str = "settings") -> Document:
    """{"a.b": 1} -> {"a": {"b": 1}}. An address given in two ways, or both as a value and as a section, is a fault of
    the `source`."""
    document: Document = {}
    given: set[str] = set()
    for address, value in flatten({str(key): value for key, value in flat.items()}):
        sections = [address[:i] for i, c in enumerate(address) if c == "."]
        if address in given or given & set(sections) or any(old.startswith(f"{address}.") for old in given):
            raise InputError(f"{source}: {address} is given twice")
        if not all(address.split(".")):
            raise InputError(f"{source}: expected an address such as sampler.w1, got {address!r}")
        given.add(address)
        first, _, rest = address.partition(".")
        keys = [first, rest] if first == SEARCH and rest else address.split(".")
        for key in reversed(keys):
            value = {key: value}
        document = merge(document, value)
    return document


def flatten(document: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(address, value) for every leaf of a nested document; a range or list of values to search is a leaf."""
    for key, value in document.items():
        address = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and address != METHODS and not address.startswith(f"{SEARCH}."):
            yield from flatten(value, f"{address}.")
        else:
            yield address, value


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Document:
    """The document `below` with everything that `above` says; what is searched at an address is replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = {**old, **value} if key == SEARCH else merge(old, value)
        else:
            merged[key] = value
    return merged


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
    lines = [line for one in error.errors() for line in _fault(one, list(known)).split(SEPARATOR)]
    return list(dict.fromkeys(lines))


def _fault(one: Any, known: list[str]) -> str:
    address = ".".join(str(part) for part in one["loc"] if part not in (RANGE, VALUES, "[key]"))
    if one["type"] == "extra_forbidden":
        return f"{address}: unknown key{_remedy(one['loc'], address, known)}"
    if one["type"] == "value_error":
        said = str(one["ctx"]["error"]).split(SEPARATOR)
        return SEPARATOR.join(f"{address}: {line}" if address else line for line in said)
    if one["type"] == "missing":
        return f"{address}: expected a value, got none"
    return f"{address}: {_rule(one)}, got {one['input']!r}"


def _remedy(place: tuple[Any, ...], address: str, known: list[str]) -> str:
    """The nearest key of the section, or address, for a key outside of all sections; else all keys of the section."""
    before, dot, last = address.rpartition(".")
    if kind := {RANGE, VALUES} & set(place):
        known = [f"{before}.{key}" for key in (("values",) if VALUES in kind else ("low", "high", "log", "step"))]
    here = {name.removeprefix(before + dot).split(".")[0] for name in known if name.startswith(before + dot)}
    ends = [] if dot else [name.rpartition(".")[2] for name in known]
    near = last if last in ends else next(iter(difflib.get_close_matches(last, here, n=1)), None)
    if near in here:
        return f"; did you mean {near if kind else before + dot + near}?"
    near = near or next(iter(difflib.get_close_matches(last, ends, n=1)), None)
    if near is not None:
        return f"; did you mean {' or '.join(n for n in known if n.rpartition('.')[2] == near)}?"
    return f"; known: {', '.join(sorted(here))}"


_RULES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda ctx: f"expected > {ctx['gt']}",
    "greater_than_equal": lambda ctx: f"expected >= {ctx['ge']}",
    "less_than": lambda ctx: f"expected < {ctx['lt']}",
    "int_from_float": lambda ctx: "expected a whole number",
    "finite_number": lambda ctx: "expected a finite number",
    "literal_error": lambda ctx: f"expected {ctx['expected']}",
    **dict.fromkeys(("int_parsing", "int_type"), lambda ctx: "expected a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), lambda ctx: "expected a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), lambda ctx: "expected true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), lambda ctx: "expected a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), lambda ctx: "expected a section of keys"),
    "string_type": lambda ctx: "expected text",
}


def _rule(one: Any) -> str:
    """What was expected, in our words; in pydantic's where we have none."""
    if one["type"] in _RULES:
        return _RULES[one["type"]](one.get("ctx", {}))
    return f"{one['msg'][0].lower()}{one['msg'][1:]}"


def complain(source: str, found: list[str]) -> InputError:
    """One error that lists every fault."""
    if len(found) == 1:
        return InputError(f"{source}: {found[0]}")
    return InputError("\n  ".join([f"{len(found)} faults in {source}:", *found]))
