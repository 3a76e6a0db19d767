"""Hidden states are right whatever is cached, and computed once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainables.lm import hidden as hidden_module
from trainables.lm.hidden import HiddenStates, pad_hidden
from trainables.lm.hidden_cache import HiddenCache
from trainables.lm.token_tree import Batch, TokenTree, build_trees, collate
from trainables.lm.trunk import Trunk

FP32 = torch.float32
LENGTHS = (5, 17, 2, 9, 30, 1)
TEXTS = [TokenTree.chain(range(start, start + length)) for start, length in enumerate(LENGTHS)]
TREES = build_trees([[1, 2, 3, 4], [1, 2, 5], [1, 2, 5, 6, 7]], 100)[0]


class Passes:
    """Notes the batches that trunks run, and the blocks they are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[tuple[int, int]] = []
        self.layers: list[tuple[int, ...]] = []
        self.after: list[int] = []
        self.trunks = 0
        notes = self

        class Noted(Trunk):
            def __init__(self, *args: Any) -> None:
                notes.trunks += 1
                notes.after.append(args[4])
                super().__init__(*args)

            def hidden(self, batch: Batch, layers: Sequence[int], below: Tensor | None = None) -> dict[int, Tensor]:
                notes.batches.append((batch.tokens.shape[0], batch.tokens.shape[1]))
                notes.layers.append(tuple(layers))
                return super().hidden(batch, layers, below)

        monkeypatch.setattr(hidden_module, "Trunk", Noted)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    return Passes(monkeypatch)


def expected(card: Any, tree: TokenTree, layer: int) -> Tensor:
    return Trunk(card, layer, FP32, "cpu").hidden(collate([tree]), [layer])[layer][0]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.thorough(only=("gpt_neox",))
def test_every_text_gets_its_own_hidden_states(make_model: Any, tmp_path: Path, family: str) -> None:
    card = make_model(family)
    states = HiddenStates(card, FP32, "cpu", HiddenCache(tmp_path), batch_tokens=40)
    trees = [*TEXTS, *TREES, TEXTS[1]]
    for found in (states.get(trees, 1), states.get(trees, 1)):
        for tree, hidden in zip(trees, found, strict=True):
            assert hidden.device.type == "cpu" and not hidden.requires_grad
            torch.testing.assert_close(hidden, expected(card, tree, 1), atol=1e-5, rtol=0)


def test_only_what_is_missing_is_computed(make_model: Any, tmp_path: Path, passes: Passes) -> None:
    states = HiddenStates(make_model(), FP32, "cpu", HiddenCache(tmp_path))
    states.get([*TEXTS[:2], TEXTS[0]], 1)
    assert passes.batches == [(2, 17)], "equal texts are computed once"
    states.get(TEXTS[:2], 1)
    assert passes.trunks == 1
    states.get(TEXTS[:3], 1)
    assert passes.batches[1:] == [(1, 2)]
    HiddenStates(make_model("gpt_neox"), FP32, "cpu", HiddenCache(tmp_path)).get(TEXTS[:2], 1)
    HiddenStates(make_model(), torch.bfloat16, "cpu", HiddenCache(tmp_path)).get(TEXTS[:2], 1)
    assert passes.trunks == 4, "another model or dtype has its own"


def test_one_pass_makes_the_other_layers_too(make_model: Any, tmp_path: Path, passes: Passes) -> None:
    card = make_model()
    states = HiddenStates(card, FP32, "cpu", HiddenCache(tmp_path))
    first = states.get(TEXTS, 0, also_layers=(2, 3))
    assert passes.trunks == 1 and passes.layers == [(0, 2, 3)]
    second = states.get(TEXTS, 2, also_layers=(0, 3))
    assert passes.trunks == 1, "nothing was missing"
    torch.testing.assert_close(first[1], expected(card, TEXTS[1], 0), atol=1e-5, rtol=0)
    torch.testing.assert_close(second[1], expected(card, TEXTS[1], 2), atol=1e-5, rtol=0)


def layer_bytes(make_model: Any, folder: Path) -> int:
    """Return the size of the files that hold one block's states of all texts."""
    cache = HiddenCache(folder)
    HiddenStates(make_model(), FP32, "cpu", cache).get([*TEXTS, *TREES], 0)
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_a_small_cache_never_thrashes(make_model: Any, tmp_path: Path, passes: Passes) -> None:
    limit = int(2.5 * layer_bytes(make_model, tmp_path / "one"))
    passes.trunks, passes.layers = 0, []
    for layer in (0, 1, 2, 3):
        for _ in range(3):  # packs, each in a process of its own
            cache = HiddenCache(tmp_path / "all", limit)
            found = HiddenStates(make_model(), FP32, "cpu", cache, 1000).get([*TEXTS, *TREES], layer, (0, 1, 2, 3))
            torch.testing.assert_close(found[1], expected(make_model(), TEXTS[1], layer), atol=1e-5, rtol=0)
    assert passes.trunks == 3, "of 12 packs: blocks 0 and 1, block 2, block 3"
    assert set(passes.layers) == {(0, 1), (2,), (3,)}, "each block's output is made once"


def test_what_others_will_want_is_made_only_where_something_is_missing(
    make_model: Any, tmp_path: Path, passes: Passes
) -> None:
    states = HiddenStates(make_model(), FP32, "cpu", HiddenCache(tmp_path))
    states.get(TEXTS, 1)
    states.get(TEXTS, 1, also_layers=(0, 2, 3))
    assert passes.layers == [(1,)]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.thorough(only=("gpt_neox",))
def test_a_deeper_trunk_goes_on_from_the_deepest_block_in_the_cache(
    make_model: Any, tmp_path: Path, passes: Passes, family: str
) -> None:
    card, trees = make_model(family), [*TEXTS, *TREES]
    states = HiddenStates(card, FP32, "cpu", HiddenCache(tmp_path), batch_tokens=40)
    states.get(trees, 0, also_layers=(1,))
    deeper = states.get(trees, 3, also_layers=(2,))
    assert passes.after == [-1, 1] and passes.layers[-1] == (2, 3)
    for layer, found in ((3, deeper), (2, states.get(trees, 2))):
        for tree, hidden in zip(trees, found, strict=True):
            torch.testing.assert_close(hidden, expected(card, tree, layer), atol=1e-5, rtol=0)
    states.get([*TEXTS, TokenTree.chain([7, 7])], 3)
    assert passes.after[-1] == -1, "a text that no file holds starts from its tokens"


def test_batches_keep_to_their_tokens_and_kind(make_model: Any, tmp_path: Path, passes: Passes) -> None:
    states = HiddenStates(make_model(), FP32, "cpu", HiddenCache(tmp_path), batch_tokens=40)
    states.get([*TEXTS, *TREES], 1)
    assert sorted(passes.batches) == [(1, 7), (1, 17), (1, 30), (4, 9)], "a tree's batch needs a mask"


def test_damaged_files_are_computed_again(make_model: Any, tmp_path: Path, passes: Passes) -> None:
    card = make_model()
    HiddenStates(card, FP32, "cpu", HiddenCache(tmp_path)).get(TEXTS, 1)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))
    with pytest.warns(UserWarning, match="deleted from the cache"):
        after = HiddenStates(card, FP32, "cpu", HiddenCache(tmp_path)).get(TEXTS, 1)
    assert passes.trunks == 2
    for tree, hidden in zip(TEXTS, after, strict=True):
        torch.testing.assert_close(hidden, expected(card, tree, 1), atol=1e-5, rtol=0)


def test_large_results_go_to_several_shards(
    make_model: Any, tmp_path: Path, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden_module, "SHARD_BYTES", 1000)
    card = make_model()
    cache = HiddenCache(tmp_path, limit_bytes=1)
    found = HiddenStates(card, FP32, "cpu", cache, batch_tokens=20).get(TEXTS, 1)
    for tree, hidden in zip(TEXTS, found, strict=True):
        torch.testing.assert_close(hidden, expected(card, tree, 1), atol=1e-5, rtol=0)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1, "above the limit: gone from disk, yet usable"


def test_a_full_disk_does_not_stop_a_trial(make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("trainables.lm.hidden_cache.save_file", full)
    card = make_model()
    cache = HiddenCache(tmp_path)
    (found,) = HiddenStates(card, FP32, "cpu", cache).get(TEXTS[:1], 1)
    assert "No space left" in cache.trouble and "not kept" in cache.trouble
    torch.testing.assert_close(found, expected(card, TEXTS[0], 1), atol=1e-5, rtol=0)


def test_a_batch_that_does_not_fit_is_halved(make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_hidden = Trunk.hidden

    def small_device(self: Trunk, batch: Batch, *args: Any) -> dict[int, Tensor]:
        if batch.tokens.numel() > 60:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain_hidden(self, batch, *args)

    monkeypatch.setattr(Trunk, "hidden", small_device)
    card = make_model()
    states = HiddenStates(card, FP32, "cpu", HiddenCache(tmp_path))
    for tree, hidden in zip(TEXTS, states.get(TEXTS, 1), strict=True):
        torch.testing.assert_close(hidden, expected(card, tree, 1), atol=1e-5, rtol=0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        states.get([TokenTree.chain([1] * 61)], 1)


def test_padding_matches_that_of_the_tokens(make_model: Any, tmp_path: Path) -> None:
    found = HiddenStates(make_model(), FP32, "cpu", HiddenCache(tmp_path)).get(TEXTS[:3], 1)
    padded = pad_hidden(found)
    assert padded.shape[:2] == collate(TEXTS[:3]).tokens.shape
    for row, hidden in zip(padded, found, strict=True):
        assert torch.equal(row[: len(hidden)], hidden) and not row[len(hidden) :].any()


OTHER_PROCESS = """
import sys
from pathlib import Path
import torch
from test_hidden import noted_and_slow
from trainables.lm import hidden
from trainables.lm.hidden_cache import HiddenCache
from trainables.lm.token_tree import TokenTree
from trainables.lm.card import ModelCard

card, here = eval(sys.argv[1]), Path(sys.argv[2])
hidden.Trunk = noted_and_slow(here)
states = hidden.HiddenStates(card, torch.float32, "cpu", HiddenCache(here / "cache"))
(here / "ready").touch()
(found,) = states.get([TokenTree.chain([1, 2, 3])], 1)
torch.save(found, here / "found")
"""


def noted_and_slow(folder: Path) -> type[Trunk]:
    """Return a trunk that notes its passes in a file, and takes long enough for another to get in between."""

    class Slow(Trunk):
        def hidden(self, batch: Batch, *args: Any) -> dict[int, Tensor]:
            with open(folder / "passes", "a", encoding="utf-8") as log:
                log.write("pass\n")
            time.sleep(1.0)
            return super().hidden(batch, *args)

    return Slow


@pytest.mark.thorough(beside="test_only_what_is_missing_is_computed")
def test_two_processes_compute_the_same_once(make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = make_model()
    monkeypatch.setattr(hidden_module, "Trunk", noted_and_slow(tmp_path))
    states = HiddenStates(card, FP32, "cpu", HiddenCache(tmp_path / "cache"))
    here = Path(__file__)
    path = os.pathsep.join([str(here.parents[3]), str(here.parent)])
    command = [sys.executable, "-c", OTHER_PROCESS, repr(card), str(tmp_path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as other:
        while not (tmp_path / "ready").exists():
            assert other.poll() is None, "the other process failed"
            time.sleep(0.01)
        (found,) = states.get([TokenTree.chain([1, 2, 3])], 1)
        assert other.wait(timeout=60) == 0
    assert (tmp_path / "passes").read_text() == "pass\n"
    assert torch.equal(found, torch.load(tmp_path / "found"))
