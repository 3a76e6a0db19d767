"""Tiny tokenizers of both kinds, and tiny models: random ones, and some that write answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from trainables.data.documents import Claim, Document
from trainables.data.prompts import HEADER, POOL
from trainables.lm.token_tree import TokenTree, collate
from trainables.probes.fever.questions import FeverQuestions

CORPUS = [HEADER] + [f"Claim: {text}\nA: ({letter})\n" for texts in POOL for text in texts for letter in "abc"]
SPELLINGS = (
    " (a)",
    " (b)",
    " (c)",
    "(a)",
    "(b) refutes",
    "  (c)",
    "    (a)",
    " (a",
    " (d)",
    " ( a)",
    "      ",
    " supports",
)


@pytest.fixture(scope="session")
def neox_tokenizer() -> Any:
    """Byte-level BPE without BOS, as Pythia's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end)


@pytest.fixture(scope="session")
def llama_tokenizer() -> Any:
    """SentencePiece-like BPE with BOS, a space put in front and byte fallback, as Llama 2's."""
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained = Tokenizer(models.BPE())
    trained.normalizer = spaces
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    content = json.loads(trained.to_str())["model"]
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {token: at for at, token in enumerate([*first, *content["vocab"]])}
    merges = [tuple(pair) for pair in content["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = spaces
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in first[:3]])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session", params=["llama", "neox"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.fixture(scope="session")
def tiny_model(llama_tokenizer: Any) -> Callable[[Any, int], Any]:
    """Return a maker of random float64 models, with a few more tokens than the tokenizer has, as Pythia."""

    def make(tokenizer: Any, seed: int) -> Any:
        torch.manual_seed(seed)
        shape = {
            "vocab_size": len(tokenizer) + 7,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "initializer_range": 0.2,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": None,
        }
        if tokenizer is llama_tokenizer:
            model = LlamaForCausalLM(LlamaConfig(**shape))
        else:
            model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape))
        return model.double().eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def answering_models(tokenizer: Any, tiny_model: Callable[[Any, int], Any], documents: list[Document]) -> list[Any]:
    """Models that write answers of many spellings, half answers and nonsense, each its own mixture."""
    prompts = [
        list(question.prompt)
        for num_shots in (0, 1)
        for question in FeverQuestions(documents, tokenizer, num_shots=num_shots).prompts
    ]
    generator = torch.Generator().manual_seed(0)
    texts = [tokenizer(f"A:{spelling}", add_special_tokens=False)["input_ids"] for spelling in SPELLINGS]
    prefix = len(tokenizer("A:", add_special_tokens=False)["input_ids"])
    answers = [
        [*texts[int(at)][prefix:], tokenizer.eos_token_id][:5]
        for at in torch.randint(len(texts), (len(prompts),), generator=generator)
    ]
    model = tiny_model(tokenizer, 0).float().requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        picked = torch.randperm(len(prompts), generator=generator)[:16].tolist()
        rows = [prompts[at] + answers[at] for at in picked]
        tokens = torch.zeros(16, max(map(len, rows)), dtype=torch.long)
        labels = torch.full_like(tokens, -100)
        for row, (at, ids) in enumerate(zip(picked, rows, strict=True)):
            tokens[row, : len(ids)] = torch.tensor(ids)
            labels[row, len(prompts[at]) : len(ids)] = torch.tensor(answers[at])
        model(input_ids=tokens, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return [_disturbed(model, seed) for seed in range(4)]


@torch.no_grad()
def _disturbed(model: Any, seed: int) -> Any:
    """Return a float64 copy with noise on its weights."""
    generator = torch.Generator().manual_seed(seed)
    copy = deepcopy(model).double().requires_grad_(False)
    for weight in copy.parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        weight += 0.15 * seed * weight.std() * noise
    return copy


@pytest.fixture(scope="session")
def respond_with() -> Callable[..., Any]:
    """Return a maker of `respond` from plain models, one per member."""

    def make(*members: Any) -> Any:
        @torch.no_grad()
        def respond(
            trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
        ) -> np.ndarray[Any, Any]:
            if not trees:
                return np.zeros((len(members), 0), dtype=np.int64)
            batch = collate(trees)
            rows = []
            for model in members:
                logits = model(
                    input_ids=batch.tokens, attention_mask=batch.attention_mask, position_ids=batch.positions
                ).logits
                rows.append([int(logits[t, n].argmax()) for t, read in enumerate(nodes) for n in read])
            return np.array(rows)

        return respond

    return make


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """Three pages, the second without claims."""
    labels = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
    kinds = ("a game", "a band", "from Tromsø", "an opera in 3 acts", "famous", "a film of 1984")

    def claims(title: str, first: int, count: int) -> tuple[Claim, ...]:
        return tuple(
            Claim(str(first + i), f"{title} is {kinds[i % 6]}{' indeed' * (i // 6)}.", labels[i % 3], 1 + i % 3)
            for i in range(count)
        )

    return [
        Document("Tetris", "Tetris is a game.", claims("Tetris", 500, 2), claims("Tetris", 10, 14), "fever"),
        Document("Nobody", "Nobody asked.", (), (), "wiki"),
        Document("Röyksopp", "A duo.", claims("Röyksopp", 700, 1), claims("Röyksopp", 40, 11), "fever"),
    ]


class PlainProgram:
    """A memory at a model as a program of its own would have it: `transformers`, a hook, and matrix products."""

    def __init__(self, folder: str, weights: dict[str, torch.Tensor], layer: int, entries: Any = None) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.weights, self.entries, self.tokens = weights, entries, []
        if weights:
            inner = self.model.base_model
            inner.layers[layer].register_forward_hook(self._add)

    def _add(self, block: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        w = self.weights
        activity = torch.nn.functional.gelu(hidden @ w["up.weight"].T + w["up.bias"])
        if self.entries is not None:
            activity = activity * self.entries(self.tokens)
        added = activity @ w["down.weight"].T + w["down.bias"]
        if "gate" in w:
            centred = added - added.mean(-1, keepdim=True)
            normed = centred / (added.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            added = (normed * w["ln.weight"] + w["ln.bias"]) * w["gate"]
        changed = hidden + added
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    @torch.no_grad()
    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """Logits after every token of one text, `[seq, vocab]`."""
        self.tokens = list(tokens)
        found: torch.Tensor = self.model(torch.tensor([self.tokens]), use_cache=False).logits[0]
        return found

    def written(self, tokens: Sequence[int], most: int) -> list[int]:
        """What it writes greedily, a token at a time from the start, up to its end token."""
        text = list(tokens)
        while len(text) < len(tokens) + most:
            token = int(self.logits(text)[-1].argmax())
            if token == self.tokenizer.eos_token_id:
                break
            text.append(token)
        return text[len(tokens) :]


@pytest.fixture(scope="session")
def plain_program() -> Callable[..., PlainProgram]:
    """Return a maker of plain programs of a pack's member: free, or confined to a document's entries."""

    def make(spec: Any, adapter: Any, member: int, document: int | None = None) -> PlainProgram:
        weights = dict(adapter.state(member).weights)
        entry_set = adapter.sets[member] if document is not None else None
        entries = entry_set and (
            lambda tokens: entry_set.mask([document], [TokenTree.chain(tokens)], torch.device("cpu")).float()
        )
        return PlainProgram(spec.model, weights, spec.layer or 0, entries)

    return make
