"""The Ray Tune trainable: one Tune trial is one pack; one step is one epoch.

The process is reused from pack to pack (`reset_config`), so the frozen model stays loaded. Checkpoints are the
trials' own files, not Tune's: a trial that is started again, by Tune or by a later run, finds its own.
"""

from __future__ import annotations

import json
from typing import Any

import ray
from ray import tune

from trainables.lm.inputs import prepare_node
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork, choose_device, library_versions, prepare_process
from trainables.trial.spec import make_spec


class PackTrainable(tune.Trainable):  # type: ignore[misc]
    """Runs the packs it is given.

    `config` holds `pack` (an id) and `work`: JSON text of `trials`, `trunk_layers` and `settings`, one value so that
    Tune does not take it for hundreds of hyperparameters.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare the process and queue the first pack."""
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        work = json.loads(config["work"])
        settings = work["settings"]
        device = choose_device(settings["device"])
        prepare_process(device, settings["threads"])
        self._cache = ProcessCache(device, settings["cache_bytes"])
        self._take_on(work)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another pack in the same process."""
        self._take_on(json.loads(new_config["work"]))
        return True

    def _take_on(self, work: dict[str, Any]) -> None:
        """Queue a pack; a node that joined late downloads now what the others have, not within a trial's time."""
        self._work = PackWork(work, self._cache)
        spec = make_spec(work["trials"][0]["spec"])
        cards = [self._cache.card(spec)]
        prepare_node([(spec.data, spec.allow_missing_pages)], cards)  # what is wrong comes up again in the trial

    def step(self) -> dict[str, Any]:
        """Return one epoch's report."""
        report = self._work.step()
        report |= {"versions": library_versions(), "node": ray.get_runtime_context().get_node_id()}
        return report

    def cleanup(self) -> None:
        """Keep what has been trained when the trial is stopped before its end."""
        self._work.checkpoint()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trials' own checkpoints; Tune's folder stays empty."""
        self._work.checkpoint()

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing: a pack finds its trials' own checkpoints when it starts."""
