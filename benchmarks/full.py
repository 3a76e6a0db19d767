"""What continuous packs gain: `tune_alpha`'s trials alone, each in passes of its own, against packs that are kept full.

Counted are packs, forward passes of the blocks above the memory in training and in all, and how full packs are; the
processor's time of this process is taken beside them. Early stopping and the
sampler see other trials when several run at a time, so that the two sweeps are not of the same trials: the time is
compared for an epoch of a trial, too. That each trial's losses are those it has alone is checked.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer

from benchmarks.common import (
    OUT,
    TOLERANCE,
    Documents,
    Epochs,
    OutFile,
    Repeats,
    Table,
    check_close,
    keep,
    ratio,
    spread,
    start_pack,
    told,
)
from benchmarks.sweeps import fresh_folder
from search_spaces.tune_alpha import space as TUNE_ALPHA
from sweep.planning.load import asked_space
from sweep.planning.packs import auto_pack_size
from sweep.planning.plan_of import plan_of
from sweep.planning.points import Point, PointMaker
from sweep.records.record import Record
from sweep.records.sweep_storage import SweepStorage
from sweep.running.display import Display
from sweep.running.exchange import HandedPack, PackExchange
from sweep.running.executor import WorkerSettings
from sweep.running.in_process import InProcess
from sweep.running.ledger import Ledger
from sweep.running.pack_queue import Packing
from sweep.running.progress import SweepProgress
from sweep.space import Distribution, LogUniform, OneOf, Space
from trainables.adapters.training import PackTraining
from trainables.lm.sample.configs import SAMPLE_MODELS
from trainables.lm.sample.models import ensure_sample_model
from trainables.lm.upper import Upper
from trainables.pack.process_cache import ProcessCache
from trainables.pack.run import PackRun

BLOCKS = 10
"""Of the sample models' shapes here: as many as `tune_alpha` has depths, so that each is a block of its own."""
CHECKED = 4
"""Trials of a sweep that are run again alone, to compare their losses."""


class Silent:
    """Stands in for MLflow's feed: nothing is told."""

    trouble = ""

    def start_trial(self, begun: Record) -> None:
        """Do nothing."""

    def epoch(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def finish(self, record: Record) -> None:
        """Do nothing."""


def models_of(folder: Path) -> list[str]:
    """Make models of the sample models' shapes with ten blocks and random weights; return their folders."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    made = []
    for name in SAMPLE_MODELS:
        source, target = ensure_sample_model(name), folder / name
        config = AutoConfig.from_pretrained(source)
        config.num_hidden_layers = BLOCKS
        if getattr(config, "layer_types", None):
            config.layer_types = [config.layer_types[0]] * BLOCKS
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(target)
        AutoTokenizer.from_pretrained(source).save_pretrained(target)
        made.append(str(target))
    return made


def tune_alpha(
    models: list[str], samples: int, documents: int, epochs: int, depths: Sequence[float] = TUNE_ALPHA.axes["depth"]
) -> Space:
    """Return `tune_alpha` at its own depths, on small models, documents and memories."""
    layers, tune = TUNE_ALPHA.stages
    assert tune.sampling is not None
    fields: dict[str, Distribution] = {
        "alpha": LogUniform(0.05, 5.0), "lr": LogUniform(1e-4, 1e-2), "memory_dim": OneOf((16, 64, 128)),
    }  # fmt: skip
    sampled = replace(tune, sampling=replace(tune.sampling, fields=fields, num_samples=samples))
    small = {
        "data": "sample", "dtype": "float32", "num_documents": documents, "memory_dim": 64, "segment_tokens": 64,
        "max_segments": 1, "epochs": epochs, "checkpoint_every_s": 1e9,
    }  # fmt: skip
    return asked_space(
        replace(
            TUNE_ALPHA,
            axes={"model": models, "depth": list(depths)},
            fixed={**TUNE_ALPHA.fixed, **small},
            stages=(layers, sampled),
            baseline=False,
        )
    )


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count what runs within a `with` block, one pack at a time: packs, passes, epochs, and places.

    `places` are those of the members that are run, `full_places` as many as a pack began with, `awaited_places` those
    while another trial was still to join the pack, and `awaited_epochs` how many of these were taken.
    """
    counts: Counter[str] = Counter()
    size, since = [0], Counter[str]()
    forward, gradients, step, next_pack = Upper.forward, PackTraining._gradients, PackRun.step, PackExchange.next_pack

    def count_forward(upper: Upper, *args: Any, **options: Any) -> Any:
        counts["passes"] += 1
        return forward(upper, *args, **options)

    def count_gradients(training: PackTraining, batch: Any) -> Any:
        before = counts["passes"]
        found = gradients(training, batch)
        counts["training_passes"] += counts["passes"] - before
        return found

    def count_step(run: PackRun) -> Any:
        found = step(run)
        counts["trial_epochs"] += len(found)
        counts["places"] += len(run.tasks)
        counts["full_places"] += size[0]
        counts["pack_epochs"] += 1
        if 1 in run.epochs:  # somebody has begun
            counts["awaited_places"] += since["places"]
            counts["awaited_epochs"] += since["epochs"]
            since.clear()
        since["places"] += size[0]
        since["epochs"] += len(found)
        return found

    def count_pack(exchange: PackExchange) -> HandedPack | None:
        found = next_pack(exchange)
        if found is not None:
            counts["packs"] += 1
            size[0] = len(found.job["trials"])
            since.clear()
            counts["sampled_packs"] += "tune" in {task["spec"]["stage"] for task in found.job["trials"]}
        return found

    counting = (
        (Upper, "forward", count_forward), (PackTraining, "_gradients", count_gradients), (PackRun, "step", count_step),
        (PackExchange, "next_pack", count_pack),
    )  # fmt: skip
    with ExitStack() as patches:
        for owner, name, counter in counting:
            patches.enter_context(patch.object(owner, name, counter))
        yield counts


def run(space: Space, folder: Path, pack_size: int | None) -> tuple[Table, dict[str, Record]]:
    """Run a space in this process; return its counts, with the processor's seconds, and its records.

    Args:
        space: to run.
        folder: of the storage, new.
        pack_size: trials in a pack at most; None for what `--pack-size auto` takes.
    """
    storage, executor = SweepStorage(str(folder)), InProcess(WorkerSettings("cpu"), torch.get_num_threads())
    index = storage.index()
    choices: dict[str, Any] = {}
    plan = plan_of(space, index, choices, storage, space.name)

    def size(point: Point) -> int:
        return pack_size or auto_pack_size(point, 1e9, on_gpu=False)

    with executor.session(storage), counted() as counts:
        before = time.process_time()
        ledger = Ledger(plan, storage, space.name, index, choices, Packing(size, 1), False, lambda line: None)
        display = Display(SweepProgress(space.name, plan), io.StringIO(), every_s=1e9)
        executor.run(PackExchange(ledger, Silent(), display, {}))  # type: ignore[arg-type]
        spent = time.process_time() - before
    records = {head.id: head.record() for head in index.values()}
    found: Table = dict(counts)
    found |= {
        "trials": len(records),
        "statuses": dict(Counter(record["status"] for record in records.values())),
        "occupancy": counts["trial_epochs"] / counts["places"],
        "full": counts["trial_epochs"] / counts["full_places"],
        "full_while_awaited": counts["awaited_epochs"] / max(1, counts["awaited_places"]),
        "cpu_s": spent,
        "cpu_ms_per_trial_epoch": 1000 * spent / counts["trial_epochs"],
    }
    return found, records


def check_alone(folder: Path, records: Mapping[str, Record], most: int | None = CHECKED) -> int:
    """Train sampled trials again, each alone, and compare their losses epoch by epoch; return how many.

    Args:
        folder: for files, new.
        records: of the sweep.
        most: how many; None for all.

    Raises:
        NotTheSame: a trial's losses depend on its pack.
    """
    cache, maker = ProcessCache(torch.device("cpu"), None), PointMaker()
    drawn = [record for record in records.values() if record["stage"] == "tune"][:most]
    for record in drawn:
        alone = start_pack([maker.recorded(record).spec], cache, str(folder))
        for name in ("train/nll", "train/loss"):
            curve = [value for _, value in record["curves"][name]]
            while alone.epoch < len(curve):
                alone.step()
            found = [value for _, value in alone.log.curves[0][name]]
            check_close(f"trial {record['id']}", "losses", curve, found, TOLERANCE["float32"])
    return len(drawn)


def compare(samples: int, documents: int, epochs: int, repeats: int) -> Table:
    """Run `tune_alpha` both ways in turn.

    Args:
        samples: trials that are drawn for each model.
        documents: pages memorised.
        epochs: of every trial.
        repeats: rounds.
    """
    rounds: dict[str, list[Table]] = {"alone": [], "packs": []}
    with fresh_folder() as folder:
        space = tune_alpha(models_of(folder / "models"), samples, documents, epochs)
        for number in range(repeats):
            for arm, size in (("alone", 1), ("packs", None)):
                found, records = run(space, folder / f"{arm}-{number}", size)
                rounds[arm].append(found)
        checked = check_alone(folder / "again", records)
    table: Table = {"checked": checked}
    for arm, each_round in rounds.items():
        times = ("cpu_s", "cpu_ms_per_trial_epoch")
        table[arm] = each_round[-1] | {name: spread([each[name] for each in each_round]) for name in times}
    for name in ("cpu_s", "cpu_ms_per_trial_epoch"):
        table[f"{name}_ratio"] = ratio(*([each[name] for each in rounds[arm]] for arm in ("alone", "packs")))
    return table


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    shown = []
    for arm, name in (("alone", "one trial in a pack"), ("packs", "packs kept full")):
        found = table[arm]
        ended = ", ".join(f"{count} {status}" for status, count in found["statuses"].items())
        shown.append(
            f"{name}: {found['trials']} trials ({ended}) in {found['packs']} packs, {found['sampled_packs']} of them "
            f"sampled; {found['training_passes']} passes in training, {found['passes']} in all, for "
            f"{found['trial_epochs']} epochs of trials; {100 * found['occupancy']:.1f} % of the places in passes used"
        )
        if found["full_while_awaited"]:
            shown.append(
                f"  packs are {100 * found['full_while_awaited']:.1f} % full while others are to join them, "
                f"{100 * found['full']:.1f} % to their ends"
            )
        shown.append(
            f"  {told(found['cpu_s'], 1)} s of the processor, {told(found['cpu_ms_per_trial_epoch'], 1)} ms for an "
            "epoch of a trial"
        )
    shown.append(
        f"packs take {told(table['cpu_s_ratio'])} times less in all, {told(table['cpu_ms_per_trial_epoch_ratio'])} "
        f"times less for an epoch of a trial; {table['checked']} trials have the losses that they have alone"
    )
    return shown


def command(
    samples: Annotated[int, typer.Option(min=1, help="trials drawn for each of two models")] = 32,
    documents: Documents = 4,
    epochs: Epochs = 25,
    repeats: Repeats = 1,
    out: OutFile = OUT,
) -> None:
    """Run `tune_alpha` (84 trials) with trials alone and in packs that are kept full; counts, and processor time."""
    table = compare(samples, documents, epochs, repeats)
    keep(out, "full", table)
    typer.echo("\n".join(lines(table)))
