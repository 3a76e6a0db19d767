"""What a node has, and what the driver asks of it before trials run there."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainables.errors import ConfigError
from trainables.node.storage import delete, join, read_bytes, write_bytes

_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""One of these is there where Linux has a driver of a GPU that torch calls CUDA: NVIDIA's, AMD's, or that of WSL."""


def check_storage(storage: str, name: str, text: str) -> str:
    """Read what the driver wrote into a file of a storage and write beside it.

    Args:
        storage: its address.
        name: of the file.
        text: what must be in it.

    Returns:
        What is wrong, or an empty string.
    """
    beside = join(storage, f"{name}-{uuid.uuid4().hex[:8]}")
    try:
        if read_bytes(join(storage, name)).decode() != text:
            return "it reads something else there"
        write_bytes(beside, b"")
        delete(beside)
    except (OSError, ConfigError) as error:
        return str(error)
    return ""


def with_secrets(secrets: Mapping[str, str], function: Callable[..., Any], *given: Any) -> Any:
    """Set variables in this process and call a function.

    As the argument of a task they reach a node without standing in the job's or a trial's description, which the
    cluster shows to everybody.
    """
    os.environ.update(secrets)
    return function(*given)


def oom_kills() -> int:
    """Return how many processes of this machine, or container, the kernel has ended for want of memory; 0 if unknown.

    What changes tells of a process that was killed without a word whether this was why.
    """
    found = 0
    for path, name in (("/proc/vmstat", "oom_kill"), ("/sys/fs/cgroup/memory.events", "oom_kill")):
        with suppress(OSError, ValueError):
            for line in Path(path).read_text(encoding="ascii").splitlines():
                if line.split()[:1] == [name]:
                    found += int(line.split()[1])
    return found


def usable_cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_memory_bytes() -> float:
    """Return the memory of this process's GPU."""
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory)


def machine_memory_bytes() -> float:
    """Return this machine's memory."""
    import psutil

    return float(psutil.virtual_memory().total)


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


def may_have_gpu() -> bool:
    """Say whether this machine has the driver of a GPU, without loading torch; True where that cannot be seen."""
    return sys.platform != "linux" or any(map(os.path.exists, _GPU_FILES))


def check_local_device(device: str) -> None:
    """Do the same for this machine.

    Raises:
        ConfigError: it has no CUDA device that torch can use.
    """
    if device == "cuda":
        check_device(device, may_have_gpu())  # at once: torch takes seconds to load
        import torch

        check_device(device, torch.cuda.is_available())
