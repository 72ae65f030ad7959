"""Noise by counter, the registry, and the errors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks import noise
from attacks.errors import InputError, unknown
from attacks.registry import Registry

seeds_of_all_sizes = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=6)


@given(seeds_of_all_sizes, st.integers(0, 50))
@settings(max_examples=50, deadline=None)
def test_noise_of_an_image_depends_on_its_seed_only(values: list[int], draw: int) -> None:
    seeds = torch.tensor(values)
    for make in (noise.uniform, noise.normal):
        whole = make(seeds, draw, (3, 4))
        assert torch.equal(whole[1:], make(seeds[1:], draw, (3, 4)))
        assert whole.isfinite().all()
    uniform = noise.uniform(seeds, draw, (3, 4))
    assert uniform.min() >= 0
    assert uniform.max() < 1


def test_noise_is_distributed_as_it_says() -> None:
    seeds = torch.arange(1000)
    uniform, normal = noise.uniform(seeds, 0, (100,)), noise.normal(seeds, 0, (100,))
    histogram = torch.histc(uniform, 10, 0, 1) / uniform.numel()
    assert (histogram - 0.1).abs().max() < 0.005
    assert abs(float(normal.mean())) < 0.015
    assert abs(float(normal.std()) - 1) < 0.015
    assert abs(float(((normal.abs() > 1.96).float()).mean()) - 0.05) < 0.005


def test_draws_elements_and_seeds_are_independent() -> None:
    seeds = torch.arange(2000)
    first, second = noise.uniform(seeds, 0, (20,)), noise.uniform(seeds, 1, (20,))
    for a, b in [(first, second), (first[:, 1:], first[:, :-1]), (first[1:], first[:-1])]:
        together = torch.stack([a.flatten(), b.flatten()])
        assert abs(float(torch.corrcoef(together)[0, 1])) < 0.03


def test_derived_streams_differ() -> None:
    seeds = torch.arange(100)
    streams = [noise.derive(seeds, *salts) for salts in [(0,), (1,), (0, 1), (1, 0), (0, 0)]]
    assert len({int(seed) for stream in streams for seed in stream}) == 500
    assert torch.equal(noise.derive(noise.derive(seeds, 3), 4), noise.derive(seeds, 3, 4))


def test_registry_finds_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shop_of_things"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from attacks.registry import Registry\nTHINGS = Registry('thing', 'shop_of_things')\n"
    )
    (folder / "lamp.py").write_text("from shop_of_things import THINGS\n@THINGS.register('lamp')\nclass Lamp: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import shop_of_things  # type: ignore[import-not-found]

    assert shop_of_things.THINGS.names() == ["lamp"]
    assert shop_of_things.THINGS.get("lamp").__name__ == "Lamp"
    with pytest.raises(InputError, match="unknown thing 'lmap': did you mean 'lamp'"):
        shop_of_things.THINGS.get("lmap")
    for name in [name for name in sys.modules if name.startswith("shop_of_things")]:
        del sys.modules[name]


def test_registry_refuses_a_name_twice() -> None:
    things: Registry[int] = Registry("thing")
    things.register("one")(1)
    with pytest.raises(RuntimeError, match="registered twice"):
        things.register("one")(2)


def test_unknown_lists_what_is_known_when_nothing_is_near() -> None:
    assert str(unknown("colour", "xyz", ["red", "green"])) == "unknown colour 'xyz': known: green, red"
    assert str(unknown("colour", "xyz", [])) == "unknown colour 'xyz': known: none"
    assert isinstance(unknown("colour", "gren", ["red", "green"]), ValueError)
