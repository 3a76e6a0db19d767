"""What a step does when it does not fit the memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainables.adapters import training
from trainables.adapters.adapter import Adapter
from trainables.errors import OutOfMemory
from trainables.trial.spec import TrialSpec

SPELLINGS = [
    (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
    (RuntimeError, "CUDA error: out of memory"),
    (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    (RuntimeError, "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    (MemoryError, ""),
]


class Activations:
    """Stands for what a forward pass holds."""


@pytest.mark.parametrize(("kind", "said"), SPELLINGS)
def test_what_a_pass_held_is_free_before_a_smaller_one_is_tried(
    kind: type[BaseException],
    said: str,
    small_trial: Callable[..., TrialSpec],
    build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = small_trial(layer=1)
    expected = build(spec).train_epoch(0)
    adapter = build(spec)
    losses, held, freed, sizes = adapter.training._losses, [], [], []

    def short(batch: Any, *given: Any) -> Any:
        sizes.append(len(batch.hidden))
        if not held:
            activations = Activations()
            held.append(weakref.ref(activations))
            raise kind(said)
        return losses(batch, *given)

    monkeypatch.setattr(adapter.training, "_losses", short)
    monkeypatch.setattr(training, "free_memory", lambda device: freed.append(held[0]()))
    before = adapter.training.micro_batch_tokens = sum(sorted(map(len, (t.tree for t in adapter.texts.train)))[-4:])
    found = adapter.train_epoch(0)
    assert freed == [None], "nothing holds it any more when the device's memory is given back"
    assert adapter.training.micro_batch_tokens < before and min(sizes) < sizes[0]
    assert found[0] == pytest.approx(expected[0], abs=2e-5)


def test_one_text_that_does_not_fit_alone_is_the_end(
    small_trial: Callable[..., TrialSpec], build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter: Adapter[Any] = build(small_trial(layer=1))

    def never(*given: Any) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(adapter.training, "_losses", never)
    with pytest.raises(OutOfMemory, match="one text of [0-9]+ tokens of one member at a time"):
        adapter.train_epoch(0)
