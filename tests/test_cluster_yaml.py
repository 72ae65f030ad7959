"""cluster.yaml and cluster-onprem.yaml, by Ray's own schema and functions; what they must not open or forget."""

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


FILES = ("cluster.yaml", "cluster-onprem.yaml")


def ready(name: str) -> dict[str, Any]:
    """As `ray up` has it before it asks for any machine."""
    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / name).read_text()))
    validate_config(config)
    return config


@pytest.fixture(scope="module", params=FILES)
def either(request: pytest.FixtureRequest) -> dict[str, Any]:
    return ready(request.param)


@pytest.fixture(scope="module")
def prepared() -> dict[str, Any]:
    return ready("cluster.yaml")


@pytest.fixture(scope="module")
def onprem() -> dict[str, Any]:
    return ready("cluster-onprem.yaml")


@pytest.mark.parametrize("name", FILES)
def test_it_obeys_rays_schema(name: str) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((ROOT / name).read_text()), schema)


def test_the_head_runs_no_trial_and_workers_come_from_none(prepared: dict[str, Any]) -> None:
    head, worker = (prepared["available_node_types"][name] for name in ("head", "spot-gpu"))
    assert prepared["head_node_type"] == "head"
    assert head["resources"]["CPU"] == head["resources"]["GPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert worker["min_workers"] == 0 < worker["max_workers"] <= prepared["max_workers"]
    assert worker["resources"]["GPU"] > 0
    assert 0 < prepared["idle_timeout_minutes"] <= 30


def test_every_machine_on_premises_joins(onprem: dict[str, Any]) -> None:
    kind = onprem["available_node_types"][onprem["head_node_type"]]
    assert kind["min_workers"] == kind["max_workers"] == len(onprem["provider"]["worker_ips"]) > 0
    assert onprem["provider"]["head_ip"] not in onprem["provider"]["worker_ips"]
    head, *_ = started(onprem)
    assert "--num-cpus=0 --num-gpus=0" in head


def test_nothing_but_ssh_is_open(prepared: dict[str, Any]) -> None:
    rules = prepared["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(22, 22)]


def started(config: dict[str, Any]) -> list[str]:
    """The commands that start Ray: the head's and the workers'."""
    return [c for kind in ("head", "worker") for c in config[f"{kind}_start_ray_commands"] if "ray start" in c]


def test_dashboard_and_clients_stay_on_the_head(either: dict[str, Any]) -> None:
    head, *_ = started(either)
    assert "--dashboard-host=127.0.0.1" in head
    assert "ray-client-server" not in head


def test_every_ray_asks_for_the_token_that_is_mounted(either: dict[str, Any]) -> None:
    assert len(started(either)) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in started(either))
    assert either["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in command and ".bashrc" in command for command in either["setup_commands"])


def test_the_project_comes_from_this_checkout_with_the_tested_set(either: dict[str, Any]) -> None:
    assert either["file_mounts"]["~/adversarial-sweep"] == "."
    install = " ".join(either["setup_commands"])
    assert "-c ~/adversarial-sweep/constraints.txt -e ~/adversarial-sweep" in install
