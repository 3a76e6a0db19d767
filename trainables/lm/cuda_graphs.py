"""Calls recorded as CUDA graphs: their kernels are launched at once, and read and write the same places each time."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Pass = Callable[[], Tensor]

_alive: weakref.WeakSet[CudaGraphs] = weakref.WeakSet()


def pool_bytes() -> int:
    """Return what recordings of this process hold of its GPU; torch says that it is reserved, not that it is taken."""
    return sum(graphs.pool_bytes for graphs in _alive)


class CudaGraphs:
    """Records calls as CUDA graphs, whose memory is shared: of two recordings only one is between its two calls.

    Attributes:
        pool_bytes: what they hold of the GPU.
    """

    def __init__(self) -> None:
        """Record nothing yet."""
        self._pool: Any = None
        self.pool_bytes = 0
        _alive.add(self)

    def __call__(self, forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
        """Return what replays two calls, of which the second needs what the first has kept."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):  # libraries set themselves up in the first calls, which cannot be recorded
                forward()
                backward()
        torch.cuda.current_stream().wait_stream(aside)
        return self._replay(forward), self._replay(backward)

    def _replay(self, call: Pass) -> Pass:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        # threads that look at the GPU's memory meanwhile are not in the way
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = call()
        self.pool_bytes += max(0, torch.cuda.memory_reserved() - before)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
