"""Which weights of frozen models a process holds on its device: every load asks here, and what must go goes first.

At 7 billion parameters the blocks above a memory and the whole model are 17 to 25 GB together. So what is not wanted
any more is dropped before the next is loaded, never after.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from trainables.lm.card import ModelCard
from trainables.lm.placement import MEMORY_SHARE, free_bytes, free_memory

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class _Held:
    """Some weights, the model that they are of, and the block above which they are; None for a whole model."""

    model: Hashable
    layer: int | None
    num_bytes: float
    value: Any


class WeightBudget:
    """The weights that are held, by part (`upper`, `whole`): the latest of each.

    Whoever loads some says first which model and block it is about to work on (`turn_to`), and then how many bytes it
    will load (`make_room`). What is kept for its next use does both itself (`hold`); what is used and dropped at once
    (trunk, the whole model as a reference) is not held here.

    Args:
        device: where the weights are.
    """

    def __init__(self, device: torch.device) -> None:
        """Hold nothing."""
        self._device = device
        self._held: dict[str, _Held] = {}

    @property
    def held(self) -> dict[str, float]:
        """The bytes of what is held, by part."""
        return {part: held.num_bytes for part, held in self._held.items()}

    def turn_to(self, card: ModelCard, dtype: torch.dtype, layer: int | None = None) -> None:
        """Drop what is held of other models and, given a block, of the same one above other blocks."""
        model = _model(card, dtype)
        stale = [
            part for part, held in self._held.items()
            if held.model != model or (layer is not None and held.layer not in (None, layer))
        ]  # fmt: skip
        for part in stale:
            logger.info("%s: dropped, %s is next", part, card.name)
            del self._held[part]
        if stale:
            free_memory(self._device)  # an adapter that is over holds weights until its circles are collected

    def make_room(self, num_bytes: float) -> None:
        """Drop what is held and used by nobody as long as so many bytes do not fit, the longest unused first."""
        if self._fits(num_bytes):
            return
        free_memory(self._device)
        for part in list(self._held):
            if self._fits(num_bytes):
                return
            held = self._held.pop(part)
            alive = weakref.ref(held.value)
            held.value = None
            free_memory(self._device)
            held.value = alive()
            if held.value is not None:  # it is in use, which nothing here can change
                self._held[part] = held
            else:
                logger.info("%s: dropped, to make room for %.3g GB", part, num_bytes / 1e9)

    def hold(
        self,
        part: str,
        card: ModelCard,
        dtype: torch.dtype,
        num_bytes: float,
        make: Callable[[], T],
        layer: int | None = None,
    ) -> T:
        """Return what is held of a part, or make room, make it and hold it.

        Args:
            part: what it is.
            card: of which model.
            dtype: of its numbers.
            num_bytes: that it takes.
            make: loads it.
            layer: above which block it is; None for a whole model.
        """
        self.turn_to(card, dtype, layer)
        held = self._held.pop(part, None)
        if held is None:
            self.make_room(num_bytes)
            held = _Held(_model(card, dtype), layer, num_bytes, make())
        self._held[part] = held
        found: T = held.value
        return found

    def _fits(self, num_bytes: float) -> bool:
        return num_bytes <= MEMORY_SHARE * free_bytes(self._device)


def part_bytes(card: ModelCard, dtype: torch.dtype, blocks: int) -> float:
    """Return the bytes of so many blocks and of embedding or head."""
    return float(dtype.itemsize * (card.block_params * blocks + card.head_params))


def model_bytes(card: ModelCard, dtype: torch.dtype) -> float:
    """Return the bytes of a whole model."""
    return float(dtype.itemsize * card.params)


def _model(card: ModelCard, dtype: torch.dtype) -> Hashable:
    return card.key, dtype
