"""Runs a sweep from Python: a space, as asked for, to its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sweep.cli.heartbeat import Heartbeat
from sweep.planning.load import asked_space
from sweep.records.sweep_storage import SweepStorage, check_name
from sweep.running.interrupts import handled_signals
from sweep.running.results import Results
from sweep.running.run_options import RunOptions
from sweep.running.sweep import SweepRun
from sweep.space import Space
from sweep.tracking.address import resolve_tracking


def run_sweep(
    space: Space | str | Path,
    storage: str | Path = "outputs",
    *,
    executor: Literal["ray", "local"] = "ray",
    name: str | None = None,
    settings: Sequence[str] = (),
    small: bool = False,
    select_by: str | None = None,
    data: str | Sequence[str] | None = None,
    seed: int | None = None,
    stage: str | None = None,
    retry_failed: bool = False,
    device: str = "auto",
    pack_size: int | None = None,
    address: str | None = None,
    gpus_per_trial: float | None = None,
    cpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    cache_gb: float | None = None,
    spread_corpus: bool = False,
    lock: bool = True,
    progress: bool = False,
    probes: Sequence[str] = (),
    baseline: bool = True,
    report: bool = False,
    notify: str = "",
) -> Results:
    """Run every trial of a space that has no record yet, stage after stage, and return what is there then.

    The same call again goes on where the last one ended, also after it was interrupted or killed.

    Args:
        space: a `Space`, the path of a search-space file, or the name of a shipped one.
        storage: where results are kept: a folder or `s3://...`.
        executor: `ray`, or `local`: packs one after the other in this process, so that breakpoints work.
        name: of the sweep; None for the space's.
        settings: as after `--set`: `"FIELD=V[,V...]"`.
        small: the space's small form, on the sample world.
        select_by: metric that decides between stages.
        data: folders, or data by name: `fever`, `counterfact`, `sample`, `hub`.
        seed: of all trials.
        stage: only up to this stage.
        retry_failed: failed trials are run again.
        device: auto, cpu or cuda.
        pack_size: trials in a pack at most; None to choose.
        address: of the Ray cluster; None for RAY_ADDRESS or a Ray of its own.
        gpus_per_trial: GPUs of a pack, may be a fraction; None for one where there are any.
        cpus_per_trial: CPUs of a pack; None for 1 with Ray, and for torch's own number of threads in this process.
        max_concurrent: packs at once; None for as many as fit.
        tracking_uri: MLflow's address; None for MLFLOW_TRACKING_URI, else a SQLite file in the storage.
        experiment: MLflow experiment.
        cache_gb: limit of each node's cache of hidden states; None for half of the disk (`HiddenCache`).
        spread_corpus: have Ray Data tokenise and hash more than 10,000 documents on all nodes; the results are equal.
        lock: keep a second run of this name away; False for a storage that cannot, where you see to it yourself.
        progress: print what the command would print on the way.
        probes: what all trials are asked besides, as after `--probe`: `"fever:num_shots=5"`.
        baseline: with the pretrained models to compare with.
        report: write the report at the end; its sentences are in the results.
        notify: a command for the end, a new kind of failure and a choice, as after `--notify`.

    Raises:
        LockLost: another run has taken the sweep over, as this one had not been heard of for a minute.
        ConfigError: a mistake found before anything was started.
        DataError: data or a model file that is missing or broken.
    """
    options = RunOptions(
        executor=executor,
        stage=stage,
        retry_failed=retry_failed,
        device=device,
        pack_size=pack_size,
        address=address,
        gpus=gpus_per_trial,
        cpus=cpus_per_trial,
        max_concurrent=max_concurrent,
        tracking_uri=tracking_uri,
        experiment=experiment,
        cache_bytes=None if cache_gb is None else int(cache_gb * 1e9),
        spread_corpus=spread_corpus,
        lock=lock,
        report=report,
        notify=notify,
    )
    found = asked_space(
        space,
        settings=settings,
        small=small,
        select_by=select_by,
        data=data,
        seed=seed,
        probes=probes,
        baseline=baseline,
    )
    return run_space(found, SweepStorage(str(storage)), check_name(name or found.name), options, progress)


def run_space(space: Space, storage: SweepStorage, name: str, options: RunOptions, progress: bool) -> Results:
    """Run a space, as asked for, under a name; this process alone may work on it meanwhile.

    Raises:
        ConfigError: a mistake found before anything was started.
        DataError: data or a model file that is missing or broken.
    """
    tracking = resolve_tracking(storage, options.tracking_uri, options.experiment)
    storage.check_answers()
    with handled_signals() as interrupts, storage.lock(name, without=not options.lock):
        with Heartbeat(progress) as beat:
            run = SweepRun(space, storage, name, options, tracking, beat, interrupts)
            with run.voice.told():
                return run.run()
