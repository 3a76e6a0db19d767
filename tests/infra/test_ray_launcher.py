"""The files for `ray up`, through the checks that `ray up` makes before it touches anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

FILES = ("aws", "on_premise")


def _config(infra: Path, name: str) -> dict[str, Any]:
    return yaml.safe_load((infra / "ray" / f"{name}.yaml").read_text())


def _prepared(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(infra: Path, name: str) -> None:
    assert _prepared(_config(infra, name))["cluster_name"] == "memory-sweep"


def test_ray_refuses_an_unknown_key(infra: Path) -> None:
    with pytest.raises(Exception, match="worker_start_commands"):
        _prepared(_config(infra, "aws") | {"worker_start_commands": []})


@pytest.mark.parametrize("name", FILES)
def test_all_workers_are_there_from_the_start(infra: Path, name: str) -> None:
    config = _prepared(_config(infra, name))
    head = config["head_node_type"]
    for key, kind in config["available_node_types"].items():
        if key != head or name == "on_premise":
            assert kind["min_workers"] == kind["max_workers"] == config["max_workers"] > 0


def test_the_local_provider_starts_as_many_workers_as_it_has(infra: Path) -> None:
    config = _config(infra, "on_premise")
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])


@pytest.mark.parametrize("name", FILES)
def test_every_ray_process_starts_with_the_common_settings(infra: Path, name: str) -> None:
    config = _config(infra, name)
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert len(commands) == 4
    assert all(command.startswith("source ~/memory-sweep/infra/ray/env.sh;") for command in commands)
    assert config["file_mounts"] == {"~/memory-sweep": ".", "~/.ray/auth_token": "~/.ray/auth_token"}
    settings = (infra / "ray" / "env.sh").read_text()
    assert "RAY_AUTH_MODE=token" in settings and "MEMORY_SWEEP_CACHE=" in settings
