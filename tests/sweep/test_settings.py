"""Documents, their layers and the message for every fault in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from attacks.errors import InputError
from sweep.settings import (
    Count,
    Number,
    Strict,
    assignment,
    at,
    complain,
    faults,
    flatten,
    merge,
    nest,
    read_yaml,
    section,
)

KEYS = st.text("abc", min_size=1, max_size=2)
DOCUMENTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    KEYS, st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3)), max_size=3
)


@given(DOCUMENTS)
def test_a_document_is_its_leaves(document: dict[str, Any]) -> None:
    leaves = dict(flatten(document))
    assert nest(leaves) == document
    assert all(at(document, address) == value for address, value in leaves.items())


@given(DOCUMENTS, DOCUMENTS)
def test_the_layer_above_has_the_last_word(below: dict[str, Any], above: dict[str, Any]) -> None:
    merged = merge(below, above)
    assert dict(flatten(above)).items() <= dict(flatten(merged)).items()
    said = dict(flatten(above))
    for address, value in flatten(below):
        silent = not any(a == address or f"{a}.".startswith(f"{address}.") or address.startswith(f"{a}.") for a in said)
        assert not silent or at(merged, address) == value
    assert merge(merged, above) == merged
    assert merge({}, above) == merge(above, {}) == above


def test_a_search_keeps_its_addresses_and_is_replaced_whole() -> None:
    document = nest({"search.sampler.w1": {"low": 1, "high": 2}, "search": {"sampler.w2": {"values": [1]}}})
    assert document == {"search": {"sampler.w1": {"low": 1, "high": 2}, "sampler.w2": {"values": [1]}}}
    assert merge(document, {"search": {"sampler.w1": {"values": [3]}}})["search"] == {
        "sampler.w1": {"values": [3]},
        "sampler.w2": {"values": [1]},
    }


def test_yaml_is_nested_and_has_plain_numbers() -> None:
    text = "optimizer.lr: 1e-3\noptimizer: {epochs: 3}\nseed: 1_0\nname: 1e\n"
    assert read_yaml(text, "a") == {"optimizer": {"lr": 0.001, "epochs": 3}, "seed": 10, "name": "1e"}
    assert read_yaml("# nothing\n", "a") == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", r"^s\.yaml is not valid YAML: a is given twice \(line 1\)$"),
        ("x:\n  a: 1\n  a: 3\n", r"a is given twice \(line 2\)$"),
        ("a.b: 1\na: {b: 2}\n", r"^s\.yaml: a\.b is given twice$"),
        ("a: 1\na.b: 1\n", r"^s\.yaml: a\.b is given twice$"),
        ("a.b: 1\na: 1\n", r"^s\.yaml: a is given twice$"),
        ("- a\n", r"^expected a mapping at the top of s\.yaml, got list$"),
        ("3", r"got int$"),
        ("a: [\n", r"^s\.yaml is not valid YAML: while parsing"),
        ("a: *b\n", r"undefined alias"),
        ("a: &a {b: *a}\n", r"^s\.yaml is not valid YAML: "),
        ("a: !!python/object:os.system {}\n", r"could not determine a constructor"),
        ("a: \x00\n", r"^s\.yaml is not valid YAML: unacceptable character"),
        ("a: 2026-13-01\n", r"^s\.yaml is not valid YAML: month must be in 1\.\.12"),
        (".a: 1\n", r"^s\.yaml: expected an address such as sampler\.w1, got '\.a'$"),
    ],
)
def test_unsound_yaml_is_one_line(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        read_yaml(text, "s.yaml")
    assert "\n" not in str(caught.value)


def test_an_assignment_is_read_as_yaml() -> None:
    assert assignment("a.b=1e-3") == ("a.b", 0.001)
    assert assignment(" a = [1, x]") == ("a", [1, "x"])
    assert assignment("a=b=c") == ("a", "b=c")
    assert assignment("a=") == ("a", None)


@pytest.mark.parametrize("text", ["a", "=1", " =1", "a=[", "a={b: 1, b: 2}"])
def test_what_assigns_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^expected (--set ADDRESS=VALUE|a YAML value after a=), got "):
        assignment(text)


# sections


@dataclass(frozen=True)
class Rates:
    low: float = 0.1
    high: float = 0.2
    count: int = 3
    pad: int | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        if self.low < 0:
            raise InputError(f"expected low >= 0, got {self.low}")
        if self.count < 1:
            raise InputError(f"expected count >= 1, got {self.count}")
        if self.low > 10 * self.high:
            raise InputError(f"expected low <= 10 high, got {self.low} and {self.high}")


def told(model: type[Strict], document: Any, known: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)
    return faults(caught.value, known)


def test_a_section_has_the_fields_of_its_dataclass() -> None:
    made = section(Rates, name="rates").model_validate({"low": "1e-2", "pad": 2})
    assert made.model_dump() == {"name": "rates", "low": 0.01, "high": 0.2, "count": 3, "pad": 2, "flip": False}


def test_every_fault_of_a_section_is_told() -> None:
    found = told(
        section(Rates), {"low": -1, "high": "x", "count": 0, "pad": True, "flip": "maybe", "hihg": 1}, ("high",)
    )
    assert found == [
        "low: expected low >= 0, got -1.0",
        "high: expected a number, got 'x'",
        "count: expected count >= 1, got 0",
        "pad: expected a number, got true",
        "flip: expected true or false, got 'maybe'",
        "hihg: unknown key; did you mean high?",
    ]
    assert told(section(Rates), {"low": 1.5, "high": 0.1}) == ["expected low <= 10 high, got 1.5 and 0.1"]
    assert told(section(Rates, name="rates"), {"name": "rats"}) == ["name: expected 'rates', got 'rats'"]


class Doc(Strict):
    n: Count = 1
    x: Number = 0.0
    names: tuple[str, ...] = ()
    inner: section(Rates) = section(Rates)()  # type: ignore[valid-type]


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({"n": 0}, "n: expected > 0, got 0"),
        ({"n": True}, "n: expected a number, got true"),
        ({"n": 1.5}, "n: expected a whole number, got 1.5"),
        ({"n": None}, "n: expected a whole number, got None"),
        ({"x": float("nan")}, "x: expected a finite number, got nan"),
        ({"names": "ab"}, "names: expected a list, got 'ab'"),
        ({"names": ["a", 1]}, "names.1: expected text, got 1"),
        ({"inner": 3}, "inner: expected a section of keys, got 3"),
        ({"iner": {"low": 1}}, "iner: unknown key; did you mean inner?"),
        ({"inner": {"lwo": 1}}, "inner.lwo: unknown key; did you mean inner.low?"),
        ({"high": 1}, "high: unknown key; did you mean inner.high?"),
        ({"zzz": 1}, "zzz: unknown key; known: inner, n, names, x"),
        ({"inner": {"zzz": 1}}, "inner.zzz: unknown key; known: high, low"),
    ],
)
def test_a_fault_names_address_rule_and_what_was_got(document: dict[str, Any], line: str) -> None:
    assert told(Doc, document, ("n", "x", "names", "inner.low", "inner.high")) == [line]


def test_one_fault_is_one_line_and_several_are_a_list() -> None:
    assert str(complain("s", ["a"])) == "s: a"
    assert str(complain("s", ["a", "b"])) == "2 faults in s:\n  a\n  b"
