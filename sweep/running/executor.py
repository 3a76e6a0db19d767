"""The seam between a sweep and what executes its packs: Ray Tune, or this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from sweep.records.sweep_storage import SweepStorage
from sweep.running.exchange import PackExchange
from trainables.lm.card import ModelCard


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker process is set up with.

    Attributes:
        device: auto, cpu or cuda.
        cache_bytes: limit of a node's cache of hidden states; None for half of the disk (`HiddenCache`).
        spread_corpus: have Ray Data tokenise and hash large corpora on all nodes.
    """

    device: str = "auto"
    cache_bytes: int | None = None
    spread_corpus: bool = False


@dataclass(frozen=True)
class Capacity:
    """What an executor offers.

    Attributes:
        slots: packs that run at once.
        on_gpu: whether a pack computes on a GPU.
        pack_memory_bytes: says how much memory of its device one pack has; may ask a worker, so it takes seconds.
    """

    slots: int
    on_gpu: bool
    pack_memory_bytes: Callable[[], float]


class Executor(Protocol):
    """Runs packs and reports.

    Of one executor, `check` is called first, then `session` entered, and within it `prepare` and `run`, once for each
    sweep.

    Who owns what: the executor owns processes, devices and the order in which ready packs start; the exchange owns
    every record, choice and file of the sweep. Checkpoints are the trials' own files, written by the worker. An
    executor keeps no state that outlives `run`.

    Ordering: the exchange is called from the thread that called `run`, and from no other. A pack is taken with
    `next_pack` when there is a free slot for it; its reports follow in the order of its steps, none left out; `close`
    or `fail` is called once, after the last of them. A step begins only after `report` has returned from the one
    before: who leaves the pack and who joins it is in its orders file by then. While a pack is under way,
    `show_progress` is called at least after each report.

    Ends: `run` returns when `over` holds and every pack taken is closed. When a sweep is stopped (`stopping`, or the
    stop file), packs under way end after their epoch with a checkpoint and without results; they are closed without an
    error, and `run` returns. A trial that is taken up again goes on from its checkpoint.

    Failures: a trial's own (`trainables.errors.OWN_KINDS`) is its result, and the other trials go on. Any other ends
    the pack: it is told by `fail` instead of `close`, with its class, machine and reason as far as they can be known;
    its process takes no further pack, and whether and when its trials are tried again is the exchange's matter; they
    come as packs of their own, and are not run on the nodes of `avoid` or `left_out` while there are others. An
    executor retries nothing by itself. `KeyboardInterrupt` passes through at once; so does what the exchange raises (a
    storage that cannot be written). Nothing else is raised by `run`.
    """

    @property
    def ends_beside(self) -> bool:
        """Whether a session may be left by another thread than the one that entered it, and takes a while to leave."""
        ...

    def check(self) -> None:
        """Refuse what cannot work before anything is prepared.

        Raises:
            ConfigError: what is asked for is not there.
        """
        ...

    def session(self, storage: SweepStorage) -> AbstractContextManager[Capacity]:
        """Make ready what runs packs, for the time of a `with` block.

        Raises:
            ConfigError: on entering: it cannot be started, or does not reach the storage.
        """
        ...

    def prepare(self, data: Sequence[tuple[str, bool]], cards: Sequence[ModelCard]) -> None:
        """Download what the packs need to every machine on which they may run, before the first of them.

        Args:
            data: sources, each with whether missing pages are allowed; this process has read them already.
            cards: hub models, at their commits.

        Raises:
            ConfigError: a download that fails; the machine is named.
        """
        ...

    def run(self, exchange: PackExchange) -> None:
        """Run packs until there are no more, or the sweep is stopped."""
        ...
