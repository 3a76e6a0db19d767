"""Numbers on their way from the host to a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sent(values: NDArray[Any] | Sequence[int] | Tensor, device: torch.device) -> Tensor:
    """Return numbers of the host as a tensor on a device; the host does not wait until they are there.

    From memory that can be swapped out a copy waits for all that the device has to do before, so it goes through
    pinned memory, which torch keeps for the next ones.
    """
    found = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    return found if device.type == "cpu" else found.pin_memory().to(device, non_blocking=True)
