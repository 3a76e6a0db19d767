"""Counts of the operations of a step that are kernels on a GPU, by torch's profiler, without a GPU.

Counted are the innermost operations of ATen but those that only describe memory (views, new tensors that are not
filled). A fused operation counts once, whatever it does inside on a CPU. A GPU may launch more for one operation (a
sort has several kernels), and fewer never.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from trainables.adapters.optimiser import PackOptimiser
from trainables.lm import attention, head_loss
from trainables.pack.worker import prepare_process

NO_KERNEL = frozenset(
    "empty empty_like empty_strided new_empty new_empty_strided resize_ set_ view _unsafe_view as_strided reshape "
    "_reshape_alias view_as flatten unflatten t transpose permute expand expand_as slice select narrow squeeze "
    "unsqueeze detach detach_ alias unbind split split_with_sizes chunk movedim numpy_T mT T unfold result_type "
    "promote_types resolve_conj resolve_neg lift_fresh dropout to _to_copy".split()
)
"""Operations that launch nothing themselves; what is computed inside one counts by itself. Dropout is that of a model
that is not trained."""
FUSED = ("_scaled_dot_product", "_fused_adamw_", "native_layer_norm")
"""Beginnings of the names of operations that are kernels of their own, whatever a CPU makes of them."""
SOURCES = {
    "optimiser": ("PackOptimiser", "Optimizer.step", "clip_grad"),
    "head": ("_TokenNLL",),
    "rotary": ("_Rotate",),
    "places": ("_Take",),
    "attention": ("scaled_dot_product", "ScaledDotProduct"),
    "norms": ("native_layer_norm", "NativeLayerNorm"),
    "products": ("addmm", "aten::mm", "bmm"),
    "fills": ("aten::fill_", "aten::zero_"),
}
"""What tells where an operation belongs: part of its own name, or of one it is called from; the first counts."""


def launches(run: Callable[[], object]) -> Counter[str]:
    """Return how many kernel-like operations a call makes, by source; `rest` is what none of `SOURCES` names."""
    with patch.object(PackOptimiser, "step", _named("PackOptimiser", PackOptimiser.step)):
        with profile(activities=[ProfilerActivity.CPU], acc_events=True) as found:
            run()
    counts: Counter[str] = Counter()
    for event in found.events() or ():
        if _is_kernel(event):
            names = list(_chain(event))
            told = (name for name, words in SOURCES.items() if any(word in one for one in names for word in words))
            counts[next(told, "rest")] += 1
    return counts


def _named(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def inside(*args: Any, **kwargs: Any) -> Any:
        with torch.profiler.record_function(name):
            return call(*args, **kwargs)

    return inside


def _chain(event: Any) -> Iterator[str]:
    while event is not None:
        yield event.name
        event = event.cpu_parent


def _counts(event: Any) -> bool:
    """Say whether an event is an operation that is not only a description of memory."""
    return event.name.startswith("aten::") and event.name.removeprefix("aten::") not in NO_KERNEL


def _is_fused(name: str) -> bool:
    return name.removeprefix("aten::").startswith(FUSED)


def _is_kernel(event: Any) -> bool:
    if not _counts(event) or any(_is_fused(name) for name in list(_chain(event))[1:]):
        return False
    return _is_fused(event.name) or not any(map(_inside, event.cpu_children))


def _inside(event: Any) -> bool:
    """Say whether an event, or one within it, counts."""
    return _counts(event) or any(map(_inside, event.cpu_children))


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Have what depends on the device be as on a GPU, on the CPU too: attention, the head's parts, determinism."""
    words, filled = head_loss.words_of_a_part, torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    was_on, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    gpu = torch.device("cuda")
    try:
        with warnings.catch_warnings(), patch.object(attention, "AT_ONCE", ("cpu", *attention.AT_ONCE)):
            warnings.simplefilter("ignore")  # of operations that have no deterministic form
            with patch.object(head_loss, "words_of_a_part", lambda device, *sizes: words(gpu, *sizes)):
                prepare_process(gpu, torch.get_num_threads())
                yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=warned)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
