from __future__ import annotations

import importlib.util
import socket
import time
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def wait(infra: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("wait_for_nodes", infra / "wait_for_nodes.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_waits_until_there_are_enough(wait: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    counts = iter([1, 1, 2, 4])
    assert wait.wait_for_count(3, lambda: next(counts), time.monotonic() + 10, pause_s=0)
    assert capsys.readouterr().out.splitlines() == ["1 of 3 nodes", "2 of 3 nodes", "4 of 3 nodes"]


def test_it_gives_up_in_time(wait: ModuleType) -> None:
    assert not wait.wait_for_count(3, lambda: 2, time.monotonic() - 1)


def test_a_head_that_never_comes_is_named(wait: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        assert wait.main(address, 2, wait_s=0) == 1
    assert f"{address}: nothing answers" in capsys.readouterr().err


def test_a_head_that_is_there_is_seen(wait: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert wait.wait_for_port(f"127.0.0.1:{server.getsockname()[1]}", time.monotonic())
