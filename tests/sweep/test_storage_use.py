"""What commands do to a storage: each record is read once, and what they leave is open to the group that shares it."""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sweep.plan
import sweep.publish
import sweep.report.__main__
import sweep.run
from sweep.records.sweep_storage import RECORD, SweepStorage
from sweep.running import ray_tune
from sweep.running.exchange import PackExchange
from sweep.running.ray_nodes import Nodes
from sweep.running.ray_tune import RayTune
from sweep.tracking.address import Tracking
from trainables.node.storage import Storage

SPACE = """
from sweep.space import ALL, LARGEST, OTHERS, Best, Space, Stage

best = Best(field="layer", stage="select", per=("model",))
space = Space(
    baseline=False,
    name="staged",
    title="staged",
    axes={"model": ["sample-llama", "sample-neox"], "layer": [1, 3], "alpha": [0, 1.0], "num_documents": [2, 4]},
    fixed={"allocation": "partitioned"},
    stages=(
        Stage(name="select", axes={"model": ALL, "layer": ALL, "num_documents": LARGEST}, fixed={"alpha": 0}),
        Stage(name="most", axes={"model": ALL, "alpha": ALL, "num_documents": LARGEST}, take=best),
        Stage(name="fewer", axes={"model": ALL, "alpha": ALL, "num_documents": OTHERS}, take=best),
    ),
)
"""
TRIALS = 10


@pytest.fixture
def command(
    storage: SweepStorage, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run a command on a storage; trials end at once in this process, without Ray."""
    (tmp_path / "space.py").write_text(SPACE)

    @contextmanager
    def no_ray(address: str | None) -> Iterator[Nodes]:
        yield Nodes((2.0,), (0.0,), False)

    def at_once(executor: RayTune, exchange: PackExchange) -> None:
        while pack := exchange.next_pack():
            told = {"versions": {}, "host": "", "pid": 1, "node": "", "device": ""}
            results = [
                {"id": task["id"], "status": "done", "metrics": {"memory/nll": float(task["spec"]["layer"])}}
                for task in pack.job["trials"]
            ]
            exchange.report(pack.id, {"epoch": 1, "progress": {}, "results": results, **told})
            exchange.close(pack.id)

    monkeypatch.setattr(ray_tune, "ray_session", no_ray)
    monkeypatch.setattr(ray_tune, "pack_memory_bytes", lambda gpus, slots, only_here: 1e9)
    monkeypatch.setattr(RayTune, "run", at_once)
    monkeypatch.setattr("trainables.lm.sample.models.ensure_sample_models", lambda names: None)

    def invoke(app: Any, *arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each record has been read."""
    counts: Counter[str] = Counter()
    real = Storage.read_version

    def counting(self: Storage, path: str) -> tuple[bytes, str]:
        if path.endswith(RECORD):
            counts[path] += 1
        return real(self, path)

    monkeypatch.setattr(Storage, "read_version", counting)
    return counts


def test_each_command_reads_each_record_once(
    storage: SweepStorage, tmp_path: Path, command, reads: Counter[str]
) -> None:
    run = (sweep.run.app, str(tmp_path / "space.py"), "--storage", storage.uri)
    command(*run)
    records = Path(storage.uri, "staged").rglob(RECORD)
    found = {str(path.relative_to(storage.uri)) for path in records}
    trainings = sorted(path for path in found if "/probes/" not in path)
    assert len(trainings) == TRIALS and len(found) == 2 * TRIALS  # one of the training, one of what it was asked
    assert not reads, "what a run has made itself it need not read"

    gone = trainings[:3]
    for path in gone:
        storage.delete(path)
    assert "3 trials to run" in command(*run)
    assert reads == dict.fromkeys(found - set(gone), 1)

    others = {
        "everything is done": (*run,),
        "plan": (sweep.plan.app, *run[1:]),
        "publish": (sweep.publish.app, storage.uri),
        "report": (sweep.report.__main__.app, f"{storage.uri}/staged", "--resamples", "100"),
    }
    for what, call in others.items():
        reads.clear()
        command(*call)
        assert reads == dict.fromkeys(found, 1), what


@pytest.mark.thorough(
    beside="tests/trainables/node/test_storage.py::test_files_and_folders_follow_umask_and_the_groups_folder"
)
def test_what_commands_leave_is_open_to_the_group_that_shares_the_folder(
    storage: SweepStorage, tmp_path: Path, command
) -> None:
    home = Path(storage.uri)
    shutil.rmtree(home)  # the database of the fixture has been made with another umask
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, -1, 12345)  # only root may give a folder to any group
    os.chmod(home, 0o2775)
    group, before = home.stat().st_gid, os.umask(0o002)
    try:
        command(sweep.run.app, str(tmp_path / "space.py"), "--storage", storage.uri)
        command(sweep.publish.app, storage.uri)
        command(sweep.report.__main__.app, f"{storage.uri}/staged", "--resamples", "100")
    finally:
        os.umask(before)
    left = [path for path in home.rglob("*")]
    assert {"record.json", "results.parquet", "mlflow.db", "report.html", ".lock"} <= {path.name for path in left}
    closed = [path for path in left if path.stat().st_gid != group or not path.stat().st_mode & stat.S_IWGRP]
    assert closed == []


def test_a_run_tables_and_publishes_what_it_has_made_itself(storage: SweepStorage, tmp_path: Path, command) -> None:
    run = (sweep.run.app, str(tmp_path / "space.py"), "--storage", storage.uri)
    command(*run)
    table = storage.read("staged/results.parquet")
    assert f"wrote {storage.uri}/staged/results.parquet" in (again := command(sweep.publish.app, storage.uri))
    assert f"{TRIALS + 1} unchanged" in again  # the run itself had published all of its records
    assert storage.read("staged/results.parquet") == table
