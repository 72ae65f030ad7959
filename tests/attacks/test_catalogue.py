"""Names, budgets, and what is said to a user who mistypes them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import attacks
from attacks import catalogue
from attacks.errors import InputError
from attacks.latent import LatentAttack

DATASETS = catalogue.datasets()


def test_names() -> None:
    wanted = {"linf", "l2", "l1", "pgd-linf", "pgd-l2", "pgd-l1", "jpeg", "blur", "fog", "pixel", "elastic", "hsv"}
    assert wanted <= set(attacks.names())
    assert attacks.names() == sorted(attacks.names())


def test_datasets() -> None:
    assert {"cifar10", "cifar100", "svhn", "tiny-imagenet", "mnist", "digits", "digits-photo"} <= set(DATASETS)


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_attack_has_a_budget(dataset: str) -> None:
    for name in attacks.names():
        low, medium, high = (attacks.get(name, dataset, level).epsilon for level in ("low", "medium", "high"))
        assert 0 < low < medium < high
        assert low / 4 <= attacks.get(name, dataset).epsilon <= 4 * high
        assert attacks.get(name, dataset).num_steps >= (1 if name == "fgsm" else 10)


def test_published_budgets() -> None:
    """The published CIFAR-10 values."""
    assert attacks.get("linf").epsilon == 8 / 255
    assert (attacks.get("l2").epsilon, attacks.get("l1").epsilon) == (0.5, 12)
    jpeg: Any = attacks.get("jpeg", dataset="cifar10")
    assert (jpeg.epsilon, jpeg.num_steps, jpeg.step_size) == (3 / 255, 50, 0.0024)
    mnist: Any = attacks.get("pgd-l2", "mnist")
    assert (mnist.epsilon, mnist.num_steps, mnist.step_size) == (2.0, 100, 0.1)
    assert attacks.get("jpeg", "mnist").epsilon == jpeg.epsilon


@pytest.mark.parametrize(
    ("given", "epsilon"), [("4/255", 4 / 255), ("0.1", 0.1), (0.1, 0.1), (" 16 / 255 ", 16 / 255), ("high", 16 / 255)]
)
def test_epsilon(given: float | str, epsilon: float) -> None:
    assert attacks.get("linf", epsilon=given).epsilon == epsilon


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (8, r"expected epsilon <= 1, got 8 \(attacks.linf\): write 8/255 for grey levels"),
        ("8", "write 8/255"),
        (-0.03, r"expected epsilon > 0, got -0.03 \(attacks.linf\)"),
        (0, "expected epsilon > 0, got 0"),
        ("mediun", "expected epsilon to be a number, a fraction such as 8/255, or low, medium or high, got 'mediun'"),
        ("8/0", "got '8/0'"),
        ("", "got ''"),
        ("1/2/3", "got '1/2/3'"),
        ("nan", "expected epsilon > 0, got nan"),
        (float("inf"), "expected epsilon > 0, got inf"),
        (True, "got True"),
        ([0.1], r"got \[0.1\]"),
    ],
)
def test_impossible_epsilon(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        attacks.get("linf", epsilon=given)
    assert "\n" not in str(caught.value)


def test_impossible_step_size() -> None:
    import dataclasses

    jpeg: Any = attacks.get("jpeg")
    with pytest.raises(InputError, match=r"expected step_size > 0, got -1 \(attacks.jpeg\)"):
        dataclasses.replace(jpeg, step_size=-1.0)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="unknown attack 'jpg': did you mean 'jpeg'"):
        attacks.get("jpg")
    with pytest.raises(InputError, match="unknown data set 'cifar': did you mean 'cifar10'"):
        attacks.get("jpeg", dataset="cifar")
    with pytest.raises(InputError, match=r"unknown data set '\.\./mnist'"):
        attacks.get("jpeg", dataset="../mnist")


def test_describe() -> None:
    rows = attacks.describe()
    assert [row["name"] for row in rows] == attacks.names()
    assert all(set(row) == {"name", "family", "epsilon", "num_steps", "step_size", "source"} for row in rows)
    assert {row["name"]: row["step_size"] for row in rows}["linf"] is None
    assert all(row["source"] for row in attacks.describe("mnist"))


def test_importing_attacks_is_cheap() -> None:
    check = "import sys, attacks, attacks.errors; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_no_such_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'bgd'"):
        attacks.bgd  # noqa: B018


def test_calibrated_budgets_hold_for_their_own_data_set() -> None:
    """They move the step size too, and are not inherited."""
    fog, medium = attacks.get("fog", epsilon="calibrated"), attacks.get("fog", epsilon="medium")
    assert isinstance(fog, LatentAttack)
    assert isinstance(medium, LatentAttack)
    assert fog.epsilon < medium.epsilon
    assert fog.step_size / fog.epsilon == pytest.approx(medium.step_size / medium.epsilon)
    with pytest.raises(InputError, match="expected a calibrated budget, got none for this data set"):
        attacks.get("fog", "mnist", "calibrated")
    with pytest.raises(InputError, match="expected a calibrated budget"):
        attacks.get("linf", epsilon="calibrated")
