"""One Ray Tune run for a whole sweep: a searcher hands out packs, a callback takes in results.

Tune schedules, reuses processes and retries what dies with its node. It keeps no state of its own worth restoring:
records and checkpoints are ours.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweep.records.record import Record
from sweep.running.ledger import Ledger
from sweep.running.progress import Display
from sweep.space import Sampling
from sweep.tracking.live_feed import LiveFeed
from trainables.trainable import PackTrainable

MAX_DEATHS = 4
"""Times a pack's process or node may die before its trials fail."""
_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@dataclass(frozen=True)
class Resources:
    """What each pack gets.

    Attributes:
        cpus: CPUs, also torch's threads.
        gpus: GPUs, may be a fraction.
        concurrent: packs at once.
        device: auto, cpu or cuda.
        cache_bytes: limit of each node's cache of hidden states; None for half of its free disk.
        commits: of the hub models, by their keys.
    """

    cpus: float
    gpus: float
    concurrent: int
    device: str
    cache_bytes: int | None
    commits: Mapping[str, str] = field(default_factory=dict)


class _Inert:
    """Left out of Tune's snapshots, which hold locks and threads otherwise and are never restored."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class PackSearcher(_Inert, Searcher):  # type: ignore[misc]
    """Gives Tune the ledger's packs as they become ready.

    Args:
        ledger: the sweep's state.
        settings: device, threads and cache of a worker.
        trunk_layers: layers of each model (by key) whose hidden states are made in one pass.
        started: called with a pack's begun records when it is handed out.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: Mapping[str, Any],
        trunk_layers: Mapping[str, list[int]],
        started: Callable[[Mapping[str, Record]], None],
    ) -> None:
        """Keep the parts."""
        super().__init__()
        self._ledger, self._settings = ledger, dict(settings)
        self._trunk_layers, self._started = trunk_layers, started

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next pack's config, None to be asked again, or that the sweep is over."""
        found = self._ledger.next_pack()
        if found is None:
            return str(Searcher.FINISHED) if self._ledger.exhausted else None
        pack, begun = found
        self._started(begun)
        key = pack.points[0].card.key
        work = {
            "trials": [self._ledger.task(point).to_dict() for point in pack.points],
            "trunk_layers": self._trunk_layers.get(key, []),
            "settings": self._settings,
            "stop_file": self._ledger.stop_file,
            "sampled": self._ledger.is_sampled(pack.points[0].id),
        }
        return {"pack": pack.id, "work": json.dumps(work)}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Do nothing: the callback hears of it too."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the state is in the records."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the state is in the records."""


class ResultsCallback(_Inert, Callback):  # type: ignore[misc]
    """Takes results from Tune: records, MLflow, display.

    Args:
        ledger: the sweep's state.
        feed: MLflow, live.
        display: what the user sees.
    """

    def __init__(self, ledger: Ledger, feed: LiveFeed, display: Display) -> None:
        """Keep the parts."""
        self._ledger, self._feed, self._display = ledger, feed, display

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Pass on an epoch's metrics and write the records of finished trials."""
        for member, metrics in result.get("progress", {}).items():
            self._feed.epoch(member, result["epoch"], metrics)
            self._ledger.epoch(member, result["epoch"], metrics)
        outcomes = result.get("results", [])
        for outcome in outcomes:
            told = {"versions": result["versions"], "node": result["node"]}
            self._record(self._ledger.finish(trial.config["pack"], {**outcome, **told}))
        outcomes.clear()  # Tune keeps the last result of every pack, twice, to the end of the sweep

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Close a pack that is done, or a sampled trial that the scheduler stopped."""
        for record in self._ledger.end_pack(trial.config["pack"]):
            self._record(record)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record the trials of a pack whose process died once too often as failed."""
        if self._ledger.stopping:
            return
        message = f"its process or node died {MAX_DEATHS + 1} times"
        for record in self._ledger.end_pack(trial.config["pack"], {"class": "preemption", "message": message}):
            self._record(record)

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        """Show progress."""
        self._display.progress(self._ledger.running_trials, self._feed.trouble and f"MLflow: {self._feed.trouble}")

    def _record(self, record: Record | None) -> None:
        if record is None:
            return
        self._feed.finish(record)
        self._display.finish_trial(record["status"], record["error"])


class SampledOnly(_Inert, AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA for the sampled trials; packs of a grid run to their end.

    Args:
        sampling: of the sampled stage.
        epochs: of its trials.
    """

    def __init__(self, sampling: Sampling, epochs: int) -> None:
        """Set the rungs by epoch."""
        super().__init__(
            time_attr="epoch",
            metric=sampling.metric,
            mode=sampling.mode,
            max_t=max(epochs, sampling.grace_epochs),
            grace_period=sampling.grace_epochs,
            reduction_factor=sampling.reduction,
        )

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide on a sampled trial that reports its metric."""
        if not json.loads(trial.config["work"])["sampled"] or self._metric not in result:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(controller, trial, result))

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take note of a sampled trial's last metric."""
        if json.loads(trial.config["work"])["sampled"] and self._metric in result:
            super().on_trial_complete(controller, trial, result)


def _scheduler(ledger: Ledger) -> SampledOnly | None:
    """Return ASHA for the first sampled stage, if there is one."""
    for stage in ledger.plan.space.stages:
        if stage.sampling:
            points = ledger.plan.stage(stage.name).points if stage.name in ledger.members else ()
            return SampledOnly(stage.sampling, max((p.spec.epochs for p in points), default=1))
    return None


@contextmanager
def _interrupts(ledger: Ledger, say: Callable[[str], None]) -> Iterator[None]:
    """One Ctrl-C (or SIGTERM) stops after the running epochs; a second one ends at once."""

    def handler(number: int, frame: Any) -> None:
        if ledger.stopping:
            raise KeyboardInterrupt
        ledger.stop("interrupted")
        say("stopping: running trials finish their epoch and keep a checkpoint (again to end at once)")

    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


def run_tune(
    ledger: Ledger,
    feed: LiveFeed,
    display: Display,
    resources: Resources,
    trunk_layers: Mapping[str, list[int]],
    trainable: type[tune.Trainable] = PackTrainable,
) -> None:
    """Run what the ledger has to run, to its end or until it is stopped.

    Args:
        ledger: the sweep's state; its `stopping` says why a run ended early.
        feed: MLflow, live.
        display: what the user sees.
        resources: of each pack.
        trunk_layers: layers of each model whose hidden states are made in one pass.
        trainable: what runs a pack; another one must report as `PackTrainable` does.
    """
    os.environ.update(_TUNE_SETTINGS)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    settings = {
        "device": resources.device,
        "threads": max(1, int(resources.cpus)),
        "cache_bytes": resources.cache_bytes,
        "commits": dict(resources.commits),
    }

    def started(begun: Mapping[str, Record]) -> None:
        for record in begun.values():
            feed.start_trial(record)

    with tempfile.TemporaryDirectory(prefix="memory-sweep-tune-") as scratch, _interrupts(ledger, display.say):
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                scheduler=_scheduler(ledger),
                search_alg=PackSearcher(ledger, settings, trunk_layers, started),
                num_samples=-1,
                max_concurrent_trials=resources.concurrent,
                reuse_actors=True,
                trial_name_creator=lambda trial: f"pack_{trial.config['pack'][:8]}_{trial.trial_id[:6]}",
                trial_dirname_creator=lambda trial: f"pack_{trial.config['pack'][:8]}_{trial.trial_id[:6]}",
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[ResultsCallback(ledger, feed, display)],
                failure_config=tune.FailureConfig(max_failures=MAX_DEATHS),
            ),
        )
        tuner.fit()
