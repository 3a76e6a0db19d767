from __future__ import annotations

import json
from contextlib import nullcontext
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


def test_no_flipped_bit_is_taken_for_a_weight(tmp_path: Path) -> None:
    path = tmp_path / "memory.safetensors"
    save_memory(path, Memory(3, 2).state_dict(), layer=1, model="m")
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"memory\.safetensors: not"):
            load_memory(path)


@pytest.mark.parametrize(
    "change", [{"up.bias": torch.zeros(1)}, {"up.weight": torch.zeros(1)}, {"more": torch.zeros(1)}]
)
def test_weights_of_another_shape_are_no_memory(tmp_path: Path, change: dict[str, torch.Tensor]) -> None:
    texts = {"format": "memory-sweep/1", "layer": "1", "model": "m", "memory_dim": "2", "model_dim": "3"}
    path = tmp_path / "memory.safetensors"
    save_file(Memory(3, 2).state_dict() | change, path, {**texts, "norm_and_gate": "True"})
    with pytest.raises(DataError, match="not a whole memory"):
        load_memory(path)
    save_file(Memory(3, 2).state_dict(), path, texts)
    with pytest.raises(DataError, match="not a whole memory"):
        load_memory(path)


@pytest.mark.parametrize("folder", ["", "epochs/2/"])
def test_a_hard_memory_without_its_entries_is_not_taken_for_one_of_all_documents(
    tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of earlier versions have none; the record beside them says how they were trained."""
    path = tmp_path / folder / "memory.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_memory(path, Memory(8, 5).state_dict(), layer=0, model="m")
    load_memory(path, document="A")
    for stated, told in (
        ({"mode": "inductive", "allocation": "random"}, False),
        ({"mode": "hard", "allocation": "none"}, False),
        ({"mode": "hard", "allocation": "random"}, True),
    ):
        (tmp_path / "record.json").write_text(json.dumps({"identity": stated}))
        caplog.clear()
        load_memory(path)
        assert ("hard memory of an earlier version" in caplog.text) == told
        with pytest.raises(DataError, match="train the trial again") if told else nullcontext():
            load_memory(path, document="A")
    (tmp_path / "record.json").write_text("[")
    load_memory(path, document="A")
