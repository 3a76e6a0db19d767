"""What is read from Ray's words about a process that is gone; no Ray runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from sweep.running import ray_deaths
from sweep.running.ray_deaths import Deaths

KILLED = (
    "ActorDiedError: The actor died unexpectedly before finishing this task.\n\tclass_name: with_parameters\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. There are some potential root causes. (1) The "
    "process is killed by SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called. (3) The "
    "worker is crashed unexpectedly due to SIGSEGV or other unexpected errors."
)
MONITOR = (
    "ActorDiedError: The actor is dead because its worker process has died. Worker exit type: NODE_OUT_OF_MEMORY "
    "Worker exit detail: Task was killed due to the node running low on memory."
)
NODE = "ActorDiedError: The actor died because its node has died. Node Id: 1c: the actor's node was terminated"
SETUP = (
    "ActorDiedError: The actor died because of an error raised in its creation task, ray::PackTrainable.__init__()\n"
    "RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable"
)


@pytest.mark.parametrize(
    ("text", "kernel", "kind"),
    [
        (KILLED, False, "process"),
        (KILLED, True, "memory"),
        (MONITOR, False, "memory"),
        (NODE, False, "preemption"),
        (SETUP, False, "device"),
        ("TuneError: something in Tune itself", False, "bug"),
    ],
)
def test_a_death_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, kernel: bool, kind: str
) -> None:
    monkeypatch.setattr(Deaths, "_kernel_killed", lambda self, node: kernel)
    (tmp_path / "error.txt").write_text(text)
    trial = SimpleNamespace(pickled_error_file=None, error_file=str(tmp_path / "error.txt"))
    failure = Deaths().explain("pack", trial)
    assert failure.kind == kind and "\n" not in failure.message
    assert ("memory" in failure.message) == (kind == "memory"), failure.message


def test_the_kernels_count_is_read_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    counts = iter([3, 3, 4])
    monkeypatch.setattr(ray_deaths, "oom_kills", lambda: next(counts))
    monkeypatch.setattr(ray_deaths, "_host", lambda node: "far")
    monkeypatch.setattr(ray_deaths, "_ask", lambda node: 8)
    deaths = Deaths()
    assert not deaths._kernel_killed("here") and deaths._kernel_killed("here")
    deaths.hear("pack", {"node": "there", "oom_kills": 7})
    assert deaths._kernel_killed("there") and not deaths._kernel_killed("there")
