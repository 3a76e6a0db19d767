"""Pack workers that fail when a plan says so: for both executors, in this process and in Ray's.

The plan is a file in the folder that the environment names: a list of rules, each applied so many times over all
processes. A process finds its rules anew at every step.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.pack.process_cache import ProcessCache
from trainables.pack.trainable import PackTrainable
from trainables.pack.worker import PackWork

VARIABLE = "MEMORY_SWEEP_TEST_FAULTS"
POISONED: list[str] = []
"""In a process whose device is "broken": what every later step of it raises."""


def plan(folder: Path, *rules: Mapping[str, Any]) -> None:
    """Write a plan.

    Of a rule, `kind` is what happens (see `_apply`), `trial` in whose pack (any), `after` which epoch, `members` the
    least trials of the pack, `where` a variable that must be set in the process, `times` how often.
    """
    for used in folder.glob("used-*"):
        used.unlink()
    (folder / "plan.json").write_text(json.dumps([{"times": 1, "after": 0, **rule} for rule in rules]))


def applied(folder: Path) -> list[int]:
    """Return the numbers of the rules that were applied, once for each time."""
    return sorted(int(used.name.split("-")[1]) for used in folder.glob("used-*"))


class FaultyWork(PackWork):
    """Does its work until a rule applies."""

    def _advance(self, report: dict[str, Any]) -> None:
        if POISONED:
            raise RuntimeError(POISONED[0])
        epoch = self._runs[0].epoch if self._runs else 0
        tasks = self._runs[0].tasks if self._runs else self._queue[0]
        rule = _rule({task.id for task in tasks}, epoch, len(tasks))
        if rule:
            _apply(rule)
        super()._advance(report)


class FaultyTrainable(PackTrainable):
    """The same in Ray's processes."""

    def _make_work(self, work: dict[str, Any], cache: ProcessCache) -> PackWork:
        return FaultyWork(work, cache)


def _rule(trials: set[str], epoch: int, members: int) -> Mapping[str, Any] | None:
    folder = Path(os.environ[VARIABLE])
    if not (folder / "plan.json").exists():
        return None
    for number, rule in enumerate(json.loads((folder / "plan.json").read_text())):
        if rule.get("trial", "*") not in (*trials, "*") or epoch < rule["after"] or members < rule.get("members", 1):
            continue
        if rule.get("where") and not os.environ.get(rule["where"]):
            continue
        for time_ in range(rule["times"]):
            try:
                (folder / f"used-{number}-{time_}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return dict(rule)
    return None


def _apply(rule: Mapping[str, Any]) -> None:
    kind = rule["kind"]
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    if kind == "sleep":
        time.sleep(600)
    if kind == "poison":
        POISONED.append("CUDA error: an illegal memory access was encountered")
        raise RuntimeError(POISONED[0])
    raise {
        "bug": ZeroDivisionError("division by zero"),
        "device": RuntimeError("CUDA error: an illegal memory access was encountered"),
        "memory": RuntimeError("CUDA error: out of memory"),
        "io": OSError(errno.ENOSPC, "No space left on device"),
        "storage": OSError(errno.EROFS, "Read-only file system"),
        "connection": ConnectionError("SLOW_DOWN: reduce your request rate"),
    }[kind]
