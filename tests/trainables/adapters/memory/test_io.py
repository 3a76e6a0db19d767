from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from trainables.adapters.memory.bank import Memory, MemoryBank
from trainables.adapters.memory.io import load_memory, save_memory
from trainables.errors import DataError


@pytest.mark.parametrize("norm_and_gate", [True, False])
def test_a_saved_memory_comes_back_with_its_place(tmp_path: Path, norm_and_gate: bool) -> None:
    bank = MemoryBank(8, 5, norm_and_gate, [1, 2])
    path = tmp_path / "memory.safetensors"
    save_memory(path, bank.member_state(1), layer=22, model="llama:abc")
    memory, layer, model = load_memory(path)
    assert (layer, model) == (22, "llama:abc")
    hidden = torch.randn(3, 8)
    assert torch.equal(memory(hidden), bank.single(1)(hidden))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["memory_dim"] == "5" and metadata["model_dim"] == "8"
    assert metadata["norm_and_gate"] == str(norm_and_gate)
    assert [p.name for p in tmp_path.iterdir()] == ["memory.safetensors"]


def test_missing_broken_and_foreign_files_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.safetensors: not readable"):
        load_memory(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    save_memory(broken, Memory(8, 5).state_dict(), layer=0, model="m")
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(DataError, match=r"broken\.safetensors: not readable"):
        load_memory(broken)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(DataError, match="not a memory file"):
        load_memory(foreign)
