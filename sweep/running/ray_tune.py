"""Ray Tune executes a whole sweep in one run: a searcher hands out packs, a callback takes in reports.

Tune schedules and reuses processes. It retries nothing and keeps no state worth restoring: records and checkpoints are
ours, and a pack that failed comes back from the exchange as another one, for another process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray import tune
from ray.tune import Callback, TuneError
from ray.tune.execution import class_cache
from ray.tune.result import SHOULD_CHECKPOINT

from sweep.planning.inputs import download_models
from sweep.records.sweep_storage import SweepStorage
from sweep.running.exchange import PackExchange
from sweep.running.executor import Capacity, WorkerSettings
from sweep.running.ray_cluster import check_reachable, ray_session
from sweep.running.ray_deaths import Deaths, usable_nodes
from sweep.running.ray_environment import is_local, secrets_of_workers
from sweep.running.ray_nodes import Nodes, Slots, check_shared_storage, pack_memory_bytes, prepare_nodes
from sweep.running.ray_packs import Inert, PackScheduler, PackSearcher
from sweep.running.scratch import scratch_folder
from trainables.errors import Failure
from trainables.lm.card import ModelCard
from trainables.node.machine import check_device, check_local_device
from trainables.pack.trainable import PackTrainable

_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # `PackSearcher` hands out no more than there are slots
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

    ends_beside = True

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
    def session(self, storage: SweepStorage) -> Iterator[Capacity]:
        """Attach to the cluster, or start a Ray of our own and stop it at the end."""
        with ray_session(self._address) as nodes:
            check_device(self._settings.device, any(nodes.gpus))
            self._gpus = self._gpus_of_a_pack(nodes)
            self._attached = nodes.attached
            fitting = nodes.slots(self._resources.cpus, self._gpus)
            self._slots = min(fitting, self._resources.max_concurrent or fitting)
            if nodes.attached or not storage.is_local:
                check_shared_storage(storage)
            memory = partial(pack_memory_bytes, self._gpus, self._slots, only_here=not nodes.attached)
            yield Capacity(self._slots, self._gpus > 0, memory)

    def prepare(self, data: Sequence[tuple[str, bool]], cards: Sequence[ModelCard]) -> None:
        """Download onto every node of the cluster, all at once."""
        if self._attached:
            prepare_nodes(data, cards)
        else:
            download_models(cards)

    def run(self, exchange: PackExchange) -> None:
        """Run all packs in one Tune run."""
        os.environ.update(_TUNE_SETTINGS)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # its list of failed packs, which are told already
        settings = self._worker_settings()
        resources = {"cpu": self._resources.cpus, "gpu": self._gpus}
        with scratch_folder() as scratch:
            tuner = tune.Tuner(
                tune.with_resources(self._with_secrets(), resources),
                tune_config=tune.TuneConfig(
                    scheduler=PackScheduler(exchange, resources, slots := self._slots_now()),
                    search_alg=PackSearcher(exchange, settings, slots),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[ReportsCallback(exchange, resources, self._attached)],
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # but see `ReportsCallback`
                ),
            )
            with variables_kept_from_tune(all_of_them=not self._attached), _own_errors():
                tuner.fit()

    def _worker_settings(self) -> dict[str, Any]:
        """Return what a worker sets itself up with, as plain data.

        Without a GPU of its own it computes on the CPU: the machine's GPUs are there for it to see, and would be taken
        by every worker at a time.
        """
        device = self._settings.device
        return {
            "device": "cpu" if device == "auto" and not self._gpus else device,
            "threads": max(1, int(self._resources.cpus)),
            "cache_bytes": self._settings.cache_bytes,
            "spread_corpus": self._settings.spread_corpus,
            "gpu_share": min(1.0, self._gpus or 1.0),
        }

    def _slots_now(self) -> Callable[[], int]:
        """Return what says how many packs run at once: as nodes come and go, of a cluster; else as many as at first."""
        if not self._attached:
            return lambda: self._slots
        return Slots(self._resources.cpus, self._gpus, self._resources.max_concurrent)

    def _with_secrets(self) -> type[tune.Trainable]:
        """Return what runs a pack, the keys of storages given to its `setup`: a config is shown by the dashboard."""
        secrets = secrets_of_workers()
        return tune.with_parameters(self._trainable, secrets=secrets) if secrets else self._trainable

    def _gpus_of_a_pack(self, nodes: Nodes) -> float:
        if self._resources.gpus is not None:
            return self._resources.gpus
        return float(any(nodes.gpus) and self._settings.device != "cpu")


@contextmanager
def variables_kept_from_tune(all_of_them: bool) -> Iterator[None]:
    """Have Tune leave the keys of storages out of its processes' runtime environment, which Ray logs and shows.

    They reach the processes as values (`RayTune._with_secrets`).

    Args:
        all_of_them: leave out all others, too: processes of a Ray of our own inherit them, and without a runtime
            environment packs get the processes that Ray has anyhow (`inherited_environment`).
    """
    before = class_cache.ENV_VARS_TO_PROPAGATE, class_cache.DEFAULT_ENV_VARS
    hidden = secrets_of_workers()
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in before[0] if name not in hidden and not all_of_them}
    class_cache.DEFAULT_ENV_VARS = {} if all_of_them else before[1]
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE, class_cache.DEFAULT_ENV_VARS = before


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


def _let_go(trial: Any) -> None:
    """Drop what Tune keeps of a pack that has ended to the end of the sweep: its work and the course of its numbers."""
    trial.config.pop("work", None)
    trial.evaluated_params.clear()
    trial.last_result.pop("progress", None)
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()


class ReportsCallback(Inert, Callback):  # type: ignore[misc]
    """Passes on what packs report, and their ends.

    Args:
        exchange: hears of it.
        resources: of a pack, so that it can be said whether another node could run one.
        attached: whether the cluster was there before; to one of our own no node comes back.
    """

    def __init__(self, exchange: PackExchange, resources: dict[str, float], attached: bool) -> None:
        """Keep the parts."""
        self._exchange, self._resources, self._attached = exchange, resources, attached
        self._deaths = Deaths()
        self._told: dict[str, Failure] = {}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Pass on a report; a pack that is being stopped is told to keep its trials' checkpoints.

        One that ends by itself has none to keep: without the question its end costs a third less.
        """
        if self._exchange.stopping and not result.get("failure"):
            result[SHOULD_CHECKPOINT] = True
        if "progress" in result:
            pack = trial.config["pack"]
            self._deaths.hear(pack, result)
            if result.get("failure"):  # the next step of its process raises
                self._told[pack] = Failure.from_dict(result["failure"])
            self._exchange.report(pack, result)
            result.pop("curves", None)
            result["results"].clear()  # Tune keeps the last result of every pack, twice, to the end of the sweep

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Close a pack that is done, or has been stopped."""
        self._deaths.forget(trial.config["pack"])
        self._exchange.close(trial.config["pack"])
        _let_go(trial)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Pass on why a pack failed: as its process told, or what Ray knows of a process that is gone."""
        pack = trial.config["pack"]
        failure = self._told.pop(pack, None) or self._deaths.explain(pack, trial)
        self._deaths.forget(pack)
        nodes = usable_nodes(self._resources)
        self._exchange.fail(pack, failure, elsewhere=bool(nodes - self._exchange.left_out - {failure.node}))
        if not nodes and not self._attached:
            self._exchange.give_up("process: the Ray that this run started has died")
        _let_go(trial)

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        """Show progress."""
        self._exchange.show_progress()
