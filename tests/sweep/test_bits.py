from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attacks.errors import InputError
from sweep.bits import pack, pack_classes, union, unpack, unpack_classes

verdicts = hnp.arrays(np.bool_, st.integers(1, 70))
many = st.integers(1, 40).flatmap(lambda n: st.lists(hnp.arrays(np.bool_, n), min_size=1, max_size=5))


@given(hnp.arrays(np.int64, st.integers(0, 70), elements=st.integers(-1, 65534)))
def test_classes_come_back_in_two_bytes_each(classes: np.ndarray) -> None:
    packed = pack_classes(classes)
    assert len(packed) == 2 * len(classes)
    assert np.array_equal(unpack_classes(packed, len(classes)), classes)


def test_a_class_is_a_little_endian_number_of_16_bits() -> None:
    assert pack_classes([1, 258, -1]) == b"\x01\x00\x02\x01\xff\xff"
    with pytest.raises(ValueError, match="expected classes from 0 to 65534, or -1 for none, got -2 to 3"):
        pack_classes([3, -2])
    with pytest.raises(ValueError, match="expected 4 bytes for the classes of 2 images, got 3"):
        unpack_classes(b"\x00\x00\x00", 2)


def row(attack: str, robust: Any, **changes: Any) -> dict[str, Any]:
    given = {"trial": "k", "weights": "live", "epoch": 1, "split": "test", "images": "i", "protocol": "full"}
    bits = {"attack": attack, "n": len(robust), "robust_bits": pack(robust), "budget_id": "b", "conditional": False}
    return {**given, **bits, **changes}


@given(verdicts)
def test_bits_come_back(robust: np.ndarray) -> None:
    packed = pack(robust)
    assert len(packed) == -(-len(robust) // 8)
    assert np.array_equal(unpack(packed, len(robust)), robust)
    assert sum(bin(byte).count("1") for byte in packed) == robust.sum()  # the padding is zero


def test_first_image_is_the_highest_bit() -> None:
    assert pack([1, 0, 0, 0, 0, 0, 0, 0, 1]) == b"\x80\x80"


def test_a_wrong_length_is_noticed() -> None:
    with pytest.raises(ValueError, match="expected 2 bytes for 9 images, got 1"):
        unpack(b"\x00", 9)


@given(many)
def test_union_is_the_and(robust: list[np.ndarray]) -> None:
    rows = [row(f"a{i}", bits) for i, bits in enumerate(robust)]
    count, n, together = union(rows)
    assert np.array_equal(together, np.logical_and.reduce(robust))
    assert (count, n) == (together.sum(), len(robust[0]))
    assert count <= min(bits.sum() for bits in robust)
    assert union(rows[::-1])[0] == union(rows + rows)[0] == count
    parts = [row("part", union([one])[2]) for one in rows]
    assert union(parts)[0] == count


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("images", "images"),
        ("protocol", "protocols"),
        ("budget_id", "budgets"),
        ("trial", "trials"),
        ("split", "split"),
    ],
)
def test_union_refuses_what_does_not_compare(field: str, what: str) -> None:
    with pytest.raises(InputError, match=f"different {what}.*: linf has .*, l2 has 'other'"):
        union([row("linf", [1, 0]), row("l2", [1, 0], **{field: "other"})])


def test_clean_has_no_budget_and_agrees_with_all() -> None:
    assert union([row("clean", [1, 1, 0], budget_id=None), row("linf", [1, 0, 0])])[:2] == (1, 3)


def test_survivors_of_other_attacks_make_no_union() -> None:
    with pytest.raises(InputError, match="no union with square: it saw only the survivors"):
        union([row("linf", [1, 0]), row("square", [1, 0], conditional=True)])
    with pytest.raises(InputError, match="at least one attack"):
        union([])
