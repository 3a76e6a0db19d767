"""Packs of unequal memories: other blocks, seeds, sizes, norms; each as it is alone, one pass of the upper for all."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.adapters.adapter import Adapter, PackTexts
from trainables.adapters.memory.activations import ACTIVATIONS
from trainables.adapters.memory.adapter import MemoryAdapter
from trainables.adapters.memory.bank import MemoryBank
from trainables.adapters.memory.setting import SetSetting
from trainables.adapters.registry import adapter_plan
from trainables.lm.batches import TextBatches
from trainables.lm.cut import find_blocks
from trainables.lm.trunk import Trunk
from trainables.lm.upper import Upper
from trainables.pack.process_cache import ProcessCache
from trainables.trial.spec import TrialSpec

SAME = {"abs": 2e-5}
"""A member in a pack differs from the same alone by the order of float32 sums."""
USUAL: dict[str, Any] = {"layer": 1, "lr": 1e-2, "num_documents": 6}
MEMBERS: list[dict[str, Any]] = [
    {},
    {"seed": 3, "memory_dim": 20},
    {"seed": 3, "memory_dim": 48, "norm_and_gate": False, "alpha": 1.0, "allocation": "simset2"},
    {"memory_dim": 7, "norm_and_gate": False, "weight_decay": 0.5},
    {"seed": 5, "alpha": 2.0, "allocation": "partitioned", "grad_clip": 0.1},
    {"memory_dim": 24, "mode": "hard", "allocation": "partitioned", "lr": 3e-3},
    {"seed": 5, "memory_dim": 48, "mode": "hard", "allocation": "simset1", "granularity": "token"},
]

BLOCKS = {"one block": (1,) * 7, "several blocks": (1, 3, 0, 1, 2, 3, 0)}
"""Where the members are, of a model of four blocks."""

Build = Callable[..., Adapter]
Trial = Callable[..., TrialSpec]


@pytest.fixture(params=BLOCKS)
def specs(request: pytest.FixtureRequest, small_trial: Trial) -> Callable[..., list[TrialSpec]]:
    blocks = BLOCKS[request.param]
    return lambda **more: [
        small_trial(**{**USUAL, **member, "layer": layer, **more})
        for layer, member in zip(blocks, MEMBERS, strict=True)
    ]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each forward pass of the upper blocks, from now on."""
    seen: list[int] = []
    forward = Upper.forward

    def counted(self: Upper, hidden: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        seen.append(hidden.shape[0] * hidden.shape[1])
        return forward(self, hidden, *args, **more)

    monkeypatch.setattr(Upper, "forward", counted)
    return seen


def asked(adapter: Adapter) -> list[list[int]]:
    texts = adapter.texts.segments
    trees, documents = [text.tree for text in texts], [text.document for text in texts]
    return adapter.next_tokens(trees, documents, [range(len(tree)) for tree in trees]).tolist()


def assert_as_alone(pack: Adapter, alone: Adapter, member: int) -> None:
    texts = pack.texts.segments
    assert alone.nll(texts)[0] == pytest.approx(pack.nll(texts)[member], **SAME)
    assert alone.text_nll(texts)[0].tolist() == pytest.approx(pack.text_nll(texts)[member].tolist(), **SAME)
    one, other = alone.state(0), pack.state(member)
    for mine, its in ((one.weights, other.weights), (one.optimiser, other.optimiser)):
        assert mine.keys() == its.keys()
        for name, value in mine.items():
            assert its[name].shape == value.shape and its[name].is_contiguous()
            torch.testing.assert_close(its[name], value, atol=3e-5, rtol=1e-3)
    mine, its = alone.findings()[0], pack.findings()[member]
    assert dict(its.metrics) == pytest.approx(dict(mine.metrics), **SAME)
    assert (its.analysis or {}).keys() == (mine.analysis or {}).keys()
    found, wanted = (np.load(io.BytesIO(each.files[ACTIVATIONS])) for each in (its, mine))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert alone.trained_params(0) == pack.trained_params(member)
    assert alone.train_flops(2, 0) == pack.train_flops(2, member)
    assert alone.stored(0).keys() == pack.stored(member).keys()


@pytest.mark.parametrize("micro_batch_tokens", [16384, 700, 60], ids=["one pass", "some members", "some texts"])
@pytest.mark.thorough(only=("some texts",))
def test_each_member_is_as_it_is_alone(specs: Any, build: Build, micro_batch_tokens: int) -> None:
    every = specs(micro_batch_tokens=micro_batch_tokens)
    pack = build(*every)
    curves = [pack.train_epoch(epoch) for epoch in range(2)]
    assert len({tuple(row) for row in asked(pack)}) == len(every), "the members must differ"
    for member, spec in enumerate(every):
        alone = build(spec)
        for epoch in range(2):
            assert alone.train_epoch(epoch)[0] == pytest.approx(curves[epoch][member], **SAME)
        assert_as_alone(pack, alone, member)


def test_five_seeds_take_one_pass_of_the_upper_a_step(small_trial: Trial, build: Build, passes: list[int]) -> None:
    seeds = [small_trial(**USUAL, seed=seed) for seed in range(5)]
    one, five = build(seeds[0]), build(*seeds)
    passes.clear()
    one.train_epoch(0)
    alone = len(passes)
    passes.clear()
    five.train_epoch(0)
    assert len(passes) == alone == -(-len(one.texts.train) // seeds[0].batch_size)
    assert sum(passes) == 5 * sum(len(text.tree) for text in one.texts.train), "no padding goes through the blocks"


def test_every_block_of_a_model_takes_one_pass_a_step(small_trial: Trial, build: Build, passes: list[int]) -> None:
    each = [small_trial(**{**USUAL, "layer": layer}) for layer in range(4)]
    ran: list[int] = []
    pack = build(*each)
    for number, block in enumerate(find_blocks(pack.upper.model)[2]):  # type: ignore[attr-defined]
        block.register_forward_hook(lambda _, __, output, number=number: ran.append((number, output.shape[1])))
    passes.clear()
    pack.train_epoch(0)
    tokens = sum(len(text.tree) for text in pack.texts.train)
    assert len(passes) == -(-len(pack.texts.train) // each[0].batch_size)
    through = [sum(size for number, size in ran if number == block) for block in range(1, 4)]
    assert through[:2] == [tokens, 2 * tokens] and through[2] == 4 * tokens, "the last lets in who is above it"
    passes.clear()
    pack.nll(pack.texts.segments), pack.text_nll(pack.texts.segments), asked(pack)
    assert len(passes) == 3, "and of what is asked, too"


def test_new_texts_go_through_the_trunk_once_for_all_blocks(
    small_trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    specs = [small_trial(**{**USUAL, "layer": layer}) for layer in range(4)]
    cache = ProcessCache(torch.device("cpu"), 10**9)
    texts, parts = cache.texts(specs[0]), cache.parts(specs[0])
    few = list(texts.segments)[:2]
    adapter = MemoryAdapter([adapter_plan(vars(spec)) for spec in specs], parts, PackTexts(few, few, 6))  # type: ignore[misc]
    ran: list[Sequence[int]] = []
    hidden = Trunk.hidden
    monkeypatch.setattr(Trunk, "hidden", lambda self, *told: ran.append(told[1]) or hidden(self, *told))
    others = list(texts.segments)[2:4]
    adapter.text_nll(others)
    assert ran and all(list(layers) == [0, 1, 2, 3] for layers in ran)


def test_members_of_one_seed_and_block_see_the_same_texts_read_once(specs: Any, build: Build, monkeypatch: Any) -> None:
    reads: list[int] = []
    pack = build(*specs())
    batch = TextBatches.batch
    monkeypatch.setattr(TextBatches, "batch", lambda self, which: reads.append(len(which)) or batch(self, which))
    pack.train_epoch(0)
    orders = {(plan.layer, plan.seed) for plan in pack.plans}
    assert len(orders) == (3 if len({layer for layer, _ in orders}) == 1 else 6)
    assert sum(reads) == len(orders) * len(pack.texts.train)


def test_what_a_member_has_not_got_stays_zero_whatever_the_decay(specs: Any, build: Build) -> None:
    pack = build(*specs(weight_decay=0.5))
    for epoch in range(3):
        pack.train_epoch(epoch)
    bank = pack.bank  # type: ignore[attr-defined]
    for member, (size, norm) in enumerate(zip(bank.memory_dims, bank.norms, strict=True)):
        for rest in (bank.up_weight[member, size:], bank.up_bias[member, size:], bank.down_weight[member, :, size:]):
            assert not rest.any()
        for name in () if norm else ("ln_weight", "ln_bias", "gate"):
            assert not getattr(bank, name)[member].any()


def test_a_member_that_diverges_leaves_members_of_other_shapes_alone(small_trial: Trial, build: Build) -> None:
    wild = small_trial(**{**USUAL, "lr": 1e30}, memory_dim=40, norm_and_gate=False, warmup_steps=0, seed=7)
    calm = [small_trial(**USUAL, warmup_steps=0, memory_dim=dim, seed=seed) for dim, seed in ((16, 0), (56, 7))]
    pack = build(calm[0], wild, calm[1])
    for epoch in range(2):
        pack.train_epoch(epoch)
    assert pack.active == [True, False, True]
    for member, spec in ((0, calm[0]), (2, calm[1])):
        alone = build(spec)
        for epoch in range(2):
            alone.train_epoch(epoch)
        assert_as_alone(pack, alone, member)


def test_going_on_in_another_company_gives_the_undisturbed_result(specs: Any, build: Build) -> None:
    every = specs()
    undisturbed = build(*every)
    for epoch in range(3):
        undisturbed.train_epoch(epoch)
    first, second = build(*every), build(every[2], every[0], every[6])
    first.train_epoch(0)
    for place, member in enumerate((2, 0, 6)):
        second.load_state(place, first.state(member))
    for epoch in (1, 2):
        second.train_epoch(epoch)
    for place, member in enumerate((2, 0, 6)):
        for name, value in undisturbed.state(member).weights.items():
            torch.testing.assert_close(second.state(place).weights[name], value, atol=3e-5, rtol=1e-3)


def test_stored_memories_of_all_shapes_come_back(specs: Any, build: Build) -> None:
    pack = build(*specs())
    pack.train_epoch(0)
    other = build(*specs())
    for member in range(len(MEMBERS)):
        other.load_stored(member, pack.stored(member))
    assert other.nll(other.texts.segments) == pack.nll(pack.texts.segments)


def test_entry_sets_of_sizes_that_no_member_has_are_dropped(specs: Any, build: Build) -> None:
    pack: Any = build(*specs())
    sets = pack._entry_sets
    own = {size for _, size in sets._built}
    sets.of(SetSetting.named("random"), 64)
    assert {size for _, size in sets._built} == {*own, 64} != own
    again: Any = type(pack)(pack.plans, pack.parts, pack.texts)
    assert again._entry_sets is sets and {size for _, size in sets._built} == own


def test_who_is_not_asked_runs_through_no_pass(specs: Any, build: Build, passes: list[int]) -> None:
    pack = build(*specs())
    texts = pack.texts.segments
    trees, documents = [text.tree for text in texts], [text.document for text in texts]
    nodes = [range(len(tree)) for tree in trees]
    whole, nll, text_nll = pack.next_tokens(trees, documents, nodes), pack.nll(texts), pack.text_nll(texts)
    passes.clear()
    some = pack.some([0, 2, 3, 6])
    assert some.num_members == 4
    assert some.next_tokens(trees, documents, nodes).tolist() == whole[[0, 2, 3, 6]].tolist()
    assert some.nll(texts) == pytest.approx([nll[k] for k in (0, 2, 3, 6)], **SAME)
    np.testing.assert_allclose(some.text_nll(texts), text_nll[[0, 2, 3, 6]], atol=2e-5)
    assert sum(passes) <= 3 * 4 * sum(map(len, trees)) * 1.3
    assert some.is_masked(3, 0) and not some.is_masked(0, 0)
    assert pack.some(range(7)) is pack
    assert pack.nll(texts) == nll, "all are asked again"


def test_leakage_under_all_allocations_takes_one_pass_of_the_memories(
    small_trial: Trial, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = [small_trial(**USUAL, memory_dim=dim) for dim in (5, 40)]
    pack = build(*plain, small_trial(**USUAL, alpha=1.0, allocation="simset2"))
    tokens: list[int] = []
    forward = MemoryBank.forward
    monkeypatch.setattr(MemoryBank, "forward", lambda *given: tokens.append(given[1].shape[1]) or forward(*given))
    found = pack.findings()
    every = sum(len(text.tree) for text in pack.texts.segments)
    assert sum(tokens) == 2 * every, "one for leakage, one for the mean activations"
    names = [sorted(name for name in each.metrics if name.startswith("memory/leakage")) for each in found]
    assert [len(own) for own in names] == [3, 5, 1], "the smallest has fewer entries than there are documents"
