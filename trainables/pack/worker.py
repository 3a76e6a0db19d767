"""A worker's job: one pack after the other, failures sorted into their classes. Knows nothing of Ray."""

from __future__ import annotations

import os
import platform
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from trainables.adapters.registry import ADAPTERS
from trainables.errors import failure_kind
from trainables.node.addresses import shown
from trainables.node.storage import delete, exists
from trainables.pack.checkpoint import BadCheckpoint, Checkpoint, read_checkpoint
from trainables.pack.process_cache import ProcessCache
from trainables.pack.result import TrialResult
from trainables.pack.run import PackRun, UnfitCheckpoint
from trainables.trial.task import TrialTask


def choose_device(asked: str) -> torch.device:
    """Return the device: `auto` is CUDA where there is one."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)


def prepare_process(device: torch.device, threads: int) -> None:
    """Set this process up: threads on a CPU, deterministic kernels on a GPU."""
    torch.set_num_threads(max(1, threads))
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def library_versions() -> dict[str, str]:
    """Return the versions that can change a result."""
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def start_runs(
    tasks: Sequence[TrialTask],
    cache: ProcessCache,
    trunk_layers: Sequence[int],
    say: Callable[[str], None] = lambda line: None,
) -> list[PackRun]:
    """Return runs for the tasks of a pack: one, unless their checkpoints stand at different epochs.

    Where the adapter does not pack, each task is a run of its own. A checkpoint that cannot be used is removed and
    `say` told why; its trial starts over.
    """
    found: dict[str, Checkpoint | None] = {}
    for task in tasks:
        try:
            found[task.id] = read_checkpoint(task.checkpoint, task.id)
        except BadCheckpoint as error:
            _start_over(task, error, say)
            found[task.id] = None
    while True:
        try:
            return _runs(tasks, found, cache, trunk_layers)
        except UnfitCheckpoint as error:
            _start_over(next(task for task in tasks if task.id == error.trial), error, say)
            found[error.trial] = None


def _start_over(task: TrialTask, error: BadCheckpoint, say: Callable[[str], None]) -> None:
    say(f"{error}; the checkpoint is removed and trial {task.id} starts over")
    delete(task.checkpoint)


def _runs(
    tasks: Sequence[TrialTask],
    found: Mapping[str, Checkpoint | None],
    cache: ProcessCache,
    trunk_layers: Sequence[int],
) -> list[PackRun]:
    packs = ADAPTERS[tasks[0].spec.method].packs
    groups: dict[Any, list[TrialTask]] = {}
    for task in tasks:
        state = found[task.id]
        groups.setdefault((0 if state is None else state.epoch) if packs else task.id, []).append(task)
    ordered = sorted(groups.items()) if packs else groups.items()
    return [PackRun(group, cache, trunk_layers, [found[task.id] for task in group]) for _, group in ordered]


class PackWork:
    """Runs the trials of one pack, an epoch a step.

    A pack that does not fit the memory is split in two; a single trial that does not fit fails.

    Args:
        config: `trials` (list of `TrialTask.to_dict`), `trunk_layers`, and `stop_file`: when this file is there, the
            run under way writes its checkpoints after the epoch and ends without results.
        cache: what the process keeps from one pack to the next.
    """

    def __init__(self, config: Mapping[str, Any], cache: ProcessCache) -> None:
        """Queue the pack; nothing is loaded before the first step."""
        self._cache = cache
        self._trunk_layers = [int(layer) for layer in config["trunk_layers"]]
        self._stop_file = str(config.get("stop_file", ""))
        self._queue = [[TrialTask.from_dict(plain) for plain in config["trials"]]]
        self._runs: list[PackRun] = []

    def step(self) -> dict[str, Any]:
        """Do one epoch, or start or finish a run.

        Returns:
            `epoch`, `progress` (trial id -> metrics of the epoch), `results` (finished trials), `notes` (lines for the
            user) and `done`.
        """
        tasks = self._runs[0].tasks if self._runs else self._queue[0]
        report: dict[str, Any] = {"epoch": 0, "progress": {}, "results": [], "notes": []}
        try:
            if not self._runs:
                self._runs = start_runs(self._queue[0], self._cache, self._trunk_layers, report["notes"].append)
                self._queue.pop(0)
            run = self._runs[0]
            tasks = run.tasks
            if not run.done:
                report["progress"] = run.step()
            report["epoch"] = run.epoch
            if not run.done and self._stop_file and exists(self._stop_file):
                run.checkpoint()
                self._runs, self._queue = [], []
            elif run.done:
                report["results"] = [result.to_dict() for result in run.finish()]
                self._runs.pop(0)
        except Exception as error:
            self._set_aside(tasks)
            report["results"] = self._failed(tasks, error)
        report["done"] = not self._runs and not self._queue
        return report

    def checkpoint(self) -> None:
        """Write the checkpoints of the run under way."""
        if self._runs:
            self._runs[0].checkpoint()

    def _set_aside(self, tasks: list[TrialTask]) -> None:
        """Drop the run of these tasks, or take them off the queue when it had not started."""
        if self._runs and self._runs[0].tasks is tasks:
            self._runs.pop(0)
        elif self._queue and self._queue[0] is tasks:
            self._queue.pop(0)

    def _failed(self, tasks: list[TrialTask], error: Exception) -> list[dict[str, Any]]:
        """Return failed results, or queue two halves of a pack that ran out of memory."""
        kind = failure_kind(error)
        if kind == "memory" and len(tasks) > 1:
            half = len(tasks) // 2
            self._queue[:0] = [tasks[:half], tasks[half:]]
            return []
        told = {
            "class": kind,
            "message": shown(f"{type(error).__name__}: {error}" if kind == "bug" else str(error)),
            "traceback": shown("".join(traceback.format_exception(error))),
        }
        return [
            TrialResult(id=task.id, status="failed", host=socket.gethostname(), error=told).to_dict() for task in tasks
        ]
