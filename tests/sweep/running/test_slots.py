"""How many packs run at once, and how large they may be, as nodes come and go. Without a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sweep.running import ray_nodes
from sweep.running.ray_environment import set_environment
from sweep.running.ray_nodes import Nodes, Slots, pack_memory_bytes
from sweep.running.ray_packs import PackSearcher
from trainables.errors import ConfigError


class Packs:
    """Stands in for the exchange: has packs without end."""

    over = False

    def __init__(self) -> None:
        self.given = 0

    def next_pack(self) -> Any:
        self.given += 1
        return type("Pack", (), {"id": f"p{self.given}", "job": {}, "avoid": ()})()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    now: dict[str, Any] = {"cpus": (1.0, 1.0), "time": 0.0}
    monkeypatch.setattr(
        ray_nodes, "nodes_now", lambda attached: Nodes(now["cpus"], (0.0,) * len(now["cpus"]), attached)
    )
    monkeypatch.setattr(ray_nodes.time, "monotonic", lambda: now["time"])
    return now


def test_a_node_that_joins_late_gets_packs_and_one_that_is_gone_none(nodes: dict[str, Any]) -> None:
    packs = Packs()
    searcher = PackSearcher(packs, {}, Slots(1, 0, None))  # type: ignore[arg-type]
    assert [searcher.suggest(trial) is not None for trial in "abc"] == [True, True, False]
    nodes.update(cpus=(1.0, 1.0, 2.0), time=10.0)
    assert [searcher.suggest(trial) is not None for trial in "cdef"] == [True, True, False, False]
    nodes.update(cpus=(1.0,), time=20.0)
    for trial in "abc":
        searcher.on_trial_complete(trial)
    assert searcher.suggest("e") is None
    searcher.on_trial_complete("d", error=True)
    assert searcher.suggest("e") is not None and packs.given == 5


def test_packs_at_once_stay_below_the_users_number(nodes: dict[str, Any]) -> None:
    slots = Slots(0.5, 0, 3)
    assert slots() == 3
    nodes.update(cpus=(), time=10.0)
    assert slots() == 0


def test_a_pack_fits_the_node_with_the_least_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Any] = {"a": 80e9, "b": 24e9, "c": "it did not answer"}
    monkeypatch.setattr(ray_nodes, "on_every_node", lambda *args, **named: answers)
    assert pack_memory_bytes(0.5, 4) == 12e9 and pack_memory_bytes(2, 1) == 24e9
    assert pack_memory_bytes(0, 4) == 24e9 / 2 / 2
    monkeypatch.setattr(ray_nodes, "machine_memory_bytes", lambda: 16e9)
    assert pack_memory_bytes(0, 4, only_here=True) == 16e9 / 2 / 4 and pack_memory_bytes(1, 1, only_here=True) == 24e9
    answers.clear()
    with pytest.raises(ConfigError, match="--pack-size"):
        pack_memory_bytes(1, 1)


@pytest.mark.parametrize(
    ("address", "has", "mode", "then"),
    [
        ("h:1", True, None, "token"),
        ("h:1", False, None, None),
        ("h:1", True, "disabled", "disabled"),
        (None, True, None, None),
    ],
)
def test_authentication_is_never_switched_off(
    address: str | None, has: bool, mode: str | None, then: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_AIR_NEW_OUTPUT", "RAY_DEDUP_LOGS"):
        monkeypatch.setenv(name, "x")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    if has:
        (tmp_path / "token").write_text("t")
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    set_environment(address)
    assert os.environ.get("RAY_AUTH_MODE") == then
