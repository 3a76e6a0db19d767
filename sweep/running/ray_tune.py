"""Ray Tune executes a whole sweep in one run: a searcher hands out packs, a callback takes in reports.

Tune schedules, reuses processes and retries what dies with its node. It keeps no state of its own worth restoring:
records and checkpoints are ours.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune import Callback, TuneError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweep.planning.inputs import download_models
from sweep.records.store import Store
from sweep.running.exchange import PackExchange
from sweep.running.executor import Capacity, WorkerSettings
from sweep.running.ray_cluster import (
    Nodes,
    check_reachable,
    check_shared_storage,
    is_local,
    pack_memory_bytes,
    prepare_nodes,
    ray_session,
)
from trainables.lm.card import ModelCard
from trainables.node.machine import check_device, check_local_device
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
class PackResources:
    """What each pack gets.

    Attributes:
        cpus: CPUs, also torch's threads.
        gpus: GPUs, may be a fraction; None for one where there are any.
        max_concurrent: packs at once; None for as many as fit.
    """

    cpus: float = 1.0
    gpus: float | None = None
    max_concurrent: int | None = None


class RayTune:
    """The executor `ray`; see `sweep.running.executor.Executor` for the contract.

    Args:
        settings: device and cache of every worker.
        resources: of each pack.
        address: of the cluster; None for RAY_ADDRESS or a Ray of our own.
        trainable: what runs a pack; another one must report as `PackTrainable` does.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        resources: PackResources,
        address: str | None = None,
        trainable: type[tune.Trainable] = PackTrainable,
    ) -> None:
        """Keep the settings; nothing is started before `session`."""
        self._settings, self._resources, self._address, self._trainable = settings, resources, address, trainable
        self._gpus, self._slots, self._attached = 0.0, 1, False

    def check(self) -> None:
        """Refuse a cluster that cannot be reached, and a device that this machine has not got where Ray is our own."""
        check_reachable(self._address)
        if is_local(self._address):
            check_local_device(self._settings.device)

    @contextmanager
    def session(self, store: Store) -> Iterator[Capacity]:
        """Attach to the cluster, or start a Ray of our own and stop it at the end."""
        with ray_session(self._address) as nodes:
            check_device(self._settings.device, any(nodes.gpus))
            self._gpus = self._gpus_of_a_pack(nodes)
            self._attached = nodes.attached
            fitting = nodes.slots(self._resources.cpus, self._gpus)
            self._slots = min(fitting, self._resources.max_concurrent or fitting)
            if len(nodes.cpus) > 1:
                check_shared_storage(store)
            yield Capacity(self._slots, self._gpus > 0, lambda: pack_memory_bytes(self._gpus, self._slots))

    def prepare(self, data: Sequence[tuple[str, bool]], cards: Sequence[ModelCard]) -> None:
        """Download onto every node of the cluster, all at once."""
        if self._attached:
            prepare_nodes(data, cards)
        else:
            download_models(cards)

    def run(self, exchange: PackExchange) -> None:
        """Run all packs in one Tune run."""
        os.environ.update(_TUNE_SETTINGS)
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        settings = {
            "device": self._settings.device,
            "threads": max(1, int(self._resources.cpus)),
            "cache_bytes": self._settings.cache_bytes,
        }
        with tempfile.TemporaryDirectory(prefix="memory-sweep-tune-") as scratch:
            tuner = tune.Tuner(
                tune.with_resources(self._trainable, {"cpu": self._resources.cpus, "gpu": self._gpus}),
                tune_config=tune.TuneConfig(
                    scheduler=EarlyStopping(exchange),
                    search_alg=PackSearcher(exchange, settings),
                    num_samples=-1,
                    max_concurrent_trials=self._slots,
                    reuse_actors=True,
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[ReportsCallback(exchange)],
                    failure_config=tune.FailureConfig(max_failures=MAX_DEATHS),
                ),
            )
            with _own_errors():
                tuner.fit()

    def _gpus_of_a_pack(self, nodes: Nodes) -> float:
        if self._resources.gpus is not None:
            return self._resources.gpus
        return float(any(nodes.gpus) and self._settings.device != "cpu")


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raise what the exchange raised, which Tune wraps into its own error with the traceback as text."""
    try:
        yield
    except TuneError as error:
        if error.__context__ is None:
            raise
        raise error.__context__ from None


def _name(trial: Any) -> str:
    return f"pack_{trial.config['pack'][:8]}_{trial.trial_id[:6]}"


class _Inert:
    """Left out of Tune's snapshots, which hold locks and threads otherwise and are never restored."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class PackSearcher(_Inert, Searcher):  # type: ignore[misc]
    """Gives Tune the packs as they become ready.

    Args:
        exchange: hands them out.
        settings: device, threads and cache of a worker.
    """

    def __init__(self, exchange: PackExchange, settings: dict[str, Any]) -> None:
        """Keep the parts."""
        super().__init__()
        self._exchange, self._settings = exchange, settings

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next pack's config, None to be asked again, or that the sweep is over."""
        pack = self._exchange.next_pack()
        if pack is None:
            return str(Searcher.FINISHED) if self._exchange.over else None
        work = json.dumps({**pack.job, "settings": self._settings})
        return {"pack": pack.id, "work": work, "sampled": pack.sampled}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Do nothing: the callback hears of it too."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the state is in the records."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the state is in the records."""


class ReportsCallback(_Inert, Callback):  # type: ignore[misc]
    """Passes on what packs report, and their ends."""

    def __init__(self, exchange: PackExchange) -> None:
        """Keep the exchange."""
        self._exchange = exchange

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Pass on a report."""
        if "progress" in result:
            self._exchange.report(trial.config["pack"], result)
            result["results"].clear()  # Tune keeps the last result of every pack, twice, to the end of the sweep

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Close a pack that is done, or a sampled trial that was stopped early."""
        self._exchange.close(trial.config["pack"])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record the trials of a pack whose process died once too often as failed."""
        message = f"its process or node died {MAX_DEATHS + 1} times"
        error = None if self._exchange.stopping else {"class": "preemption", "message": message}
        self._exchange.close(trial.config["pack"], error)

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        """Show progress."""
        self._exchange.show_progress()


class EarlyStopping(_Inert, FIFOScheduler):  # type: ignore[misc]
    """Runs packs in their order, and stops sampled trials that fall behind: their stage's own draws say which."""

    def __init__(self, exchange: PackExchange) -> None:
        """Keep the exchange."""
        super().__init__()
        self._exchange = exchange

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide on a sampled trial after an epoch; `result` is Tune's flat form of a report."""
        sampled = trial.config["sampled"]
        prefix = f"progress/{sampled}/"
        metrics = {name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)}
        if sampled and metrics and self._exchange.falls_behind(sampled, result["epoch"], metrics):
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)
