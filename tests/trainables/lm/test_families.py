"""Every family that transformers can build: trunk and upper are the whole model, in logits, gradients and answers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import BLOCKS, CONFIGS, DIM, NOT_ONE_STREAM, VOCAB, save_family  # type: ignore[import-not-found]
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from trainables.errors import ConfigError
from trainables.lm.card import ModelCard
from trainables.lm.reference import WholeModel, attach_memory
from trainables.lm.token_tree import Batch, TokenTree, build_trees, collate
from trainables.lm.trunk import Trunk
from trainables.lm.upper import Upper, load_upper

FP32 = torch.float32
NEVER_DIRECT = (
    "gptj",
    "gpt_neo",
    "bloom",
    "mpt",
    "falcon",
    "stablelm",
    "lfm2",
    "mamba",
    "bamba",
    "qwen3_next",
    "zamba2",
)
"""Attention of their own, or blocks that carry a state from token to token: a row for every text."""


def plain_model(card: ModelCard) -> torch.nn.Module:
    """Return a family's random model as transformers loads it; gemma2's scores capped, which sdpa leaves out."""
    kind = "eager" if card.family == "gemma2" else None
    return AutoModelForCausalLM.from_pretrained(card.source, attn_implementation=kind).eval().requires_grad_(False)


class Parts:
    """A family's random model: whole as transformers loads it, and its parts above and below `layer`."""

    def __init__(self, card: ModelCard, layer: int) -> None:
        self.card, self.layer = card, layer
        self.plain = plain_model(card)
        self.trunk = Trunk(card, layer, FP32, "cpu")
        self.upper = load_upper(card, layer, FP32, "cpu")

    def whole(self, text: list[int]) -> Tensor:
        return self.plain(input_ids=torch.tensor([text]), use_cache=False).logits[0]

    def hidden(self, batch: Batch) -> Tensor:
        return self.trunk.hidden(batch, [self.layer])[self.layer]

    def logits(self, batch: Batch) -> Tensor:
        hidden = self.hidden(batch)
        return self.upper.logits(self.upper(hidden, batch.attention_mask, batch.positions, tokens=batch.tokens))


def texts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCAB, (length,), generator=generator).tolist() for length in lengths]


def near(found: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found / scale, expected / scale, atol=2e-5, rtol=0)


@pytest.fixture(scope="module", params=[(name, layer) for name in CONFIGS for layer in (0, 2, BLOCKS - 1)], ids=str)
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    name, layer = request.param
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*alone give other numbers")
        return Parts(save_family(name, tmp_path_factory), layer)


BETWEEN = tuple(str((name, 2)) for name in CONFIGS if name not in ("llama", "gpt_neox"))
"""Split above a block in the middle: what is wrong there is wrong at one of the ends, too."""


@torch.no_grad()
@pytest.mark.thorough(only=BETWEEN)
def test_plain_texts_a_tree_and_answers_are_the_whole_models(parts: Parts) -> None:
    rows = texts(7, 30, 12)
    logits = parts.logits(collate([TokenTree.chain(text) for text in rows]))
    for row, text in enumerate(rows):
        near(logits[row, : len(text)], parts.whole(text))

    prefix, *tails = texts(11, 9, 3, 1, 20)
    sequences = [prefix + tail for tail in tails]
    trees, ends = build_trees(sequences, 200)
    logits = parts.logits(collate([*trees, TokenTree.chain(prefix)]))
    assert len(trees) == 1 and not trees[0].is_chain
    for sequence, (tree, node) in zip(sequences, ends, strict=True):
        near(logits[tree, trees[tree].path(node)], parts.whole(sequence))
    near(logits[1, : len(prefix)], parts.whole(prefix))

    prompt = texts(13)[0]
    generated = parts.plain.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=4, eos_token_id=None, pad_token_id=0, use_cache=False
    )[0].tolist()
    answer = list(prompt)
    for _ in range(4):
        answer.append(int(parts.logits(collate([TokenTree.chain(answer)]))[0, -1].argmax()))
    assert answer == generated


@pytest.mark.thorough(only=BETWEEN)
def test_loss_and_gradient_of_a_memory_are_those_of_a_hook(parts: Parts) -> None:
    """Two members of a pack over texts one after the other, against one text of one member at a time."""
    torch.manual_seed(2)
    memories = [a_memory() for _ in range(2)]
    rows, layer = texts(8, 8, 21), parts.layer
    flat = torch.tensor([token for text in rows for token in text])
    hidden = torch.cat([parts.hidden(collate([TokenTree.chain(text)]))[0] for text in rows])
    positions = torch.cat([torch.arange(len(text)) for text in rows])
    added = torch.stack([memory(hidden) for memory in memories])
    final = parts.upper(hidden[None] + added, None, positions[None], [len(text) for text in rows], flat[None])
    labels = torch.cat([torch.tensor([*text[1:], -100]) for text in rows])
    nll = parts.upper.nll(final.flatten(0, 1), labels.repeat(2)).reshape(2, -1)
    nll.sum().backward()
    ours = [[p.grad.clone() for p in memory.parameters()] for memory in memories]
    for member, memory in enumerate(memories):
        memory.zero_grad()
        handle = attach_memory(parts.plain, memory, layer)
        expected = torch.cat(
            [
                functional.cross_entropy(parts.whole(text), torch.tensor([*text[1:], -100]), reduction="none")
                for text in rows
            ]
        )
        handle.remove()
        near(nll[member].detach(), expected.detach())
        expected.sum().backward()
        for found, parameter in zip(ours[member], memory.parameters(), strict=True):
            near(found, parameter.grad)


@pytest.mark.thorough(only=BETWEEN)
def test_the_fast_way_is_taken_where_there_is_one(parts: Parts) -> None:
    family = parts.card.family
    assert parts.upper.needs_tokens == (family == "zamba2"), "its blocks share weights, and see the embeddings"
    assert parts.upper.direct == (family not in NEVER_DIRECT)
    assert parts.upper.head.by_parts or parts.upper.needs_tokens


def a_memory() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(DIM, 8), torch.nn.GELU(), torch.nn.Linear(8, DIM))


@pytest.mark.parametrize("name", CONFIGS)
def test_memories_at_several_blocks_in_one_pass(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Loss and gradient of four members, each with a text of its own or all with the same, against a hook's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*alone give other numbers")
        parts = Parts(save_family(name, tmp_path_factory), 0)
    assert parts.upper.staggers == (parts.card.family not in NEVER_DIRECT)
    if not parts.upper.staggers:
        with pytest.raises(ValueError, match="blocks above 0"):
            parts.upper(torch.zeros(1, 3, DIM), tokens=torch.zeros(1, 3, dtype=torch.long), layers=1)
        return
    torch.manual_seed(3)
    layers, rows, trunk = [2, 0, BLOCKS - 1, 2], texts(8, 21, 8, 13), Trunk(parts.card, BLOCKS - 1, FP32, "cpu")
    memories = [a_memory() for _ in layers]

    def after(text: list[int], member: int) -> Tensor:
        hidden = trunk.hidden(collate([TokenTree.chain(text)]), layers)[layers[member]][0]
        return hidden + memories[member](hidden)

    def ours(texts_of: list[list[list[int]]], by_rows: bool) -> list[Tensor]:
        """Return each member's mean loss; by rows they have the same texts, else they are in one row, by length."""
        told = [(text, member) for member, own in enumerate(texts_of) for text in own]
        told = told if by_rows else sorted(told, key=lambda each: len(each[0]))
        states = [after(text, member) for text, member in told]
        per_row = len(texts_of[0]) if by_rows else len(told)
        one_row = [text for text, _ in told[:per_row]]
        hidden = torch.stack([torch.cat(states[at : at + per_row]) for at in range(0, len(told), per_row)])
        positions = torch.cat([torch.arange(len(text)) for text in one_row])[None]
        at = layers if by_rows else [layers[member] for _, member in told]
        final = parts.upper(hidden, None, positions, [len(text) for text in one_row], layers=at)
        labels = torch.cat([torch.tensor([*text[1:], -100]) for text, _ in told])
        nll = torch.split(parts.upper.nll(final.flatten(0, 1), labels), [len(text) for text, _ in told])
        return [sum(n.sum() for n, (_, own) in zip(nll, told, strict=True) if own == m) for m in range(len(layers))]

    same = [rows[:2]] * len(layers)
    for texts_of, by_rows in ((same, True), ([[row] for row in rows], False), (same, False)):
        losses = ours(texts_of, by_rows)
        for each in memories:
            each.zero_grad()
        torch.stack(losses).sum().backward()
        found = [[parameter.grad.clone() for parameter in each.parameters()] for each in memories]
        for member, own in enumerate(texts_of):
            with attach_memory(parts.plain, memories[member], layers[member]):
                expected = sum(
                    functional.cross_entropy(parts.whole(text)[:-1], torch.tensor(text[1:]), reduction="sum")
                    for text in own
                )
            near(losses[member].detach(), expected.detach())
            for one, other in zip(
                found[member], torch.autograd.grad(expected, [*memories[member].parameters()]), strict=True
            ):
                near(one, other)
    (tree,), ends = build_trees([rows[1] + rows[0], rows[1] + rows[3]], 200)
    batch = collate([tree])
    with torch.no_grad():
        hidden = trunk.hidden(batch, layers)
        states = torch.cat([hidden[at] + m(hidden[at]) for at, m in zip(layers, memories, strict=True)])
        logits = parts.upper.logits(parts.upper(states, batch.attention_mask, batch.positions, layers=layers))
        deep = parts.upper.logits(parts.upper(states[:1], batch.attention_mask, batch.positions, layers=2))
        near(deep[0], logits[0])
        for member, (at, own) in enumerate(zip(layers, memories, strict=True)):
            with attach_memory(parts.plain, own, at):
                for sequence, (_, node) in zip([rows[1] + rows[0], rows[1] + rows[3]], ends, strict=True):
                    near(logits[member, tree.path(node)], parts.whole(sequence))


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text", "smollm3", "cohere2", "mixtral", "falcon", "granite"])
def test_a_trunk_that_goes_on_from_a_blocks_output(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    card = save_family(name, tmp_path_factory)
    prefix, *tails = texts(11, 9, 3)
    trees, _ = build_trees([prefix + tail for tail in tails], 100)
    for batch in (collate([TokenTree.chain(text) for text in texts(7, 30)]), collate(trees)):
        whole = Trunk(card, 3, FP32, "cpu").hidden(batch, [1, 2, 3])
        upwards = Trunk(card, 3, FP32, "cpu", after=1)
        assert upwards._after == 1
        found = upwards.hidden(batch, [2, 3], whole[1])
        for layer in (2, 3):
            real = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
            near(found[layer][real], whole[layer][real])


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"zamba2"}))
@pytest.mark.thorough(but=("llama", "gpt_neox", "gemma3_text", "gpt2", "mamba"))
def test_rounding_to_16_bits_is_no_reason_to_run_whole(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    card = save_family(name, tmp_path_factory)
    for dtype in (FP32, torch.bfloat16):
        upper, trunk = load_upper(card, 1, dtype, "cpu"), Trunk(card, 1, dtype, "cpu")
        assert not upper.needs_tokens and upper.head.by_parts
        assert upper.direct == trunk._direct == (card.family not in NEVER_DIRECT)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "falcon-alibi", "gemma2", "mistral"])
def test_trees_through_the_whole_model(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    card = save_family(name, tmp_path_factory)
    prefix, *tails = texts(11, 9, 3)
    trees, ends = build_trees([prefix + tail for tail in tails], 100)
    batch, whole = collate(trees), WholeModel(card, FP32, "cpu")
    logits = whole(batch.tokens, batch.attention_mask, batch.positions)
    plain = plain_model(card)
    for tail, (tree, node) in zip(tails, ends, strict=True):
        expected = plain(input_ids=torch.tensor([prefix + tail])).logits[0]
        near(logits[tree, trees[tree].path(node)], expected)


def test_what_cannot_be_split_runs_whole_and_says_so_once(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = replace(save_family("llama", tmp_path_factory), key="llama:whole")
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
    split = load_upper(card, 1, FP32, "cpu")
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(Upper, "agrees", lambda *_: False)
    with pytest.warns(UserWarning, match="the whole model runs for every text, which is right and slower") as told:
        whole = load_upper(card, 1, FP32, "cpu")
    assert len(told) == 1 and whole.needs_tokens
    tokens, hidden = torch.tensor([texts(12)[0]]), torch.randn(2, 12, DIM)
    positions, lengths = torch.cat([torch.arange(5), torch.arange(7)])[None], [5, 7]
    near(whole(hidden, None, positions, lengths, tokens), split(hidden, None, positions, lengths))
    with pytest.raises(ValueError, match="needs the tokens"):
        whole(hidden)


def test_a_model_of_several_streams_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(NOT_ONE_STREAM).save_pretrained(tmp_path)
    card = ModelCard("n", tmp_path.name, str(tmp_path), "main", "gemma3n_text", BLOCKS, DIM, 48, 4, 2, 8, VOCAB, True)
    with pytest.raises(ConfigError, match="there is no place for a memory"):
        load_upper(card, 1, FP32, "cpu")
