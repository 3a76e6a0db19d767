"""What a node has, and what the driver asks of it before trials run there."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from trainables.node.storage import delete, read_bytes, write_bytes


def check_storage(file: str, token: str) -> str:
    """Read what the driver wrote into a file and write beside it; return what is wrong, or an empty string."""
    try:
        if read_bytes(file).decode() != token:
            return "it reads something else there"
        write_bytes(f"{file}-{socket.gethostname()}", b"")
        delete(f"{file}-{socket.gethostname()}")
    except OSError as error:
        return str(error)
    return ""


def with_secrets(secrets: Mapping[str, str], function: Callable[..., Any], *given: Any) -> Any:
    """Set variables in this process and call a function.

    As the argument of a task they reach a node without standing in the job's or a trial's description, which the
    cluster shows to everybody.
    """
    os.environ.update(secrets)
    return function(*given)


def usable_cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_memory_bytes() -> float:
    """Return the memory of this process's GPU."""
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory)
