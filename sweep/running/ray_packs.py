"""What Tune asks for packs: a searcher that hands them out and a scheduler that keeps their order and processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweep.running.exchange import PackExchange
from sweep.running.ray_deaths import usable_nodes

KEPT_S = 60.0
"""How long processes wait for packs: several times what a start takes here (10 s), so that a choice between stages is
bridged, and short beside the trials of a real model (ours)."""


class Inert:
    """Left out of Tune's snapshots, which hold locks and threads otherwise and are never restored."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing."""
        return {}


class PackSearcher(Inert, Searcher):  # type: ignore[misc]
    """Gives Tune the packs as they become ready.

    Args:
        exchange: hands them out.
        settings: device, threads and cache of a worker.
        slots: says how many packs may run at once now; Tune itself asks only for its number at the start.
    """

    def __init__(self, exchange: PackExchange, settings: dict[str, Any], slots: Callable[[], int]) -> None:
        """Keep the parts."""
        super().__init__()
        self._exchange, self._settings, self._slots = exchange, settings, slots
        self._under_way: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next pack's config, None to be asked again, or that the sweep is over."""
        full = len(self._under_way) >= self._slots()
        pack = None if full else self._exchange.next_pack()
        if pack is None:
            if not self._under_way:  # Tune asks for packs and nothing else until there is one: it ends no step
                self._exchange.show_progress()
            return str(Searcher.FINISHED) if self._exchange.over else None
        self._under_way.add(trial_id)
        work = json.dumps({**pack.job, "settings": self._settings})
        return {"pack": pack.id, "work": work, "avoid": sorted(pack.avoid)}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Take note of a free slot; the callback tells the rest."""
        self._under_way.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the state is in the records."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the state is in the records."""


class KeptProcesses:
    """Has Tune keep a process for each slot while it waits for packs.

    Tune keeps one of those that are free while it knows of no further pack, and ends the others; between two stages,
    where the next packs come a moment later, each of these would have to import, load the model and compute hidden
    states again. Tune has no setting for that: the number that it keeps is a private one of its controller.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Keep none yet."""
        self._now, self._since = now, 0.0
        self._cache: Any = None
        self._resources: Any = None
        self._number = 0

    def for_next(self, controller: Any, resources: Any, number: int) -> None:
        """Keep as many processes as there are slots, now that a pack has come.

        Packs that ask for other resources (kept off a node) find none that were kept in their way.
        """
        self._since = self._now()
        self._cache = controller._tune_controller._actor_cache
        if resources != self._resources:
            self.none()
            self._resources = resources
        self._cache.increase_max(resources, number - self._number)
        self._number = number

    def look(self) -> None:
        """Let go of processes that no pack has come for in a while: they hold CPUs and GPUs that others may want."""
        if self._number and self._now() - self._since > KEPT_S:
            self.none()

    def none(self) -> None:
        """Keep no more than Tune does by itself."""
        if self._number:
            self._cache.decrease_max(self._resources, self._number)
        self._number = 0


class PackScheduler(Inert, FIFOScheduler):  # type: ignore[misc]
    """Runs packs in their order, where they may run, and stops them all after an epoch once the sweep is stopping.

    The workers hear of that by the stop file, which cannot always be written. Who is to leave a pack early, or to join
    it, they hear by its orders file, which is there before Tune has them take the next step: it does so after the
    callback has taken in the last report.

    Args:
        exchange: says whether the sweep is stopping.
        resources: of a pack.
        slots: says how many packs may run at once now.
    """

    def __init__(self, exchange: PackExchange, resources: dict[str, float], slots: Callable[[], int]) -> None:
        """Keep the parts."""
        super().__init__()
        self._exchange, self._resources, self._slots = exchange, resources, slots
        self._kept = KeptProcesses()

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """Keep a pack off the nodes that are left out or where it failed, while there are others."""
        super().on_trial_add(controller, trial)
        self._keep_off(trial)
        self._kept.for_next(controller, trial.placement_group_factory, self._slots())

    def _keep_off(self, trial: Any) -> None:
        nodes = usable_nodes(self._resources) if trial.config["avoid"] else frozenset()
        for avoided in (frozenset(trial.config["avoid"]), self._exchange.left_out):
            if avoided & nodes and nodes - avoided:
                trial.update_resources(_elsewhere(self._resources, avoided & nodes))
                return

    def choose_trial_to_run(self, controller: Any) -> None:
        """Leave the order to Tune's own queue, which is that of the packs.

        The base class names the oldest pack that waits. Tune would give it any process that has just become free, and
        end the one that is being started for it: where packs are shorter than a start, no further process would ever
        come up.
        """
        self._kept.look()

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide on a pack after an epoch; `result` is Tune's flat form of a report."""
        if self._exchange.stopping and result.get("epoch") and not result.get("failure"):
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)


def _elsewhere(resources: dict[str, float], nodes: frozenset[str]) -> tune.PlacementGroupFactory:
    """Return a request for a pack's resources on other nodes than these."""
    bundle = {name.upper(): amount for name, amount in resources.items() if amount}
    selector = {"ray.io/node-id": f"!in({', '.join(sorted(nodes))})"}
    return tune.PlacementGroupFactory([bundle or {"CPU": 0.0}], bundle_label_selector=[selector])
