"""Disks, caches and databases that fail in the middle of a sweep; each test is a row of `make test-faults`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.sweeps import NOISE, Sweep
from tests.rows import OpenRow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FAULTS = ["full", "read-only"]
EXECUTORS = ["local", "ray"]


class Disk:
    """A file system of 3 MB."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._shut: list[str] = []
        place.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True)
        if made.returncode:
            pytest.skip("mounting a small file system needs root")

    def break_(self, fault: str, folder: Path) -> None:
        """Fill it, or let nothing be written below a folder of it; what is open there stays open."""
        if fault == "full":
            subprocess.run(["dd", "if=/dev/zero", f"of={self.place / 'filler'}", "bs=4096"], capture_output=True)
        else:
            subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
            self._shut.append(str(folder))
            subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)

    def mend(self) -> None:
        while self._shut:
            subprocess.run(["umount", "-l", self._shut.pop()], check=True)
        (self.place / "filler").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(tmp_path / "disk")
    yield found
    found.mend()
    subprocess.run(["umount", "-l", str(found.place)], check=True)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_storage_takes_nothing_any_more(sweep: Sweep, disk: Disk, row: OpenRow, fault: str, executor: str) -> None:
    row(f"the storage is {fault} in the middle of a sweep ({executor})", 1, "exit 1, one line, goes on when mended")
    sweep.storage = disk.place
    process = sweep.start("--executor", executor, trials=4, epochs=25)
    sweep.wait_for(process, lambda: len(sweep.records()) >= 1 and bool(sweep.checkpoints()))
    disk.break_(fault, sweep.out)
    ended = sweep.end(process)
    assert ended.code == 1 and not NOISE.search(ended.errors + ended.output), (ended.output, ended.errors)
    (line,) = [line for line in ended.output.splitlines() if line.startswith("stopped:")]
    assert "No space left" in line or "Read-only" in line
    kept = sweep.checkpoints()
    assert kept and "failed" not in sweep.statuses()
    disk.mend()
    again = sweep.run("--executor", executor, trials=4, epochs=25)
    assert again.code == 0 and sweep.statuses() == ["done"] * 4 and not sweep.checkpoints(), again


@pytest.mark.parametrize("fault", FAULTS)
def test_a_nodes_cache_cannot_be_written(sweep: Sweep, disk: Disk, row: OpenRow, fault: str) -> None:
    row(f"the node's cache folder is {fault}", 1, "done without it, which is said once")
    sweep.environment["MEMORY_SWEEP_CACHE"] = str(disk.place)
    disk.break_(fault, disk.place)
    ended = sweep.run("--max-concurrent", "1", trials=2, epochs=2)
    assert ended.code == 0 and sweep.statuses() == ["done"] * 2, ended
    assert not NOISE.search(ended.errors + ended.output), (ended.output, ended.errors)
    assert ended.output.count("hidden states are computed and not kept") == 1, ended.output


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_temporary_folder_is_full(sweep: Sweep, disk: Disk, row: OpenRow, executor: str) -> None:
    row(f"the temporary folder of the machine is full ({executor})", 1, "done, or one line and exit 2 before any trial")
    sweep.environment["TMPDIR"] = str(disk.place)
    disk.break_("full", disk.place)
    ended = sweep.run("--executor", executor, trials=1, epochs=2)
    assert not NOISE.search(ended.errors + ended.output), (ended.output, ended.errors)
    if ended.code == 0:
        assert sweep.statuses() == ["done"], ended
    else:
        (line,) = ended.errors.strip().splitlines()
        assert ended.code == 2 and str(disk.place) in line, ended


@pytest.mark.parametrize("fault", FAULTS)
def test_mlflows_database_cannot_be_written(sweep: Sweep, disk: Disk, row: OpenRow, fault: str) -> None:
    row(f"the disk of MLflow's database is {fault} in the middle", 1, "all trials done; one line says how to publish")
    address = f"sqlite:///{disk.place / 'mlflow.db'}"
    process = sweep.start("--executor", "local", "--tracking-uri", address, trials=6, epochs=20)
    sweep.wait_for(process, lambda: len(sweep.records()) >= 1)
    disk.break_(fault, disk.place)
    ended = sweep.end(process)
    assert ended.code == 0 and sweep.statuses() == ["done"] * 6, ended
    assert not NOISE.search(ended.errors + ended.output), (ended.output, ended.errors)
    assert f"sweep.publish {sweep.out} --tracking-uri {address}" in ended.output, ended.output


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_sweeps_folder_is_removed_while_it_runs(sweep: Sweep, row: OpenRow, executor: str) -> None:
    row(f"the sweep's folder is removed while it runs ({executor})", 1, "no traceback; the same command makes it whole")
    process = sweep.start("--executor", executor, trials=4, epochs=25)
    sweep.wait_for(process, lambda: len(sweep.records()) >= 1)
    shutil.rmtree(sweep.out, ignore_errors=True)
    ended = sweep.end(process)
    assert ended.code in (0, 1) and not NOISE.search(ended.errors + ended.output), ended
    assert sweep.run("--executor", executor, trials=4, epochs=25).code == 0
    assert sweep.statuses() == ["done"] * 4
