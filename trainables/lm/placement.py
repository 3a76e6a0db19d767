"""Where the weights of a model, or of a part of it, go: the device, or what does not fit it the host's memory."""

from __future__ import annotations

import gc
from typing import Any

import psutil
import torch

from trainables.lm.card import ModelCard
from trainables.lm.cuda_graphs import pool_bytes

MEMORY_SHARE = 0.85
"""Share of the free memory that weights may take; the rest is for activations."""


def free_bytes(device: torch.device) -> float:
    """Return the bytes that are free for this process on a device: of a GPU, what its own share of it leaves.

    What torch keeps for the next tensors is free; what recorded passes keep is not.
    """
    if device.type != "cuda":
        return float(psutil.virtual_memory().available)
    index = torch.cuda.current_device() if device.index is None else device.index
    free, total = torch.cuda.mem_get_info(index)
    share = torch.cuda.get_per_process_memory_fraction(index)
    allocated, recorded = torch.cuda.memory_allocated(index), pool_bytes()
    cached = max(0, torch.cuda.memory_reserved(index) - allocated - recorded)
    return float(min(free + cached, share * total - allocated - recorded))


def placement(
    card: ModelCard, dtype: torch.dtype, device: torch.device, blocks: int | None = None, head: bool = True
) -> dict[str, Any]:
    """Return the arguments that tell `from_pretrained` where weights go.

    Args:
        card: the model.
        dtype: of its weights.
        device: where it runs.
        blocks: how many blocks are loaded; None for all.
        head: whether embedding and head are both loaded, rather than one of them.
    """
    if device.type != "cuda":
        return {"device_map": {"": device}}
    index = torch.cuda.current_device() if device.index is None else device.index
    room = int(MEMORY_SHARE * free_bytes(device))
    ends = card.head_params * (2 if head and not card.tied else 1)
    if ((card.num_blocks if blocks is None else blocks) * card.block_params + ends) * dtype.itemsize <= room:
        return {"device_map": {"": index}}
    host = int(MEMORY_SHARE * psutil.virtual_memory().available)
    return {"device_map": "auto", "max_memory": {index: room, "cpu": host}}


def blocks_fit(card: ModelCard, count: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Say whether some blocks fit the free memory of a GPU; elsewhere they do."""
    if device.type != "cuda":
        return True
    return count * card.block_params * dtype.itemsize <= MEMORY_SHARE * free_bytes(device)


def free_memory(device: torch.device) -> None:
    """Give back what nobody holds any more, to other processes on the same GPU too."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
