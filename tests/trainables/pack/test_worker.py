"""How a worker's process is set up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trainables.pack.worker import prepare_process


@pytest.fixture(autouse=True)
def settings_of_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    on, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills, threads = torch.utils.deterministic.fill_uninitialized_memory, torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(on, warn_only=warned)
    torch.utils.deterministic.fill_uninitialized_memory = fills
    torch.set_num_threads(threads)


def test_a_gpu_computes_the_same_each_time_without_filling_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    prepare_process(torch.device("cuda"), 1)
    assert torch.are_deterministic_algorithms_enabled() and not shares
    assert not torch.utils.deterministic.fill_uninitialized_memory
    prepare_process(torch.device("cuda"), 1, 0.25)
    assert shares == [0.25], "what is asked for is all that a process may take of a GPU that others are on"


def test_a_processor_is_left_as_it_is() -> None:
    prepare_process(torch.device("cpu"), 1, 0.25)
    assert not torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
