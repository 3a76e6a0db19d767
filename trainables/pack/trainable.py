"""The Ray Tune trainable: one Tune trial is one pack; one step is one epoch.

The process is reused from pack to pack (`reset_config`), so the frozen model stays loaded. Checkpoints are the
trials' own files, not Tune's: a trial that is started again, by the driver or by a later run, finds its own.

A process that failed for a reason that is no trial's own is not reused: it reports the failure, and the next step
raises, whereupon Tune gives it up. Trouble in its setup is reported in this way, too: an exception tells less.

The driver passes this class to Tune and runs nothing of it: torch and transformers are imported in the process that
works, and take no time of the driver's start.
"""

from __future__ import annotations

import gc
import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from trainables.errors import Failure, SweepError
from trainables.lm.node_inputs import prepare_node
from trainables.node.addresses import shown
from trainables.node.machine import oom_kills
from trainables.node.map_batches import map_here
from trainables.node.storage import StorageError, exists
from trainables.pack.ray_data_map import RayDataMap
from trainables.trial.making import make_spec

if TYPE_CHECKING:
    from trainables.pack.process_cache import ProcessCache
    from trainables.pack.worker import PackWork


class ProcessGivenUp(SweepError):
    """Raised by a process that has reported why it cannot go on."""

    kind = "process"


class PackTrainable(tune.Trainable):  # type: ignore[misc]
    """Runs the packs it is given.

    `config` holds `pack` (an id) and `work`: JSON text of `trials`, `trunk_layers`, `settings`, …, one value so that
    Tune does not take it for hundreds of hyperparameters.
    """

    _failure: Failure | None
    _given_up: bool

    def setup(self, config: dict[str, Any], secrets: Mapping[str, str] | None = None) -> None:
        """Prepare the process and queue the first pack.

        Args:
            config: of the pack.
            secrets: variables to set: the keys of storages, whose addresses in the config are without them.
        """
        os.environ.update(secrets or {})
        self._work: PackWork | None = None
        self._cache: ProcessCache | None = None
        self._device = ""
        self._guarded(lambda: self._start(json.loads(config["work"])))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another pack in the same process."""
        self._guarded(lambda: self._take_on(json.loads(new_config["work"])))
        return True

    def step(self) -> dict[str, Any]:
        """Return one epoch's report.

        Raises:
            ProcessGivenUp: the last report told of a failure.
        """
        if self._given_up:
            raise ProcessGivenUp(self._failure.message if self._failure else "")
        report: dict[str, Any] = {
            "epoch": 0,
            "progress": {},
            "epochs": {},
            "curves": {},
            "results": [],
            "notes": [],
            "failure": None,
            "done": False,
        }
        if self._failure is None:
            assert self._work is not None
            report = self._work.step()
        else:
            report["failure"] = self._failure.to_dict()
        from trainables.pack.worker import told_of

        context = ray.get_runtime_context()
        if report["failure"]:
            self._failure = Failure.from_dict({**report["failure"], "node": context.get_node_id()})
            self._given_up, self._work = True, None
            report |= {"failure": self._failure.to_dict(), "done": False}
        report |= {**told_of(self._device), "node": context.get_node_id(), "oom_kills": oom_kills()}
        return report

    def cleanup(self) -> None:
        """Keep what has been trained when the trial is stopped before its end."""
        if self._work is not None:
            self._work.keep()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trials' own checkpoints; Tune's folder stays empty."""
        if self._work is not None:
            self._work.checkpoint()

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing: a pack finds its trials' own checkpoints when it starts."""

    def _guarded(self, begin: Callable[[], None]) -> None:
        """Begin with a pack; what goes wrong is told by the next step."""
        self._failure, self._given_up = None, False
        try:
            begin()
        except Exception as error:
            from trainables.pack.worker import failure_of

            self._failure = failure_of(error, self._device)

    def _start(self, work: dict[str, Any]) -> None:
        """Set the process up.

        While it imports no garbage is collected, which takes a fifth of the time and finds none; what is imported
        stays and is left out afterwards: each load of weights collects, and took 0.1 s more with it.
        """
        gc.disable()
        try:
            import transformers

            from trainables.pack.process_cache import ProcessCache
            from trainables.pack.worker import choose_device, device_name, prepare_process
        finally:
            gc.freeze()
            gc.enable()
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        if not exists(work["plan_file"]):  # a node that joined late: the others have been asked before
            where = shown(work["plan_file"])
            raise StorageError(f"{where}: {socket.gethostname()} does not see it; all nodes must share the storage")
        settings = work["settings"]
        device = choose_device(settings["device"])
        self._device = device_name(device)
        prepare_process(device, settings["threads"], settings["gpu_share"])
        self._cache = ProcessCache(
            device, settings["cache_bytes"], RayDataMap() if settings["spread_corpus"] else map_here
        )
        self._take_on(work)

    def _take_on(self, work: dict[str, Any]) -> None:
        """Queue a pack; a node that joined late downloads now what the others have, not within a trial's time."""
        assert self._cache is not None
        self._work = None
        self._work = self._make_work(work, self._cache)
        spec = make_spec(work["trials"][0]["spec"])
        cards = [self._cache.card(spec)]
        prepare_node([(spec.data, spec.allow_missing_pages)], cards)  # what is wrong comes up again in the trial

    def _make_work(self, work: dict[str, Any], cache: ProcessCache) -> PackWork:
        from trainables.pack.worker import PackWork

        return PackWork(work, cache)
