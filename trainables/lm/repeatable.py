"""Gradients that are the same each time: on a GPU some kernels add up in whatever order they finish.

A worker asks for repeatable kernels wherever there are some (`prepare_process`). Flash attention's backward pass is
repeatable only where nothing else is allowed: with pythia-410m's shape, four texts of 1,024 tokens and an H100, four
times the same eight steps gave four results, and one where it was not allowed (torch 2.11). It cannot be forbidden
everywhere, since kernels of some models have no such form.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from trainables.errors import failure_kind

logger = logging.getLogger(__name__)

KINDS = ("cuda",)
"""Kinds of devices whose kernels may differ from time to time."""

T = TypeVar("T")
_refused: set[str] = set()
"""What could not be computed repeatably in this process, and is not tried again."""


def repeatably(what: str, device: torch.device, compute: Callable[[], T]) -> T:
    """Return what a call gives, computed by kernels that give the same each time; by others where one has no such form.

    Args:
        what: whose gradient it is: where one of its kernels has no such form, it is not asked for again.
        device: where it runs.
        compute: the call; it may be made twice, and the second must not depend on the first.
    """
    if device.type not in KINDS or what in _refused:
        return compute()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    was_on = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        return compute()
    except RuntimeError as error:
        if failure_kind(error) == "memory":
            raise
        told = str(error).partition("\n")[0]
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=warn_only)
    result = compute()  # what is wrong in any case is wrong again
    _refused.add(what)
    logger.warning("%s: on this device its results differ a little from time to time: %s", what, told)
    return result
