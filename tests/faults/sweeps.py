"""Sweeps as commands of their own, to be broken from outside or by a plan of faults."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.records.sweep_storage import SweepStorage
from tests.sweep.running.faults import VARIABLE, plan

ROOT = Path(__file__).parents[2]
TRIALS = 8
NOISE = re.compile(r"Traceback|Check failed|\*\*\* SIG|sqlalchemy|core_worker", re.IGNORECASE)
"""What no user should see, whatever breaks."""


def write_space(file: Path, model: Path, data: Path) -> None:
    """Write a space of one stage, its trials alike but for the learning rate."""
    fixed = {
        "model": str(model), "data": str(data), "layer": 1, "alpha": 1.0, "allocation": "partitioned", "memory_dim": 16,
        "epochs": 6, "num_documents": 3, "segment_tokens": 32, "claims_per_page": 1, "checkpoint_every_s": 0,
    }  # fmt: skip
    stage = "Stage(name='only', axes={'lr': ALL})"
    axes = f"{{'lr': {[rate(number) for number in range(TRIALS)]}}}"
    file.write_text(
        "from sweep import Space, Stage\nfrom sweep.space import ALL\n"
        f"space = Space(baseline=False, name='small', title='small', axes={axes}, fixed={fixed!r}, stages=({stage},))\n"
    )


def rate(number: int) -> float:
    """Return the learning rate of one of the trials."""
    return round(0.001 * (number + 1), 3)


@dataclass
class Ended:
    """A run that is over."""

    code: int
    output: str
    errors: str
    seconds: float


@dataclass
class Sweep:
    """One sweep and the folder in which it is run."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    storage: Path | None = None

    @property
    def out(self) -> Path:
        return (self.storage or self.folder / "out") / "small"

    def faults(self, *rules: Mapping[str, Any]) -> Path:
        """Have packs fail by plan from now on."""
        folder = self.folder / "faults"
        folder.mkdir(exist_ok=True)
        plan(folder, *rules)
        self.environment[VARIABLE] = str(folder)
        return folder

    def start(
        self,
        *words: str,
        trials: int = TRIALS,
        epochs: int = 6,
        terminal: int | None = None,
        before: Callable[[], Any] | None = None,
    ) -> subprocess.Popen[str]:
        """Start the command in a session of its own, so that a signal to its group is heard by it alone.

        Args:
            words: options.
            trials: of the space.
            epochs: of each.
            terminal: descriptor that is its input and output instead of files.
            before: called in the new process before the command.
        """
        settings = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MEMORY_SWEEP_IO_PATIENCE_S": "1",
            "MLFLOW_TRACKING_URI": "",
            "TMPDIR": str(self.folder),
            "RAY_TMPDIR": "/tmp",  # its sockets have short names only
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",  # Ray's 15 would let workers hardly run beside other work
            **self.environment,
        }
        module = "tests.faults.faulty_run" if VARIABLE in settings else "sweep.run"
        words = (
            "--set",
            f"lr={','.join(str(rate(number)) for number in range(trials))}",
            "--set",
            f"epochs={epochs}",
            *words,
        )
        if "--pack-size" not in words:
            words += ("--pack-size", "1")
        where = ("--storage", str(self.storage or self.folder / "out"))
        words = (*words, "--no-report")
        run = [sys.executable, "-m", module, str(self.folder / "small.py"), *where, "--device", "cpu", *words]
        # files, not pipes: a pipe would be waited for until the last process that inherited it had ended
        with (self.folder / "output.txt").open("w") as out, (self.folder / "errors.txt").open("w") as err:
            streams = (terminal, terminal, terminal) if terminal is not None else (None, out, err)
            where = dict(zip(("stdin", "stdout", "stderr"), streams, strict=True))
            return subprocess.Popen(
                run, cwd=ROOT, env=settings, start_new_session=True, text=True, preexec_fn=before, **where
            )

    def end(self, process: subprocess.Popen[str], limit_s: float = 240.0) -> Ended:
        """Wait for a run's end."""
        start = time.monotonic()
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"no end after {limit_s} s: {self.output()}") from None
        return Ended(code, self.output(), (self.folder / "errors.txt").read_text(), time.monotonic() - start)

    def run(self, *words: str, limit_s: float = 240.0, **options: Any) -> Ended:
        """Run the command to its end."""
        return self.end(self.start(*words, **options), limit_s)

    def output(self) -> str:
        return (self.folder / "output.txt").read_text()

    def wait_for(self, process: subprocess.Popen[str], what: Callable[[], bool], limit_s: float = 180.0) -> None:
        """Wait until something holds while the run is under way."""
        start = time.monotonic()
        while not what():
            assert process.poll() is None, f"it has ended: {self.output()} {(self.folder / 'errors.txt').read_text()}"
            assert time.monotonic() - start < limit_s, f"not within {limit_s} s: {self.output()}"
            time.sleep(0.05)

    def gone(self, what: Callable[[], bool], limit_s: float = 30.0) -> None:
        """Wait until something holds after a run."""
        end = time.monotonic() + limit_s
        while not what():
            assert time.monotonic() < end, f"not within {limit_s} s after the end"
            time.sleep(0.2)

    def written(self) -> float:
        """Return when a checkpoint was last written; 0 while there is none."""
        found = [path.stat().st_mtime for path in (self.out / "checkpoints").glob("*.safetensors")]
        return max(found, default=0.0)

    def records(self) -> dict[str, dict[str, Any]]:
        found = [head.record() for head in SweepStorage(str(self.out.parent)).index(set_aside=False).values()]
        assert len({record["id"] for record in found}) == len(found), "a trial is recorded twice"
        return {record["id"]: record for record in found}

    def statuses(self) -> list[str]:
        return sorted(record["status"] for record in self.records().values())

    def checkpoints(self) -> list[str]:
        return sorted(path.stem for path in (self.out / "checkpoints").glob("*.safetensors"))
