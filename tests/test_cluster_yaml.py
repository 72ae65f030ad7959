"""cluster.yaml, by Ray's own schema and functions; what it must not open or forget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def prepared() -> dict[str, Any]:
    """As `ray up` has it before it asks AWS for anything."""
    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(config)
    return config


def test_it_obeys_rays_schema() -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((ROOT / "cluster.yaml").read_text()), schema)


def test_the_head_runs_no_trial_and_workers_come_from_none(prepared: dict[str, Any]) -> None:
    head, worker = (prepared["available_node_types"][name] for name in ("head", "spot-gpu"))
    assert prepared["head_node_type"] == "head"
    assert head["resources"]["CPU"] == head["resources"]["GPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert worker["min_workers"] == 0 < worker["max_workers"] <= prepared["max_workers"]
    assert worker["resources"]["GPU"] > 0
    assert 0 < prepared["idle_timeout_minutes"] <= 30


def test_nothing_but_ssh_is_open(prepared: dict[str, Any]) -> None:
    rules = prepared["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(22, 22)]
    head, *_ = [c for c in prepared["head_start_ray_commands"] if "start --head" in c]
    assert "--dashboard-host=127.0.0.1" in head
    assert "ray-client-server" not in head


def test_every_ray_asks_for_the_token_that_is_mounted(prepared: dict[str, Any]) -> None:
    started = [c for kind in ("head", "worker") for c in prepared[f"{kind}_start_ray_commands"] if "ray start" in c]
    assert len(started) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in started)
    assert prepared["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in command and ".bashrc" in command for command in prepared["setup_commands"])


def test_the_project_comes_from_this_checkout_with_the_tested_set(prepared: dict[str, Any]) -> None:
    assert prepared["file_mounts"]["~/adversarial-sweep"] == "."
    install = " ".join(prepared["setup_commands"])
    assert "-c ~/adversarial-sweep/constraints.txt -e ~/adversarial-sweep" in install
