"""Packs one after the other in this process: for debugging, notebooks and tests. Imports no Ray.

Breakpoints and prints in a trial's code work as in any program. There is one pack at a time, on the first device. What
ends the process (the system, for want of memory; a fault in a library) ends the sweep; the same command continues it.
After a failure that is no trial's own, all that this process has loaded is dropped and loaded again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sweep.planning.inputs import download_models
from sweep.records.sweep_storage import SweepStorage
from sweep.running.exchange import HandedPack, PackExchange
from sweep.running.executor import Capacity, WorkerSettings
from trainables.errors import Failure
from trainables.lm.card import ModelCard
from trainables.node.machine import check_local_device

_WAIT_S = 0.5


class InProcess:
    """The executor `local`; see `sweep.running.executor.Executor` for the contract.

    Args:
        settings: device and cache.
        threads: torch's threads on a CPU; None leaves them as this process has them.
    """

    ends_beside = False  # torch's number of threads is each thread's own

    def __init__(self, settings: WorkerSettings, threads: int | None = None) -> None:
        """Keep the settings; nothing is loaded before `session`."""
        self._settings, self._threads = settings, threads
        self._cache: Any = None
        self._device: Any = None

    def check(self) -> None:
        """Refuse a device that this machine has not got."""
        check_local_device(self._settings.device)

    @contextmanager
    def session(self, storage: SweepStorage) -> Iterator[Capacity]:
        """Set this process up as a worker; what it loads is kept from pack to pack and dropped at the end."""
        import torch
        import transformers

        from trainables.pack.worker import choose_device, prepare_process

        device = self._device = choose_device(self._settings.device)
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        before = torch.get_num_threads()
        prepare_process(device, self._threads or before)
        self._cache = self._new_cache()
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
        while (pack := exchange.next_pack()) is not None or not exchange.over:
            if pack is None:  # what is left, another sweep is running, or it waits for another try
                exchange.show_progress()
                time.sleep(_WAIT_S)
                continue
            self._run_and_tell(pack, exchange)

    def _run_and_tell(self, pack: HandedPack, exchange: PackExchange) -> None:
        failure = self._run_pack(pack, exchange)
        if failure is None:
            exchange.close(pack.id)
        else:
            self._cache = None
            self._cache = self._new_cache()
            exchange.fail(pack.id, failure)

    def _new_cache(self) -> Any:
        from trainables.pack.process_cache import ProcessCache

        return ProcessCache(self._device, self._settings.cache_bytes)

    def _run_pack(self, pack: HandedPack, exchange: PackExchange) -> Failure | None:
        """Run a pack to its end; return what ended it before its time, if something did."""
        from trainables.pack.worker import PackWork, device_name, told_of

        work = PackWork(pack.job, self._cache)
        done = False
        failure = None
        while not done:
            report = work.step()
            done = report["done"]
            failure = report["failure"]
            exchange.report(pack.id, {**report, **told_of(device_name(self._device)), "node": ""})
            exchange.show_progress()
            if exchange.stopping and not done:
                done = True
                with suppress(OSError):  # the storage may be why
                    work.checkpoint()
        return Failure.from_dict(failure) if failure else None


def _memory_bytes(on_gpu: bool) -> float:
    if on_gpu:
        from trainables.node.machine import gpu_memory_bytes

        return gpu_memory_bytes()
    import psutil

    return float(psutil.virtual_memory().total) / 2
