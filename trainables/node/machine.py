"""What a node has, and what the driver asks of it before trials run there."""

from __future__ import annotations

import os
import socket

from trainables.errors import ConfigError
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


def usable_cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_memory_bytes() -> float:
    """Return the memory of this process's GPU."""
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory)


def check_device(device: str, gpus: bool) -> None:
    """Refuse CUDA where there is none.

    Args:
        device: `auto`, `cpu` or `cuda`.
        gpus: whether any machine that would run trials has a GPU.

    Raises:
        ConfigError: there is none.
    """
    if device == "cuda" and not gpus:
        raise ConfigError("device='cuda': no machine here has a CUDA device; choose --device cpu, or auto")


def check_local_device(device: str) -> None:
    """Do the same for this machine.

    Raises:
        ConfigError: it has no CUDA device that torch can use.
    """
    if device == "cuda":
        import torch

        check_device(device, torch.cuda.is_available())
