"""Trunk and upper together are the whole model, wherever it is cut."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AttentionInterface, core_model_loading

from trainables.errors import DataError
from trainables.lm import attention, parity
from trainables.lm import trunk as trunk_module
from trainables.lm import upper as upper_module
from trainables.lm.cut import find_blocks
from trainables.lm.parity import reference
from trainables.lm.placement import placement
from trainables.lm.reference import WholeModel
from trainables.lm.token_tree import Batch, TokenTree, build_trees, collate
from trainables.lm.trunk import Trunk
from trainables.lm.upper import load_upper

FAMILIES = ("llama", "gpt_neox")
CUTS = (0, 2, 3)
FP32 = torch.float32


def texts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 61, (length,), generator=generator).tolist() for length in lengths]


def split_logits(card: Any, layer: int, batch: Batch) -> Tensor:
    hidden = Trunk(card, layer, FP32, "cpu").hidden(batch, [layer])[layer]
    upper = load_upper(card, layer, FP32, "cpu")
    return upper.logits(upper(hidden, batch.attention_mask, batch.positions))


@pytest.mark.parametrize("layer", CUTS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_split_logits_are_the_whole_models(make_model: Any, family: str, tied: bool, layer: int) -> None:
    card = make_model(family, tied)
    batch = collate([TokenTree.chain(text) for text in texts(7, 12)])
    whole = WholeModel(card, FP32, "cpu")(batch.tokens)
    torch.testing.assert_close(split_logits(card, layer, batch), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["sharded", "bin_files"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_found_in_any_kind_of_files(make_model: Any, family: str, tied: bool, kind: str) -> None:
    card = make_model(family, tied, **{kind: True})
    assert (Path(card.source) / "model.safetensors").exists() is False
    batch = collate([TokenTree.chain(text) for text in texts(9)])
    whole = WholeModel(card, FP32, "cpu")(batch.tokens)
    torch.testing.assert_close(split_logits(card, 1, batch), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_left_padding_changes_nothing(make_model: Any, family: str, layer: int) -> None:
    card = make_model(family)
    short, long = texts(5, 11)
    padding, size = len(long) - len(short), len(long)
    real = torch.ones(2, size, dtype=torch.bool)
    real[0, :padding] = False
    sees = torch.tril(real[:, None].expand(2, size, size)) | torch.eye(size, dtype=torch.bool)
    batch = Batch(
        tokens=torch.tensor([[0] * padding + short, long]),
        positions=(real.cumsum(1) - 1).clamp(min=0),
        attention_mask=sees[:, None],
        lengths=torch.tensor([5, 11]),
    )
    logits = split_logits(card, layer, batch)
    whole = WholeModel(card, FP32, "cpu")
    torch.testing.assert_close(logits[0, padding:], whole(torch.tensor([short]))[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[1], whole(torch.tensor([long]))[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_gives_what_its_texts_give_one_by_one(make_model: Any, family: str, layer: int) -> None:
    card = make_model(family)
    prefix, *tails, other = texts(6, 3, 5, 1, 4)
    sequences = [*(prefix + tail for tail in tails), other]
    trees, ends = build_trees(sequences, 18)
    assert len(trees) == 2 and not trees[0].is_chain, "a batch of a tree and a chain, one of them padded"
    logits = split_logits(card, layer, collate(trees))
    whole = WholeModel(card, FP32, "cpu")
    for sequence, (tree, node) in zip(sequences, ends, strict=True):
        expected = whole(torch.tensor([sequence]))[0]
        torch.testing.assert_close(logits[tree, trees[tree].path(node)], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_pass_gives_the_outputs_of_several_blocks(make_model: Any, family: str) -> None:
    card = make_model(family)
    batch = collate([TokenTree.chain(text) for text in texts(7, 12)])
    together = Trunk(card, 3, FP32, "cpu").hidden(batch, [0, 2, 3])
    for layer, hidden in together.items():
        alone = Trunk(card, layer, FP32, "cpu").hidden(batch, [layer])[layer]
        torch.testing.assert_close(hidden, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_memory_between_trunk_and_upper_equals_a_hook(make_model: Any, family: str, layer: int) -> None:
    card = make_model(family)
    torch.manual_seed(2)
    memory = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.GELU(), torch.nn.Linear(8, 32))
    batch = collate([TokenTree.chain(text) for text in texts(7, 12)])
    hidden = Trunk(card, layer, FP32, "cpu").hidden(batch, [layer])[layer]
    upper = load_upper(card, layer, FP32, "cpu")
    whole = WholeModel(card, FP32, "cpu")
    plain = whole(batch.tokens)
    with whole.with_memory(memory, layer):
        hooked = whole(batch.tokens)
    torch.testing.assert_close(upper.logits(upper(hidden + memory(hidden))), hooked, atol=1e-5, rtol=0)
    assert not torch.allclose(hooked, plain, atol=1e-3)
    torch.testing.assert_close(whole(batch.tokens), plain, atol=0, rtol=0)


def test_mask_and_positions_serve_every_trial_of_a_pack(make_model: Any) -> None:
    card = make_model()
    prefix, *tails = texts(4, 3, 2)
    trees, _ = build_trees([prefix + tail for tail in tails], 100)
    batch = collate([*trees, TokenTree.chain(prefix)])
    hidden = torch.randn(3, 2, batch.tokens.shape[1], 32)
    upper = load_upper(card, 1, FP32, "cpu")
    packed = upper(hidden.flatten(0, 1), batch.attention_mask, batch.positions).unflatten(0, (3, 2))
    for trial in range(3):
        alone = upper(hidden[trial], batch.attention_mask, batch.positions)
        torch.testing.assert_close(packed[trial], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("lengths", [(7,), (3, 3, 3, 8, 8, 5), (1, 12, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_one_after_the_other_do_not_see_each_other(
    make_model: Any, family: str, lengths: Any, device: str
) -> None:
    upper = load_upper(make_model(family), 1, FP32, device)
    hidden = torch.randn(2, sum(lengths), 32, generator=torch.Generator().manual_seed(3)).to(device).requires_grad_()
    weights = torch.linspace(-1, 1, hidden.numel(), device=device).view(hidden.shape)
    positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
    together = upper(hidden, positions=positions, lengths=lengths)
    (gradient,) = torch.autograd.grad((together * weights).sum(), hidden)
    alone = torch.cat([upper(text) for text in hidden.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad((alone * weights).sum(), hidden)[0], atol=1e-5, rtol=0)
    if len(lengths) > 1:
        assert not torch.allclose(together, upper(hidden), atol=1e-2), "as one text they would"


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("lengths", [(3, 3, 3, 8, 8, 5), (1, 12, 1), (6, 6)])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_texts_in_one_call_as_on_a_gpu_are_the_texts_one_by_one(
    make_model: Any, family: str, lengths: Any, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    upper = load_upper(make_model(family), 1, FP32, "cpu")
    hidden = torch.randn(2, sum(lengths), 32, generator=torch.Generator().manual_seed(3)).requires_grad_()
    weights = torch.linspace(-1, 1, hidden.numel()).view(hidden.shape)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    calls, plain = [], attention._attend

    def attend(module: Any, *given: Any) -> Tensor:
        calls.append(given[0].shape)
        return plain(module, *given)

    def told(*given: Any, **named: Any) -> Any:
        return attention.text_by_text(*given, **{**named, "sliding_window": window})

    monkeypatch.setattr(attention, "_attend", attend)
    AttentionInterface.register(attention.NAME, told)
    try:
        found = []
        for at_once in ((), ("cpu",)):
            monkeypatch.setattr(attention, "AT_ONCE", at_once)
            calls.clear()
            final = upper(hidden, positions=positions, lengths=lengths)
            found.append((final, *torch.autograd.grad((final * weights).sum(), hidden), list(calls)))
    finally:
        AttentionInterface.register(attention.NAME, attention.text_by_text)
    (one, its_gradient, _), (together, gradient, shapes) = found
    assert len(shapes) == 2 and shapes[0][:1] == (2 * len(lengths),), "two blocks, a call each for all texts"
    torch.testing.assert_close(together, one, atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient, its_gradient, atol=1e-5, rtol=0)


def test_a_text_that_is_not_a_number_leaves_the_others_of_its_call_alone(
    make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "AT_ONCE", ("cpu",))
    upper = load_upper(make_model(), 1, FP32, "cpu")
    hidden = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(3))
    positions = torch.cat([torch.arange(length) for length in (3, 4, 5)])[None]
    hidden[0, 3:7] = torch.nan
    hidden.requires_grad_()
    final = upper(hidden, positions=positions, lengths=(3, 4, 5))
    (gradient,) = torch.autograd.grad(final[0, [0, 1, 2, *range(7, 12)]].sum(), hidden)
    for found in (final, gradient):
        assert found[0, :3].isfinite().all() and found[0, 7:].isfinite().all()


def test_a_mask_of_padding_alone_is_refused(make_model: Any) -> None:
    upper = load_upper(make_model(), 1, FP32, "cpu")
    with pytest.raises(ValueError, match=r"a mask is \[batch, 1, seq, seq\], not \[1, 4\]"):
        upper(torch.zeros(1, 4, 32), torch.ones(1, 4), torch.arange(4)[None])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_upper_has_only_what_it_needs(make_model: Any, family: str, tied: bool) -> None:
    card = make_model(family, tied)
    whole = WholeModel(card, FP32, "cpu").model
    blocks = sum(p.numel() for p in whole.base_model.layers[3].parameters())
    upper = load_upper(card, 2, FP32, "cpu")
    norm = 32 if family == "llama" else 2 * 32
    assert sum(p.numel() for p in upper.parameters()) == blocks + norm + card.head_params
    assert not any(p.requires_grad or p.is_meta for p in upper.parameters())
    assert upper.head_weight.shape == (61, 32) and upper.head_bias is None


def test_only_the_tensors_needed_are_read(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    card, read = make_model(sharded=True), list[tuple[int, ...]]()
    reference(card, FP32, torch.device("cpu"))
    plain = core_model_loading._materialize_copy

    def materialise(tensor: Any, *args: Any, **kwargs: Any) -> Tensor:
        made = plain(tensor, *args, **kwargs)
        read.append(tuple(made.shape))
        return made

    monkeypatch.setattr(core_model_loading, "_materialize_copy", materialise)
    load_upper(card, 2, FP32, "cpu")
    assert len(read) == 9 + 2, "a block, the final norm and the head"
    read.clear()
    Trunk(card, 1, FP32, "cpu")
    assert len(read) == 2 * 9 + 2 and read.count((61, 32)) == 1, "two blocks, the embedding and the final norm"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_frequencies_are_those_of_the_whole_model(make_model: Any, dtype: torch.dtype) -> None:
    for family in FAMILIES:
        card = make_model(family)
        frequencies = [
            part.model.base_model.rotary_emb.inv_freq
            for part in (WholeModel(card, dtype, "cpu"), load_upper(card, 1, dtype, "cpu"))
        ]
        assert frequencies[1].dtype == torch.float32
        torch.testing.assert_close(frequencies[0], frequencies[1], atol=0, rtol=0)


def test_bfloat16_split_is_the_whole_bfloat16_model(make_model: Any) -> None:
    card = make_model("gpt_neox")
    batch = collate([TokenTree.chain(text) for text in texts(7, 12)])
    hidden = Trunk(card, 1, torch.bfloat16, "cpu").hidden(batch, [1])[1]
    upper = load_upper(card, 1, torch.bfloat16, "cpu")
    assert hidden.dtype == upper.head_weight.dtype == torch.bfloat16
    whole = WholeModel(card, torch.bfloat16, "cpu")(batch.tokens)
    torch.testing.assert_close(upper.logits(upper(hidden)), whole, atol=1e-5, rtol=0)


def test_a_block_that_does_not_exist_is_refused(make_model: Any) -> None:
    for layer in (-1, 4):
        with pytest.raises(ValueError, match="not one of the 4 blocks"):
            load_upper(make_model(), layer, FP32, "cpu")
        with pytest.raises(ValueError, match="not one of the 4 blocks"):
            Trunk(make_model(), layer, FP32, "cpu")


def test_missing_weights_are_named(make_model: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(make_model().source, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    card = replace(make_model(), source=str(folder), key="llama:incomplete")
    for load in (lambda: load_upper(card, 2, FP32, "cpu"), lambda: Trunk(card, 3, FP32, "cpu")):
        with pytest.raises(DataError, match="no tensor 'model.layers.3.mlp.up_proj.weight'"):
            load()


def test_broken_weights_are_named(make_model: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(make_model().source, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"not a header")
    with pytest.raises(DataError, match="its weights cannot be loaded"):
        load_upper(replace(make_model(), source=str(folder), key="llama:broken"), 2, FP32, "cpu")


@pytest.mark.parametrize(("free_bytes", "fits"), [(10**9, True), (10**4, False)])
def test_what_is_too_large_for_the_gpu_is_shared_with_the_host(
    make_model: Any, monkeypatch: pytest.MonkeyPatch, free_bytes: int, fits: bool
) -> None:
    monkeypatch.setattr("trainables.lm.placement.free_bytes", lambda device: float(free_bytes))
    place = placement(make_model(), FP32, torch.device("cuda:1"))
    if fits:
        assert place == {"device_map": {"": 1}}
    else:
        assert place["device_map"] == "auto"
        assert place["max_memory"][1] < free_bytes and place["max_memory"]["cpu"] > 10**6


def test_parts_are_held_against_the_whole_model(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that does not give what the whole model gave is not used, now or later."""
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    card = replace(make_model(), key="llama:another")
    right = reference(card, FP32, torch.device("cpu"))
    wrong = replace(right, hidden=right.hidden, logits=[logits * 1.001 for logits in right.logits])
    monkeypatch.setattr(upper_module, "reference", lambda *_: wrong)
    with pytest.warns(UserWarning, match="the whole model runs for every text"):
        assert load_upper(card, 1, FP32, "cpu").needs_tokens
    monkeypatch.setattr(upper_module, "reference", lambda *_: pytest.fail("looked at again"))
    with pytest.warns(UserWarning, match="the whole model runs for every text"):
        assert load_upper(card, 1, FP32, "cpu").needs_tokens
    wrong = replace(right, hidden=[hidden + 1e-2 for hidden in right.hidden])
    monkeypatch.setattr(trunk_module, "reference", lambda *_: wrong)
    for _ in range(2):
        assert len(find_blocks(Trunk(card, 1, FP32, "cpu")._model)[2]) == 4, "all blocks were loaded"
        monkeypatch.setattr(trunk_module, "reference", lambda *_: pytest.fail("looked at again"))


def test_the_whole_model_runs_once_for_its_parts(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    card, made = replace(make_model(), key="llama:kept"), list[str]()
    plain = parity._make
    monkeypatch.setattr(parity, "_make", lambda *given: made.append("once") or plain(*given))
    for _ in range(2):
        parity.reference.cache_clear()
        load_upper(card, 1, FP32, "cpu")
        Trunk(card, 1, FP32, "cpu")
    assert made == ["once"]
    (file,) = tmp_path.rglob("whole.safetensors")
    file.write_bytes(b"broken")
    for verdict in tmp_path.rglob("upper_1.json"):
        verdict.write_text("{broken")
    parity.reference.cache_clear()
    load_upper(card, 1, FP32, "cpu")
    assert made == ["once", "once"]


def test_a_part_that_agreed_is_not_looked_at_again(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    card = replace(make_model("gpt_neox"), key="gpt_neox:agreed")
    for _ in range(2):
        upper, trunk = load_upper(card, 1, FP32, "cpu"), Trunk(card, 3, FP32, "cpu", after=1)
        assert (upper.direct, upper.head.by_parts, trunk._direct, trunk._after) == (True, True, True, 1)
        monkeypatch.setattr(upper_module, "reference", lambda *_: pytest.fail("looked at again"))
        monkeypatch.setattr(trunk_module, "reference", lambda *_: pytest.fail("looked at again"))


@pytest.mark.parametrize("dtype", [FP32, torch.bfloat16])
@pytest.mark.parametrize("fault", ["lengths", "attention_mask"])
def test_attention_that_ignores_what_it_is_told_is_found_out(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, dtype: torch.dtype
) -> None:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))

    def deaf(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **told: Any) -> Any:
        told = told | {"attention_mask": attention_mask, fault: None}
        return attention.text_by_text(module, query, key, value, **told)

    AttentionInterface.register(attention.NAME, deaf)
    try:
        card = replace(make_model(), key="llama:deaf")
        upper, trunk = load_upper(card, 0, dtype, "cpu"), Trunk(card, 2, dtype, "cpu")
    finally:
        AttentionInterface.register(attention.NAME, attention.text_by_text)
    assert not upper.direct and not upper.needs_tokens
    assert trunk._direct == (fault == "lengths"), "a trunk's texts never stand one after the other"


def test_a_few_tokens_may_differ_in_16_bits_only() -> None:
    expected = torch.randn(45, 8, generator=torch.Generator().manual_seed(0))
    for wrong, agrees in ((3, True), (12, False)):
        found = expected.clone()
        found[:wrong] += 1
        assert parity.alike(found, expected, torch.bfloat16) == agrees
        assert not parity.alike(found, expected, FP32)
    assert not parity.alike(expected[:1], expected, FP32)
    assert not parity.alike(expected * 1.001, expected, FP32) and parity.alike(
        expected * 1.001, expected, torch.bfloat16
    )
