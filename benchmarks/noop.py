"""Trials that do nothing: by our driver through Ray Tune or in its process, and plainly. Each in a process of its own.

    python -m benchmarks.noop ours|local|plain TRIALS FEED STORAGE

FEED is `live`, MLflow fed while the trials run, or `off`. The last line printed is JSON.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune

from benchmarks.made_up import EPOCHS, own_tracking
from sweep.planning.expand import build_plan
from sweep.records.sweep_storage import SweepStorage
from sweep.running.display import Display
from sweep.running.exchange import HandedPack, PackExchange
from sweep.running.executor import Capacity, Executor, WorkerSettings
from sweep.running.in_process import InProcess
from sweep.running.ledger import Ledger
from sweep.running.pack_queue import Packing
from sweep.running.progress import SweepProgress
from sweep.running.ray_cluster import ray_session
from sweep.running.ray_tune import PackResources, RayTune
from sweep.space import ALL, Space, Stage
from sweep.tracking.address import Tracking
from sweep.tracking.live_feed import LiveFeed

NOWHERE = "http://127.0.0.1:9"


class NothingTrainable(tune.Trainable):  # type: ignore[misc]
    """Reports at once what `PackTrainable` reports at its end."""

    def setup(self, config: dict[str, Any], secrets: Any = None) -> None:
        """Take the first pack."""
        self._trials = json.loads(config["work"])["trials"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next pack."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Return the pack's only report."""
        return {**whole_report(self._trials), "node": ray.get_runtime_context().get_node_id()}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep nothing."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Read nothing."""


class NothingInProcess(InProcess):
    """The executor `local` without anything to load, whose packs are done at once."""

    @contextmanager
    def session(self, storage: SweepStorage) -> Iterator[Capacity]:
        """Load nothing."""
        yield Capacity(1, False, lambda: 1e9)

    def _run_and_tell(self, pack: HandedPack, exchange: PackExchange) -> None:
        exchange.report(pack.id, {**whole_report(pack.job["trials"]), "node": ""})
        exchange.show_progress()
        exchange.close(pack.id)


def whole_report(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a worker reports at the end of a pack."""
    results = [{"id": trial["id"], "status": "done", **outcome()} for trial in trials]
    told = {"versions": {}, "host": socket.gethostname(), "pid": os.getpid(), "device": "cpu"}
    return {"epoch": EPOCHS, "progress": {}, "results": results, "done": True, **told}


def outcome() -> dict[str, Any]:
    """Return metrics and curves of the usual size."""
    curve = [[epoch, 1.0 / epoch] for epoch in range(1, EPOCHS + 1)]
    metrics = {"memory/nll": 1.0, "fever/accuracy": 0.5}
    return {"metrics": metrics, "curves": {f"train/{name}": curve for name in ("nll", "loss", "leakage")}}


def space_of(trials: int) -> Space:
    """Return a space of one stage with so many trials."""
    return Space(
        baseline=False,
        name="noop", title="Trials that do nothing", axes={"mem_seed": list(range(trials))},
        fixed={"data": "sample", "depth": 0.5, "alpha": 0.2, "allocation": "simset1"},
        stages=(Stage(name="grid", axes={"mem_seed": ALL}),),
    )  # fmt: skip


def run_ours(trials: int, live: bool, folder: str, in_process: bool = False) -> dict[str, float]:
    """Run them with all that a sweep has in its driver: plan, ledger, searcher, records, feed, display."""
    storage = SweepStorage(folder)
    index = storage.index()
    plan = build_plan(space_of(trials), (), {})
    settings = WorkerSettings("cpu")
    through_ray = RayTune(settings, PackResources(1, 0), trainable=NothingTrainable)
    executor: Executor = NothingInProcess(settings) if in_process else through_ray
    with storage.lock("noop"), executor.session(storage) as capacity:
        ledger = Ledger(plan, storage, "noop", index, {}, Packing(lambda point: 1, capacity.slots), False, print)
        feed = LiveFeed(storage, "noop", own_tracking(storage) if live else Tracking(NOWHERE, "noop"))
        start, cpu = time.perf_counter(), time.process_time()
        executor.run(PackExchange(ledger, feed, Display(SweepProgress("noop", plan)), {}))
        found = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
        found["fed"] = feed.close(0.1).complete
    if len(storage.index()) != trials:
        raise RuntimeError(f"{len(storage.index())} records of {trials} trials")
    return found


def nothing(config: dict[str, Any]) -> None:
    """Report the same as a plain Tune function."""
    tune.report({"epoch": EPOCHS, **outcome()["metrics"]})


def run_plain(trials: int, storage: str) -> dict[str, float]:
    """Run them as Ray Tune's documentation does: a function, a grid, a process for every trial."""
    with ray_session(None):
        tuner = tune.Tuner(
            tune.with_resources(nothing, {"cpu": 1}),
            param_space={"mem_seed": tune.grid_search(list(range(trials)))},
            run_config=tune.RunConfig(name="plain", storage_path=storage, verbose=0),
        )
        start, cpu = time.perf_counter(), time.process_time()
        results = tuner.fit()
        found = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    if results.num_errors or len(results) != trials:
        raise RuntimeError(f"{len(results) - results.num_errors} results of {trials} trials")
    return found


def peak_bytes() -> int:
    """Return the most memory that this program has held; `getrusage` would count what its parent held, too."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (peak,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(peak.split()[1])


def main() -> None:
    """Run what the command line says."""
    who, trials, feed, storage = sys.argv[1:]
    if who == "plain":
        found = run_plain(int(trials), storage)
    else:
        found = run_ours(int(trials), feed == "live", storage, in_process=who == "local")
    print(json.dumps({**found, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
