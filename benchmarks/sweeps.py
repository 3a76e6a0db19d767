"""Whole sweeps as commands of their own, in an empty storage and with an empty cache, timed from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Table, local_model
from sweep.cli.options import EXIT_USER_ERROR
from sweep.records.record import seconds_since_epoch
from sweep.records.sweep_storage import SweepStorage
from trainables.errors import ConfigError
from trainables.lm.sample.configs import SAMPLE_MODELS
from trainables.node.cache_dir import user_path

ROOT = Path(__file__).resolve().parent.parent
SPACES = Path(__file__).resolve().parent / "spaces"
COMPUTING = ("trunk_s", "train_s", "measure_s", "evaluate_s")
_LEFT_OUT = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")


@dataclass(frozen=True)
class Timed:
    """A command that has ended well.

    Attributes:
        started: when it was given, seconds since the epoch.
        exit_s: seconds until its process had ended.
        output: what it printed on stdout.
    """

    started: float
    exit_s: float
    output: str


@dataclass(frozen=True)
class Swept:
    """A sweep of ours.

    Attributes:
        last_s: seconds from the command to the last record written.
        exit_s: seconds from the command to the end of its process.
        records: by trial id.
        folders: of the trials, by id.
    """

    last_s: float
    exit_s: float
    records: dict[str, dict[str, Any]]
    folders: dict[str, Path]

    @property
    def trials_s(self) -> float:
        """Seconds from the first trial handed out to the last one finished."""
        started = min(seconds_since_epoch(record["started_at"]) for record in self.records.values())
        return max(seconds_since_epoch(record["finished_at"]) for record in self.records.values()) - started

    def parts(self) -> dict[str, float]:
        """Return the seconds that workers spent, over all trials, by part (`train_s`)."""
        found: dict[str, float] = {}
        for record in self.records.values():
            for name, seconds in record["timings"].items():
                if name.endswith("_s"):
                    found[name] = found.get(name, 0.0) + seconds
        return dict(sorted(found.items()))

    def compute_s(self) -> float:
        """Return the seconds of those parts whose FLOPs a plan counts."""
        return sum(seconds for part, seconds in self.parts().items() if part in COMPUTING)


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """Give an empty folder for the time of a `with` block."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run_command(module: str, arguments: Sequence[object], folder: Path) -> Timed:
    """Run `python -m MODULE ARGUMENTS` with its cache of hidden states in `folder`.

    Raises:
        ConfigError: it refused its arguments.
        RuntimeError: it failed; with the last lines that it printed.
    """
    env = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    env |= {"MEMORY_SWEEP_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    output, errors = folder / "output.txt", folder / "errors.txt"
    # files, not pipes: a pipe would be waited for until the last process that inherited it had ended
    with output.open("w") as out, errors.open("w") as err:
        started = time.time()
        status = subprocess.run(command, cwd=ROOT, env=env, stdout=out, stderr=err).returncode
        exit_s = time.time() - started
    if status == EXIT_USER_ERROR:
        raise ConfigError((errors.read_text().strip().splitlines() or ["?"])[-1].removeprefix("error: "))
    if status:
        tail = "\n".join((output.read_text() + errors.read_text()).splitlines()[-20:])
        raise RuntimeError(f"{' '.join(command)}: exit status {status}\n{tail}")
    return Timed(started, exit_s, output.read_text())


def sweep(space: Path, settings: Mapping[str, Any], options: Sequence[object] = ()) -> Swept:
    """Run a space with `sweep.run`: nothing done yet, no hidden states cached, MLflow's default store.

    Args:
        space: its file.
        settings: fields to set, see `set_arguments`.
        options: of the command, further ones.

    Raises:
        ConfigError: it refused its arguments.
        RuntimeError: it failed.
    """
    with fresh_folder() as folder:
        return sweep_in(folder, space, settings, options)


def sweep_in(folder: Path, space: Path, settings: Mapping[str, Any], options: Sequence[object] = ()) -> Swept:
    """Do the same in a folder that stays; the storage is `folder/storage`."""
    storage = folder / "storage"
    timed = run_command(
        "sweep.run", [space, *set_arguments(settings), *options, "--no-report", "--storage", storage], folder
    )
    heads = SweepStorage(str(storage)).index(set_aside=False)
    return Swept(
        last_s=max(path.stat().st_mtime for path in storage.rglob("record.json")) - timed.started,
        exit_s=timed.exit_s,
        records={trial: head.record() for trial, head in heads.items()},
        folders={trial: storage / head.folder for trial, head in heads.items()},
    )


def planned(space: Path, settings: Mapping[str, Any], folder: Path) -> Table:
    """Return what `sweep.run --plan --json` says of a space, given the records in `folder/storage`."""
    arguments = [space, *set_arguments(settings), "--plan", "--json", "--storage", folder / "storage"]
    found: Table = json.loads(run_command("sweep.run", arguments, folder).output)
    return found


def set_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return `--set FIELD=V,V…` for every field; a list is several values."""
    found = []
    for name, value in settings.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        found += ["--set", f"{name}={','.join(map(str, values))}"]
    return found


def model_path(model: str) -> str:
    """Return a model folder that needs no download and is not made again in an empty cache.

    Args:
        model: a sample model; an alias (`pythia-70m`), for its shape with random weights; or a folder.
    """
    if model in SAMPLE_MODELS:
        from trainables.lm.sample.models import ensure_sample_model

        return str(ensure_sample_model(model).resolve())
    return str(user_path(local_model(model)).resolve())
