"""`python -m sweep.doctor`: is everything here that a sweep needs, and what to mend."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import Requirement

from sweep.cli.options import DataOption, StorageOption, TrackingUriOption, user_errors
from sweep.records.sweep_storage import SweepStorage
from sweep.tracking.address import resolve_tracking
from trainables.data.hub_client import hub_address, is_offline
from trainables.data.online import require_online
from trainables.errors import SweepError
from trainables.node.addresses import shown
from trainables.node.cache_dir import cache_dir
from trainables.node.machine import usable_cores

PACKAGE = "memory-sweep"
FEWEST_FREE_BYTES = 2e9
"""Free space of the cache below which something will soon not fit (ours: the hidden states of a small model)."""
HELP = """Check what a sweep needs - versions, devices, cluster, storage, MLflow, models, data - and say what to mend.

\b
Examples:
  python -m sweep.doctor
  python -m sweep.doctor --storage s3://bucket/outputs --address auto --tracking-uri http://mlflow.lab:5000
  python -m sweep.doctor --data path/to/data --model path/to/model

Exit status: 0 all is well, 1 something is to be mended.
"""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class CheckResult:
    """What one check found: `ok`, `note` (works, but worth knowing) or `mend`; and a line."""

    state: str
    line: str


Check = Callable[[], Iterator[CheckResult]]


@app.command(help=HELP)
def main(
    storage: StorageOption = "outputs",
    address: Annotated[str | None, typer.Option(help="Ray cluster: auto or HOST:PORT; else RAY_ADDRESS")] = None,
    tracking_uri: TrackingUriOption = None,
    data: DataOption = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="alias, hub id or folder; may be repeated")] = None,
) -> None:
    """Check everything that a sweep needs."""
    checks: dict[str, Check] = {
        "python": _python,
        "packages": _packages,
        "machine": _machine,
        "device": _device,
        "cache": _cache,
        "ray": lambda: _ray(address),
        "storage": lambda: _storage(storage),
        "mlflow": lambda: _mlflow(storage, tracking_uri),
        "hub": _hub,
        **({"data": lambda: _data(data)} if data else {}),
        **({"models": lambda: _models(model)} if model else {}),
    }
    to_mend = 0
    with user_errors():
        for name, check in checks.items():
            for found in _findings(check):
                to_mend += found.state == "mend"
                typer.echo(f"{found.state:4}  {name:8}  {shown(found.line)}")
    raise typer.Exit(1 if to_mend else 0)


def _findings(check: Check) -> Iterator[CheckResult]:
    """Yield what a check finds; what it raises is to be mended."""
    try:
        yield from check()
    except (SweepError, OSError) as error:
        yield CheckResult("mend", " ".join(str(error).split()))


def _python() -> Iterator[CheckResult]:
    wanted = metadata.metadata(PACKAGE)["Requires-Python"]
    good = Requirement(f"python{wanted}").specifier.contains(platform.python_version())
    yield CheckResult("ok" if good else "mend", f"{platform.python_version()}, wanted {wanted}")


def _packages() -> Iterator[CheckResult]:
    """Hold what is installed against the declared ranges."""
    good = []
    for text in metadata.requires(PACKAGE) or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield CheckResult("mend", f"{wanted.name} is not installed; pip install '{wanted}'")
            continue
        if wanted.specifier.contains(found, prereleases=True):
            good.append(f"{wanted.name} {found}")
        else:
            yield CheckResult("mend", f"{wanted.name} {found} is out of range; pip install '{wanted}'")
    told = [word for word in good if word.split()[0] in ("ray", "torch", "transformers", "mlflow", "optuna")]
    yield CheckResult("ok", f"{len(good)} of the declared ones: {', '.join(told)}, …")


def _machine() -> Iterator[CheckResult]:
    import psutil

    memory = psutil.virtual_memory()
    size = f"{memory.available / 1e9:.0f} of {memory.total / 1e9:.0f} GB free"
    yield CheckResult("ok", f"{platform.node()}: {usable_cores()} cores, {size}")


def _device() -> Iterator[CheckResult]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            yield CheckResult("ok", f"GPU {index}: {found.name}, {found.total_memory / 1e9:.0f} GB")
    elif shutil.which("nvidia-smi"):
        yield CheckResult(
            "mend",
            f"nvidia-smi is there, but torch {torch.__version__} sees no CUDA device; install a build for this driver",
        )
    else:
        yield CheckResult("note", f"no CUDA device: trials run on the CPU (torch {torch.__version__})")


def _cache() -> Iterator[CheckResult]:
    folder = cache_dir()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        yield CheckResult("note", f"{folder}: cannot be written, so hidden states are computed anew in every process")
    elif free < FEWEST_FREE_BYTES:
        yield CheckResult("mend", f"{folder}: {free / 1e9:.1f} GB free; make room, or set MEMORY_SWEEP_CACHE")
    else:
        yield CheckResult("ok", f"{folder}: {free / 1e9:.0f} GB free (MEMORY_SWEEP_CACHE)")


def _ray(address: str | None) -> Iterator[CheckResult]:
    from sweep.running.ray_cluster import check_reachable, ray_session
    from sweep.running.ray_environment import is_local, set_environment

    set_environment(address)
    check_reachable(address)
    if is_local(address):
        yield CheckResult("ok", "a Ray of its own on this machine (no --address, no RAY_ADDRESS)")
        return
    with ray_session(address) as nodes:
        yield CheckResult(
            "ok", f"cluster of {len(nodes.cpus)} nodes: {sum(nodes.cpus):g} CPUs, {sum(nodes.gpus):g} GPUs"
        )


def _storage(address: str) -> Iterator[CheckResult]:
    storage = SweepStorage(address)
    storage.check_answers()
    place = Path(address)
    if storage.is_local and not place.exists():
        there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
        if os.access(there, os.W_OK):
            yield CheckResult("ok", f"{address}: not there yet; {there} can be written")
        else:
            yield CheckResult("mend", f"{address}: not there, and {there} cannot be written; choose another --storage")
        return
    storage.check_writable()
    sweeps = storage.sweeps()
    yield CheckResult("ok", f"{address}: can be written; {len(sweeps)} sweeps there")


def _mlflow(storage: str, uri: str | None) -> Iterator[CheckResult]:
    from sweep.tracking.knock import knock

    tracking = resolve_tracking(SweepStorage(storage), uri)
    try:
        knock(tracking.uri)
    except Exception as error:  # each kind of database has errors of its own
        yield CheckResult(
            "mend", f"{tracking.uri}: {' '.join(str(error).split())[:200]}; start it, or see --tracking-uri"
        )
        return
    yield CheckResult("ok", f"{tracking.uri}, experiment {tracking.experiment}")


def _hub() -> Iterator[CheckResult]:
    if is_offline():
        yield CheckResult("note", "HF_HUB_OFFLINE is set: only models and data that are here already")
        return
    try:
        require_online(hub_address(), "models by name", "name folders instead")
    except SweepError as error:
        yield CheckResult("note", str(error))
        return
    yield CheckResult("ok", f"{hub_address()} answers")


def _data(sources: list[str]) -> Iterator[CheckResult]:
    from trainables.data.sources import data_key

    for source in sources:
        yield CheckResult("ok", f"{source}: {data_key(source)}")


def _models(models: list[str]) -> Iterator[CheckResult]:
    from trainables.lm.card import model_card
    from trainables.lm.model_check import check_models

    for name in models:
        card = model_card(name)
        notes = check_models([card])
        told = f"{card.name}: {card.num_blocks} blocks, {card.params / 1e6:,.1f} M parameters"
        yield CheckResult("note" if notes else "ok", "; ".join([told, *notes]))


if __name__ == "__main__":
    app()
