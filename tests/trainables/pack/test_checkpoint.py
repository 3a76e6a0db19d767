"""Checkpoints: whole, of their own trial and shape, or not used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from trainables.adapters.memory.bank import MemoryBank
from trainables.adapters.optimiser import PackOptimiser
from trainables.errors import DataError
from trainables.pack.checkpoint import BadCheckpoint, Checkpoint, read_checkpoint, write_checkpoint
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.making import make_spec
from trainables.trial.task import TrialTask

NOTES = {"curves": {"train/nll": [[1, 2.5]]}, "diverged_at": None}


def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(2, {"up.weight": torch.randn(3, 4)}, {"step": torch.tensor(5), "m.up": torch.randn(3, 4)}, NOTES)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.safetensors"
    write_checkpoint(str(path), checkpoint(), "mine")
    return path


def test_what_was_written_comes_back(file: Path) -> None:
    found, given = read_checkpoint(str(file), "mine"), checkpoint()
    assert found is not None and (found.epoch, found.notes) == (2, NOTES)
    for part in ("weights", "optimiser"):
        own, other = getattr(found, part), getattr(given, part)
        assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
    assert read_checkpoint(str(file.with_name("none"))) is None


def test_no_flipped_bit_is_taken_in(file: Path) -> None:
    whole = file.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        file.write_bytes(damaged)
        with pytest.raises(BadCheckpoint, match=r"c\.safetensors: not used"):
            read_checkpoint(str(file), "mine")


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 100, b"\xff" * 100, b"[]"])
def test_what_is_no_checkpoint_is_not_used(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(BadCheckpoint):
        read_checkpoint(str(file), "mine")


def test_half_a_checkpoint_and_another_trial_s_are_not_used(file: Path) -> None:
    with pytest.raises(BadCheckpoint, match="it is of trial mine"):
        read_checkpoint(str(file), "yours")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(BadCheckpoint):
        read_checkpoint(str(file), "mine")


@pytest.mark.parametrize(
    "told",
    [
        [],
        {"epoch": 1},
        {"epoch": "1", "notes": NOTES},
        {"epoch": 1, "notes": {**NOTES, "curves": []}},
        {"epoch": 1, "notes": {**NOTES, "curves": {"x": [1]}}},
        {"epoch": 1, "notes": {**NOTES, "diverged_at": "never"}},
    ],
)
def test_a_checkpoint_of_the_first_format_with_other_notes_is_not_used(file: Path, told: object) -> None:
    file.write_bytes(save({"memory/a": torch.zeros(1)}, {"checkpoint": json.dumps(told)}))
    with pytest.raises(BadCheckpoint):
        read_checkpoint(str(file), "mine")


@pytest.mark.parametrize("damage", ["shape", "type", "lacking", "more"])
def test_tensors_of_another_shape_are_not_copied_into_place(damage: str) -> None:
    bank = MemoryBank(4, 3, True, [0])
    optimiser = PackOptimiser(bank, [0.1], [0.0], 0, 10, [1.0])
    (bank.up_weight.sum() + bank.down_weight.sum()).backward()
    bank(torch.ones(1, 2, 4))[0].sum().backward()
    optimiser.step([True])

    def damaged(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
        changed = {
            "shape": {**state, name: torch.zeros(1)},
            "type": {**state, name: state[name].double()},
            "lacking": {key: value for key, value in state.items() if key != name},
            "more": {**state, "other": torch.zeros(1)},
        }
        return changed[damage]

    weights, moments = bank.member_state(0), optimiser.member_state(0)
    for load, state, name in (
        (bank.load_member_state, weights, "up.bias"),
        (optimiser.load_member_state, moments, "exp_avg.up.bias"),
    ):
        load(0, state)
        with pytest.raises(DataError):
            load(0, damaged(state, name))
    assert all(torch.equal(value, weights[name]) for name, value in bank.member_state(0).items())


@pytest.fixture(scope="module")
def cache() -> ProcessCache:
    return ProcessCache(torch.device("cpu"), 10**9)


@pytest.mark.parametrize("damage", ["bit", "another trial's", "shape"])
def test_a_trial_whose_checkpoint_is_not_used_starts_over_and_says_so_once(
    damage: str, cache: ProcessCache, tiny_models: dict[str, Path], sample_data: Path, tmp_path: Path
) -> None:
    spec = canonical(
        make_spec({
            "model": str(tiny_models["llama"]), "data": str(sample_data), "layer": 2, "memory_dim": 8, "epochs": 2,
            "num_documents": 2, "segment_tokens": 32, "claims_per_page": 1, "checkpoint_every_s": 0,
        })
    )  # fmt: skip
    trial = trial_id(identity(spec))

    def run(place: Path) -> tuple[dict, list[str], list[int]]:
        task = TrialTask(trial, spec, str(place), str(tmp_path / "c.safetensors"))
        work, notes, epochs = PackWork({"trials": [task.to_dict()], "trunk_layers": []}, cache), [], []
        while True:
            report = work.step()
            notes += report["notes"]
            epochs.append(report["epoch"])
            if report["done"]:
                return report["results"][0], notes, epochs

    first, notes, _ = run(tmp_path / "first")
    assert first["status"] == "done" and not notes
    path = tmp_path / "c.safetensors"
    state = read_checkpoint(str(path), trial)
    assert state is not None and state.epoch == 1
    if damage == "bit":
        content = bytearray(path.read_bytes())
        content[-1] ^= 0x40
        path.write_bytes(content)
    elif damage == "shape":
        write_checkpoint(
            str(path), Checkpoint(1, {**state.weights, "up.bias": torch.zeros(1)}, state.optimiser, state.notes), trial
        )
    else:
        write_checkpoint(str(path), state, "f" * 16)
    again, notes, epochs = run(tmp_path / "again")
    assert again["metrics"] == first["metrics"] and epochs[0] == 1
    (note,) = notes
    assert "c.safetensors: not used" in note and f"trial {trial} starts over" in note
