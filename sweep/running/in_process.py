"""Packs one after the other in this process: for debugging, notebooks and tests. Imports no Ray.

Breakpoints and prints in a trial's code work as in any program. There is one pack at a time, on the first device. What
ends the process (the system, for want of memory; a fault in a library) ends the sweep; the same command continues it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sweep.planning.inputs import download_models
from sweep.records.store import Store
from sweep.running.exchange import HandedPack, PackExchange
from sweep.running.executor import Capacity, WorkerSettings
from trainables.lm.card import ModelCard
from trainables.node.machine import check_local_device


class InProcess:
    """The executor `local`; see `sweep.running.executor.Executor` for the contract.

    Args:
        settings: device and cache.
        threads: torch's threads on a CPU; None leaves them as this process has them.
    """

    def __init__(self, settings: WorkerSettings, threads: int | None = None) -> None:
        """Keep the settings; nothing is loaded before `session`."""
        self._settings, self._threads = settings, threads
        self._cache: Any = None

    def check(self) -> None:
        """Refuse a device that this machine has not got."""
        check_local_device(self._settings.device)

    @contextmanager
    def session(self, store: Store) -> Iterator[Capacity]:
        """Set this process up as a worker; what it loads is kept from pack to pack and dropped at the end."""
        import torch
        import transformers

        from trainables.pack.process_cache import ProcessCache
        from trainables.pack.worker import choose_device, prepare_process

        device = choose_device(self._settings.device)
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        before = torch.get_num_threads()
        prepare_process(device, self._threads or before)
        self._cache = ProcessCache(device, self._settings.cache_bytes)
        try:
            yield Capacity(1, device.type == "cuda", lambda: _memory_bytes(device.type == "cuda"))
        finally:
            self._cache = None
            torch.set_num_threads(before)

    def prepare(self, data: Sequence[tuple[str, bool]], cards: Sequence[ModelCard]) -> None:
        """Download models onto this machine; the data are here."""
        download_models(cards)

    def run(self, exchange: PackExchange) -> None:
        """Run pack after pack."""
        while (pack := exchange.next_pack()) is not None:
            self._run_pack(pack, exchange)
            exchange.close(pack.id)

    def _run_pack(self, pack: HandedPack, exchange: PackExchange) -> None:
        from trainables.pack.worker import PackWork, library_versions

        work = PackWork(pack.job, self._cache)
        done = False
        while not done:
            report = work.step()
            done = report["done"]
            if pack.sampled and not done:
                metrics = report["progress"].get(pack.sampled, {})
                done = exchange.falls_behind(pack.sampled, report["epoch"], metrics)
            exchange.report(pack.id, {**report, "versions": library_versions(), "node": ""})
            exchange.show_progress()


def _memory_bytes(on_gpu: bool) -> float:
    if on_gpu:
        from trainables.node.machine import gpu_memory_bytes

        return gpu_memory_bytes()
    import psutil

    return float(psutil.virtual_memory().total) / 2
