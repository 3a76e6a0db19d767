"""Waiting for a disk, a storage or a network that does not answer for a moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from trainables.errors import failure_kind

PATIENCE_VARIABLE = "MEMORY_SWEEP_IO_PATIENCE_S"
PATIENCE_S = 20.0
"""How long one reading or writing is tried again; an object store's own client has tried for a while before."""
LONGEST_WAIT_S = 5.0

P = ParamSpec("P")
T = TypeVar("T")


def patiently(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call, and call again with growing pauses while it fails for reasons of input and output.

    The call must be one that may be repeated: a whole file written or read.

    Raises:
        Exception: what the last call raised, once `MEMORY_SWEEP_IO_PATIENCE_S` (20) seconds are over; anything but a
            failure of input or output at once.
    """
    patience_s = float(os.environ.get(PATIENCE_VARIABLE) or PATIENCE_S)
    tries = Retrying(
        retry=retry_if_exception(_is_io),
        wait=wait_random_exponential(multiplier=0.2, max=LONGEST_WAIT_S),
        stop=stop_after_delay(patience_s),
        reraise=True,
    )
    return tries(call, *args, **kwargs)


def _is_io(error: BaseException) -> bool:
    return failure_kind(error) == "io"
