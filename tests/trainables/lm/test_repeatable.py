"""Gradients are computed by kernels that give the same each time, where these have such a form."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from trainables.errors import failure_kind
from trainables.lm import repeatable
from trainables.lm.repeatable import repeatably

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Treat the CPU as a device whose kernels may differ, in a process set up as a worker."""
    monkeypatch.setattr(repeatable, "KINDS", ("cpu",))
    monkeypatch.setattr(repeatable, "_refused", set())
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def allowed() -> bool:
    """Say whether kernels that may differ are allowed now."""
    return torch.is_deterministic_algorithms_warn_only_enabled()


def test_nothing_else_is_allowed_in_it_and_all_is_after_it() -> None:
    assert repeatably("memory in a model", CPU, allowed) is False
    assert allowed() and torch.are_deterministic_algorithms_enabled()


def test_a_kernel_without_such_a_form_is_used_all_the_same_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    modes = []

    def compute() -> Tensor:
        modes.append(allowed())
        return torch.zeros(3).put_(torch.tensor([1]), torch.tensor([2.0]))  # has none, on a CPU either

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert repeatably("memory in a model", CPU, compute).tolist() == [0.0, 2.0, 0.0]
    assert modes == [False, True, True, True]
    assert caplog.text.count("memory in a model: on this device its results differ a little") == 1
    assert repeatably("lora in a model", CPU, allowed) is False, "others are still computed repeatably"


def test_what_is_wrong_in_any_case_stays_wrong_and_is_no_reason_to_give_up() -> None:
    def wrong() -> Tensor:
        return torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError, match="size"):
        repeatably("memory in a model", CPU, wrong)
    assert allowed() and repeatably("memory in a model", CPU, allowed) is False


def test_out_of_memory_is_not_tried_again() -> None:
    calls = []

    def full() -> None:
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RuntimeError) as found:
        repeatably("memory in a model", CPU, full)
    assert failure_kind(found.value) == "memory" and len(calls) == 1


def test_on_a_cpu_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeatable, "KINDS", ("cuda",))
    assert repeatably("memory in a model", CPU, allowed) is True
