"""What a step does when it does not fit the memory, and when a loss is not a number."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
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
    adapter: Adapter[Any] = build(small_trial(layer=1, micro_batch_tokens=256))

    def never(*given: Any) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(adapter.training, "_losses", never)
    with pytest.raises(OutOfMemory, match="one text of [0-9]+ tokens of one member at a time"):
        adapter.train_epoch(0)


def test_a_loss_that_is_no_number_freezes_its_member_at_once_and_is_told_at_the_epochs_end(
    small_trial: Callable[..., TrialSpec], build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [small_trial(layer=1, batch_size=2, lr=lr) for lr in (1e-2, 3e-3)]
    adapter, undisturbed = build(*specs), build(*specs)
    losses, steps, before = adapter.training._losses, [], []

    def once_nan(*given: Any) -> Any:
        found = losses(*given)
        steps.append(adapter.active[0])
        if len(steps) == 3:
            before.append(adapter.state(0))
            found = replace(found, objective=found.objective * torch.tensor([torch.nan, 1.0]))
        return found

    monkeypatch.setattr(adapter.training, "_losses", once_nan)
    lost, kept = adapter.train_epoch(0)
    assert len(steps) > 3 and all(steps), "the epoch goes on, and the host does not know yet"
    assert adapter.active == [False, True] and not math.isfinite(lost["train/loss"])
    frozen = adapter.state(0)
    for name, value in before[0].weights.items():
        assert torch.equal(frozen.weights[name], value), name
    assert frozen.optimiser.keys() == before[0].optimiser.keys() and int(frozen.optimiser["step"]) == 2
    assert all(torch.equal(frozen.optimiser[name], value) for name, value in before[0].optimiser.items())
    expected = undisturbed.train_epoch(0)[1]
    assert kept == expected and int(adapter.state(1).optimiser["step"]) == len(steps)
    assert all(torch.equal(adapter.state(1).weights[n], v) for n, v in undisturbed.state(1).weights.items())
