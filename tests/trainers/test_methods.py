"""The catalogue of methods, and the importance of attacks."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from attacks.errors import InputError
from trainers.averaging.ema import Ema
from trainers.averaging.mde import Mde
from trainers.averaging.none import Live
from trainers.methods import CATALOGUE, compose, entry, expect_attacks, importance
from trainers.parts import PARTS
from trainers.recipe import Recipe
from trainers.samplers.cas import Cas

FAMILIES = {"linf": "lp", "l1": "lp", "fog": "semantic", "hsv": "semantic", "jpeg": "semantic", "ppgd": "perceptual"}


@pytest.mark.parametrize("name", CATALOGUE)
class TestEveryMethod:
    def test_its_parts_exist_and_compose(self, name: str) -> None:
        found = entry(name)
        made = compose({kind: {"name": part} for kind, part in found.parts().items()})
        for kind, part in found.parts().items():
            assert type(getattr(made, kind)) is PARTS[kind].get(part)

    def test_its_settings_have_addresses_that_exist(self, name: str) -> None:
        found = entry(name)
        for address in found.settings:
            section, _, key = address.partition(".")
            if section == "optimizer":
                assert key in {field.name for field in fields(Recipe)}
            elif section in PARTS:
                assert key in {field.name for field in fields(PARTS[section].get(found.parts()[section]))}
            else:
                assert address == "importance"

    def test_it_says_where_it_comes_from(self, name: str) -> None:
        assert entry(name).source


def test_the_papers_hyper_parameters_are_the_defaults() -> None:
    sampler, averaging = Cas(), Mde()
    assert (sampler.w1, sampler.w2, sampler.w3) == (10, 1, 0.5)
    assert (averaging.tau, averaging.d2, averaging.d3) == (0.95, 5, 50)
    assert Ema().decay == 0.995


def test_compose_sets_the_hyper_parameters() -> None:
    parts: dict[str, dict[str, Any]] = {kind: {"name": part} for kind, part in entry("cas").parts().items()}
    parts["sampler"] |= {"w1": 3.0}
    made = compose(parts)
    assert made.sampler == Cas(w1=3.0)
    assert parts["sampler"] == {"name": "cas", "w1": 3.0}  # what was given is left alone


def test_compose_refuses_what_it_does_not_know() -> None:
    parts = {kind: {"name": part} for kind, part in entry("cas").parts().items()}
    with pytest.raises(
        InputError, match=r"unknown hyper-parameter of sampler cas 'accuracy_decai': did you mean 'accuracy_decay'"
    ):
        compose(parts | {"sampler": {"name": "cas", "accuracy_decai": 0.5}})
    with pytest.raises(InputError, match="unknown averaging 'mdee': did you mean 'mde'"):
        compose(parts | {"averaging": {"name": "mdee"}})
    with pytest.raises(InputError, match="tau"):
        compose(parts | {"averaging": {"name": "mde", "tau": 1.5}})


def test_modifiers_swap_the_averaging_and_nothing_else() -> None:
    plain, ema, none = entry("cas"), entry("cas+ema"), entry("cas+none")
    assert (plain.averaging, ema.averaging, none.averaging) == ("mde", "ema", "none")
    assert {**ema.parts(), "averaging": "mde"} == plain.parts()
    assert ema.settings == plain.settings
    assert type(compose({k: {"name": v} for k, v in entry("sat+mde").parts().items()}).averaging) is Mde
    assert type(compose({k: {"name": v} for k, v in none.parts().items()}).averaging) is Live


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cass", "unknown method 'cass': did you mean 'cas'"),
        ("", "unknown method ''"),
        ("cas+emma", "unknown averaging 'emma': did you mean 'ema'"),
        ("cas+", "unknown averaging ''"),
        ("cas+ema+mde", "at most one of ema and mde, got 'cas+ema+mde': an averaging replaces another"),
        ("avg+ab-l1+ab-l2", "at most one of ab-l1 and ab-l2"),
        ("avg+ab-l3", "unknown averaging 'ab-l3': did you mean 'ab-l"),
        ("cas+ab-l1", "expected several attacks on a batch under ab-l1, got 'cas+ab-l1': its inner, single, runs one"),
        ("natural+ab-l2", "its inner, natural, runs one or none"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("+", r"\+")):
        entry(name)


def test_adaptive_budgets_are_a_setting_of_the_inner() -> None:
    found = entry("max+ab-l2+ema")
    assert found.settings["inner.adaptive"] == "l2"
    assert (found.inner, found.averaging) == ("max", "ema")
    assert {**found.parts(), "averaging": "none"} == entry("max").parts()


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("modifier", ["none", "ema", "mde", "ramp", "ab-l1", "ab-l2"])
def test_every_modifier_composes_or_is_refused_with_the_reason(name: str, modifier: str) -> None:
    try:
        found = entry(f"{name}+{modifier}")
    except InputError as error:
        refusal = str(error)
    else:
        refusal = ""
        compose({kind: {"name": part} for kind, part in found.parts().items()})
    alone = CATALOGUE[name].inner in ("single", "natural")
    assert ("expected several attacks on a batch" in refusal) == (modifier.startswith("ab-") and alone)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"sampler": "every"}, "expected one attack a batch with inner single, got sampler every"),
        ({"inner": "max"}, "expected sampler every with inner max, got sat"),
        ({"objective": "ramp"}, "expected sampler every and inner each with objective ramp"),
        ({"inner": "natural", "objective": "trades"}, "expected objective ce with inner natural"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(parts: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compose({kind: {"name": part} for kind, part in (entry("sat").parts() | parts).items()})


def test_attacks_that_a_method_has_no_use_for_are_refused() -> None:
    with pytest.raises(
        InputError, match="expected lp attacks under inner msd, whose steps share one gradient, got fog"
    ):
        expect_attacks(entry("msd").parts(), {"linf": "lp", "fog": "semantic"})
    with pytest.raises(InputError, match="expected two attacks to train on under objective ramp"):
        expect_attacks(entry("ramp").parts(), {"linf": "lp", "l2": "lp", "l1": "lp"})
    expect_attacks(entry("ramp").parts(), {"linf": "lp", "l1": "lp"})


class TestImportance:
    def test_balanced_makes_both_groups_weigh_the_same(self) -> None:
        found = importance("balanced", FAMILIES)
        assert found["linf"] == found["l1"] == 2.0  # (6 - 2) / 2
        assert sum(found[name] for name in ("linf", "l1")) == sum(found[n] for n in ("fog", "hsv", "jpeg", "ppgd"))

    def test_as_published_lowers_the_lp_attacks(self) -> None:
        found = importance("as_published", FAMILIES)
        assert found["linf"] == pytest.approx(4 / 6)
        assert found["fog"] == 1.0

    def test_none_weighs_all_alike(self) -> None:
        assert set(importance("none", FAMILIES).values()) == {1.0}

    @pytest.mark.parametrize("reading", ["balanced", "as_published", "none"])
    def test_one_group_alone_weighs_all_alike(self, reading: str) -> None:
        assert importance(reading, {"linf": "lp", "l1": "lp"}) == {"linf": 1.0, "l1": 1.0}
        assert importance(reading, {"fog": "semantic"}) == {"fog": 1.0}

    def test_given_weights_stand_and_the_others_are_1(self) -> None:
        assert importance({"linf": 6, "fog": 0.0}, {"linf": "lp", "fog": "semantic", "hsv": "semantic"}) == {
            "linf": 6.0,
            "fog": 0.0,
            "hsv": 1.0,
        }

    @pytest.mark.parametrize(
        ("reading", "message"),
        [
            ("balancd", "unknown importance 'balancd': did you mean 'balanced'"),
            ({"linff": 2.0}, "unknown attack with an importance weight 'linff': did you mean 'linf'"),
            ({"linf": -1.0}, "expected an importance weight >= 0 of linf"),
            ({"linf": math.nan}, "expected an importance weight >= 0 of linf"),
            ({"linf": math.inf}, "expected an importance weight >= 0 of linf"),
            ({"linf": 0.0, "l1": 0.0}, "of at least one attack"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, reading: str | dict[str, float], message: str) -> None:
        with pytest.raises(InputError, match=message):
            importance(reading, {"linf": "lp", "l1": "lp"})
