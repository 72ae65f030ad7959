"""How large a cluster may become that `ray up` made."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config

from attacks.errors import InputError
from sweep import engine


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ray_bootstrap_config.yaml"
    monkeypatch.setattr(engine, "BOOTSTRAP", path)
    return path


def test_it_counts_as_grown_by_its_workers(bootstrap: Path) -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "cluster.yaml").read_text())
    bootstrap.write_text(yaml.safe_dump(prepare_config(config)))
    assert engine._grown({"memory": 5.0}) == {"memory": 5.0, "CPU": 64.0, "GPU": 8.0}
    config["max_workers"] = 2
    bootstrap.write_text(yaml.safe_dump(prepare_config(config)))
    assert engine._grown({"CPU": 99.0}) == {"CPU": 99.0, "GPU": 2.0}


@pytest.mark.parametrize("text", [None, "", "[]", "{", "available_node_types: {}", "head_node_type: head"])
def test_others_are_what_they_are(bootstrap: Path, text: str | None) -> None:
    if text is not None:
        bootstrap.write_text(text)
    assert engine._grown({"CPU": 4.0}) == {"CPU": 4.0}


def test_a_worker_must_fit_on_one_node() -> None:
    nodes = [{"CPU": 0.0}, {"CPU": 4.0}, {"CPU": 2.0, "GPU": 1.0}]
    engine._expect_node(4, 0.0, nodes)
    engine._expect_node(2, 0.5, nodes)
    with pytest.raises(InputError, match="expected a node with 5 CPUs for a worker, got nodes with 0 CPUs"):
        engine._expect_node(5, 0.0, nodes)
    with pytest.raises(InputError, match="a node with 4 CPUs and 1 GPUs"):
        engine._expect_node(4, 1.0, nodes)
