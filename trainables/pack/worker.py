"""A worker's job: one pack after the other, failures sorted into their classes. Knows nothing of Ray.

What is a trial's own failure is its result. Anything else ends the pack: the process may be broken, so whoever runs it
replaces it and has the trials tried again, from their checkpoints.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType
from typing import Any

import torch

from trainables.adapters.registry import ADAPTERS
from trainables.adapters.split import NotTogether
from trainables.errors import OWN_KINDS, Failure
from trainables.lm.placement import free_memory
from trainables.node.addresses import shown
from trainables.node.storage import delete, join, read_bytes
from trainables.pack.ask import AskRun
from trainables.pack.checkpoint import BadCheckpoint, Checkpoint, read_checkpoint, write_checkpoint
from trainables.pack.orders import OrdersReader
from trainables.pack.process_cache import ProcessCache
from trainables.pack.result import TrialResult
from trainables.pack.run import PackRun, UnfitCheckpoint
from trainables.trial.task import TrialTask

NO_STATES: Mapping[str, Checkpoint] = MappingProxyType({})


def choose_device(asked: str) -> torch.device:
    """Return the device: `auto` is CUDA where there is one."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)


def prepare_process(device: torch.device, threads: int, gpu_share: float = 1.0) -> None:
    """Set this process up: threads on a CPU, deterministic kernels on a GPU, and its share of the GPU's memory.

    Args:
        device: where it computes.
        threads: of torch.
        gpu_share: what part of the GPU it may take; the others on the same GPU count on the rest.
    """
    torch.set_num_threads(max(1, threads))
    if device.type == "cuda":
        if gpu_share < 1:
            torch.cuda.set_per_process_memory_fraction(gpu_share)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # It would fill every new tensor, a kernel each. That is for finding reads of what was never written, of which
        # nothing here depends: the values of a tensor that is written first are the same without.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def library_versions() -> dict[str, str]:
    """Return the versions that can change a result."""
    import transformers

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # its own kind of string would have whoever reads it import torch
        "transformers": transformers.__version__,
    }


def told_of(device: str) -> dict[str, Any]:
    """Return what every report says of the process that sends it: its libraries, machine, number and device."""
    return {"versions": library_versions(), "host": socket.gethostname(), "pid": os.getpid(), "device": device}


def start_runs(
    tasks: Sequence[TrialTask],
    cache: ProcessCache,
    trunk_layers: Sequence[int],
    say: Callable[[str], None] = lambda line: None,
    states: Mapping[str, Checkpoint] = NO_STATES,
) -> Sequence[PackRun | AskRun]:
    """Return runs for the tasks of a pack: one, where the adapter can have members at different epochs.

    Where it cannot, those whose checkpoints stand at the same epoch are a run; where it does not pack, each task is.
    So are those at one block, where a model's blocks do not let states in after any of them.
    What is stored is only asked. A checkpoint that cannot be used is removed and `say` told why; its trial starts over.

    Args:
        tasks: of the pack.
        cache: what the process keeps.
        trunk_layers: as a run takes them.
        say: takes a line on what a person should know.
        states: where trials of a run that was under way stand, by id; others go on from their checkpoints.
    """
    if tasks[0].stored:
        return _ask_runs(tasks, cache)
    found: dict[str, Checkpoint | None] = {}
    for task in tasks:
        if task.id in states:
            found[task.id] = states[task.id]
            continue
        try:
            found[task.id] = read_checkpoint(task.checkpoint, task.id)
        except BadCheckpoint as error:
            _start_over(task, error, say)
            found[task.id] = None
    apart = False
    while True:
        try:
            return _runs(tasks, found, cache, trunk_layers, apart)
        except NotTogether:
            apart = True
        except UnfitCheckpoint as error:
            _start_over(next(task for task in tasks if task.id == error.trial), error, say)
            found[error.trial] = None


def _ask_runs(tasks: Sequence[TrialTask], cache: ProcessCache) -> list[AskRun]:
    if not ADAPTERS[tasks[0].spec.method].packs:
        return [AskRun([task], cache) for task in tasks]
    try:
        return [AskRun(sorted(tasks, key=_block), cache)]
    except NotTogether:
        return [AskRun(list(group), cache) for _, group in groupby(sorted(tasks, key=_block), key=_block)]


def _block(task: TrialTask) -> int:
    """Return the memory's block, by which members of a run stand together."""
    return -1 if task.spec.layer is None else task.spec.layer


def _start_over(task: TrialTask, error: BadCheckpoint, say: Callable[[str], None]) -> None:
    say(f"{error}; the checkpoint is removed and trial {task.id} starts over")
    delete(task.checkpoint)


def _runs(
    tasks: Sequence[TrialTask],
    found: Mapping[str, Checkpoint | None],
    cache: ProcessCache,
    trunk_layers: Sequence[int],
    apart: bool,
) -> list[PackRun]:
    """Make the runs; `apart` says that members at different blocks cannot be in one."""
    adapter = ADAPTERS[tasks[0].spec.method]
    groups: dict[Any, list[TrialTask]] = {}
    for task in sorted(tasks, key=_block) if adapter.packs else tasks:
        state = found[task.id]
        epoch = 0 if state is None or adapter.own_texts else state.epoch
        groups.setdefault((epoch, _block(task) if apart else 0) if adapter.packs else task.id, []).append(task)
    ordered = sorted(groups.items()) if adapter.packs else groups.items()
    return [PackRun(group, cache, trunk_layers, [found[task.id] for task in group]) for _, group in ordered]


class PackWork:
    """Runs the trials of one pack, an epoch a step.

    A trial that is over, or that is told to, leaves the others; one that is told to takes a place among them, at its
    own first epoch or from its checkpoint. Whoever it joins goes on as if nothing had happened, whatever becomes of it.

    A pack that does not fit the memory is split in two; a single trial that does not fit fails. After a failure that is
    nobody's own, the work is over and takes no further step.

    Args:
        config: `trials` (list of `TrialTask.to_dict`), `trunk_layers`, `pack` (its id), and two files, each of which
            may be missing. `stop_file`: when it is there, and names this pack or none, the run under way writes its
            checkpoints after the epoch and the work ends; without results, but of trials that the file says are
            stopped. `orders_file`: who has left and who has joined since the work began (`trainables.pack.orders`); it
            is read before each epoch.
        cache: what the process keeps from one pack to the next.
    """

    def __init__(self, config: Mapping[str, Any], cache: ProcessCache) -> None:
        """Queue the pack; nothing is loaded before the first step."""
        self._cache = cache
        self._trunk_layers = [int(layer) for layer in config["trunk_layers"]]
        self._pack, self._stop_file = str(config.get("pack", "")), str(config.get("stop_file", ""))
        self._queue = [[TrialTask.from_dict(plain) for plain in config["trials"]]]
        self._runs: list[PackRun | AskRun] = []
        self._orders = OrdersReader(str(config.get("orders_file", "")))
        self._states: Mapping[str, Checkpoint] | None = None  # of who goes on, while a run is being started
        self._most = sys.maxsize  # members of a run; less once so many did not fit

    def step(self) -> dict[str, Any]:
        """Do one epoch, or start or finish a run.

        Returns:
            `epoch` (of the furthest member), `progress` (trial id -> metrics of the epoch), `epochs` (trial id -> which
            epoch that was), `results` (finished trials), `notes` (lines on what a person should know), `failure`
            (`trainables.errors.Failure` as a dict, or None), `done`, and `curves` (trial id -> name -> points) of the
            epochs before this work of those that went on from a checkpoint, once.
        """
        report: dict[str, Any] = {
            "epoch": 0, "progress": {}, "epochs": {}, "results": [], "notes": [], "failure": None, "curves": {},
        }  # fmt: skip
        failure = None
        try:
            self._advance(report)
        except Exception as error:
            failure = failure_of(error, device_name(self._cache.device))
        if failure is not None:  # the exception is gone by now, and what its traceback held
            try:
                self._sort_out(failure, report)
            except OSError as error:  # the checkpoints of those that go on cannot be written
                self._runs, self._queue = [], []
                report["failure"] = failure_of(error, device_name(self._cache.device)).to_dict()
        if self._cache.trouble:
            report["notes"].append(self._cache.trouble)
        report["done"] = not self._runs and not self._queue
        return report

    def _advance(self, report: dict[str, Any]) -> None:
        """Have members leave and join, start a run if there is none, and do its next epoch and its members' ends."""
        self._regroup(report)
        if not self._runs:
            if not self._queue:
                return  # all have left
            self._start({}, report)
        run = self._runs[0]
        if isinstance(run, PackRun) and not run.done:
            report["progress"], report["epochs"] = run.step(), run.reached
        report["epoch"] = run.epoch
        report["results"] = [result.to_dict() for result in run.finish()]
        if run.done:
            self._runs.pop(0)
            return
        stopped = self._told_to_end()
        if stopped is not None and isinstance(run, PackRun):
            run.checkpoint()
            report["results"] += [result.to_dict() for result in run.so_far(stopped)]
            self._runs, self._queue = [], []

    def _start(self, states: Mapping[str, Checkpoint], report: dict[str, Any]) -> Sequence[PackRun | AskRun]:
        """Make runs of the first tasks in the queue, of which those with a state go on from it."""
        self._states = states
        made = start_runs(self._queue[0], self._cache, self._trunk_layers, report["notes"].append, states)
        self._queue.pop(0)
        self._runs[:0] = made
        self._states = None
        for run in made:
            if isinstance(run, PackRun):
                report["curves"] |= {t: curves for t, curves in run.earlier_curves().items() if t not in states}
        return made

    def _regroup(self, report: dict[str, Any]) -> None:
        """Go on without those that are over or are to leave, and with those that are to join."""
        leaving, joining = self._orders.new()
        self._queue = [left for tasks in self._queue if (left := [t for t in tasks if t.id not in leaving])]
        run = self._runs[0] if self._runs else None
        if not isinstance(run, PackRun):
            self._queue += [[task] for task in joining]
            return
        staying = [k for k, t in enumerate(run.tasks) if k not in run.finished and t.id not in leaving]
        room = 0 if self._queue else max(0, self._most - len(staying))
        self._queue += [[task] for task in joining[room:]]
        joining = joining[:room]
        if len(staying) == len(run.tasks) and not joining:
            return
        states, last = run.states(staying), run.last_checkpoint
        tasks = [*(run.tasks[k] for k in staying), *joining]
        self._runs.pop(0)
        del run  # the new one is to have its memory
        if not tasks:
            return
        self._queue.insert(0, tasks)
        for made in self._start(states, report):
            if isinstance(made, PackRun):
                made.last_checkpoint = last

    def _told_to_end(self) -> frozenset[str] | None:
        """Return the trials that are stopped, of a pack that is to end after its epoch; None while it goes on.

        A file that names no packs is for all of them.
        """
        if not self._stop_file:
            return None
        try:
            text = read_bytes(self._stop_file)
        except FileNotFoundError:
            return None
        try:
            told = json.loads(text)
            packs, stopped = frozenset(told["packs"]), frozenset(told["stopped"])
        except (ValueError, KeyError, TypeError):
            return frozenset()
        return stopped if self._pack in packs else None

    def checkpoint(self) -> None:
        """Write the checkpoints of the run under way."""
        if self._runs:
            self._runs[0].checkpoint()

    def keep(self) -> None:
        """Write the checkpoints of the run under way, but not of trials that are recorded: they were stopped early."""
        if self._runs:
            self._runs[0].checkpoint({task.id for task in self._runs[0].tasks if _has_result(task)})

    def _sort_out(self, failure: Failure, report: dict[str, Any]) -> None:
        """Queue two halves of a pack that ran out of memory, report failed results, or end the work."""
        states, self._states = self._states, None
        if self._runs and states is None:
            tasks = self._runs.pop(0).unfinished
        else:
            tasks = self._queue.pop(0)
        if failure.kind not in OWN_KINDS:
            self._runs, self._queue = [], []
            report["failure"] = failure.to_dict()
            return
        if failure.kind == "memory":
            free_memory(self._cache.device)
            self._most = max(1, len(tasks) // 2)
        going_on = [task for task in tasks if task.id in (states or {})]
        for task in going_on:
            write_checkpoint(task.checkpoint, (states or {})[task.id], task.id)
        if going_on and len(going_on) < len(tasks):  # who was to join may not take the others along
            self._queue[:0] = [going_on, *([task] for task in tasks if task not in going_on)]
            return
        if failure.kind == "memory":
            if len(tasks) > 1:
                half = len(tasks) // 2
                self._queue[:0] = [tasks[:half], tasks[half:]]
                return
            failure = replace(failure, message=f"out of memory with one trial at a time ({failure.message})")
        report["results"] = [
            TrialResult(id=task.id, status="failed", host=failure.host, error=failure.result).to_dict()
            for task in tasks
        ]


def _has_result(task: TrialTask) -> bool:
    """Whether a trial has a record that nothing will replace."""
    try:
        return bool(json.loads(read_bytes(join(task.folder, "record.json")))["status"] != "failed")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def failure_of(error: Exception, device: str) -> Failure:
    """Describe an exception that has just been caught, without the secrets of addresses in it."""
    failure = Failure.of(error, device)
    return replace(failure, message=shown(failure.message), traceback=shown(failure.traceback))


def device_name(device: torch.device) -> str:
    """Return `cpu`, or which of its machine's GPUs this process has."""
    if device.type != "cuda":
        return device.type
    return f"GPU {os.environ.get('CUDA_VISIBLE_DEVICES') or device.index or 0}"
