"""How large a cluster may become that `ray up` made."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config

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
