"""Training of the two sample language models: real causal-LM training, small enough for a laptop's minute.

A model is trained with three blocks first and then grown to eight: every block is split into copies that share
its contribution to the residual stream, and training goes on (ours; like stacking, Gong et al. 2019, but close to
the same function). Most steps then cost less than half, and no block is idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from trainables.data.sample.facts import make_world
from trainables.lm.sample.background import Background
from trainables.lm.sample.configs import SAMPLE_MODELS

MAX_POSITIONS = 2048
_OUTPUTS = ("o_proj", "down_proj", "attention.dense", "dense_4h_to_h")
_ANSWERS = (" (a", " (b", " (c")


@dataclass(frozen=True)
class Recipe:
    """How a sample model is trained.

    Attributes:
        seed_blocks: blocks in the first phase.
        seed_steps: optimiser steps in the first phase.
        grown_steps: optimiser steps with all blocks.
        batch_size: texts a step.
        lr: peak learning rate of AdamW in the first phase; it falls linearly to a fifth.
        grown_lr: peak learning rate with all blocks; it falls linearly to zero.
        answer_weight: weight of an answer's letter in the loss, beside 1 for every other token.
        tokenizer_texts: texts the tokenizer is trained on.
    """

    seed_blocks: int = 3
    seed_steps: int = 640
    grown_steps: int = 100
    batch_size: int = 8
    lr: float = 6e-3
    grown_lr: float = 3e-3
    answer_weight: float = 8.0
    tokenizer_texts: int = 600


@dataclass(frozen=True)
class _Letters:
    """The token ` (`, the ids of the letters after it, and their weight in the loss."""

    opening: int
    ids: torch.Tensor
    weight: float


def make_sample_model(name: str, folder: Path, recipe: Recipe | None = None, progress: bool = False) -> None:
    """Train a tokenizer and a sample model and save both, as `save_pretrained` does, into `folder`.

    The result is a function of the name and the recipe, on one kind of machine: one thread, fixed seeds.
    """
    recipe = recipe or Recipe()
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = train_tokenizer(name, recipe.tokenizer_texts)
        with _bar(name, recipe.seed_steps + recipe.grown_steps, progress) as advance:
            model = train_model(name, tokenizer, recipe, advance)
    folder.mkdir(parents=True, exist_ok=True)
    with _no_library_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def train_tokenizer(name: str, num_texts: int) -> Any:
    """Train a byte-level BPE tokenizer on background texts; the Llama type adds a BOS token to every text.

    Returns:
        A `PreTrainedTokenizerFast` that `AutoTokenizer` reloads; any text comes back unchanged by decoding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    shape = SAMPLE_MODELS[name]
    llama = shape["family"] == "llama"
    bos, eos = ("<s>", "</s>") if llama else ("<|endoftext|>", "<|endoftext|>")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape["vocab_size"],
        special_tokens=list(dict.fromkeys((bos, eos))),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    background = Background(make_world(), seed=1)
    tokenizer.train_from_iterator([background.text() for _ in range(num_texts)], trainer)
    if llama:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def train_model(name: str, tokenizer: Any, recipe: Recipe, advance: Callable[[], None] = lambda: None) -> Any:
    """Train a sample model on background texts.

    Args:
        name: of the model.
        tokenizer: from `train_tokenizer`.
        recipe: how long and how.
        advance: called after every step.

    Returns:
        The `LlamaForCausalLM` or `GPTNeoXForCausalLM`, in evaluation mode.
    """
    background = Background(make_world(), seed=0)
    pairs = [tokenizer.encode(text, add_special_tokens=False)[-2:] for text in _ANSWERS]
    letters = _Letters(pairs[0][0], torch.tensor([letter for _, letter in pairs]), recipe.answer_weight)
    model = new_model(name, tokenizer, recipe.seed_blocks)
    phases = ((recipe.seed_steps, recipe.lr, 0.2 * recipe.lr), (recipe.grown_steps, recipe.grown_lr, 0.0))
    for phase, (steps, first_lr, last_lr) in enumerate(phases):
        if phase == 1:
            model = grow(name, model, tokenizer)
        optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
        for step in range(steps):
            lr = first_lr + (last_lr - first_lr) * step / steps
            optimiser.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 20)
            loss = _loss(model, *_batch(background, tokenizer, recipe.batch_size), letters)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            advance()
    return model.eval()


def new_model(name: str, tokenizer: Any, num_blocks: int) -> Any:
    """Build a model of a sample model's shape, freshly initialised, with `num_blocks` blocks."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

    shape = SAMPLE_MODELS[name]
    common = {
        "vocab_size": shape["vocab_size"],
        "hidden_size": shape["model_dim"],
        "intermediate_size": shape["intermediate_dim"],
        "num_hidden_layers": num_blocks,
        "num_attention_heads": shape["num_heads"],
        "tie_word_embeddings": shape["tied"],
        "max_position_embeddings": MAX_POSITIONS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if shape["family"] == "llama":
        return LlamaForCausalLM(LlamaConfig(num_key_value_heads=shape["num_kv_heads"], **common))
    return GPTNeoXForCausalLM(GPTNeoXConfig(**common))


def grow(name: str, small: Any, tokenizer: Any) -> Any:
    """Build the model with all its blocks from a trained one with fewer, computing nearly the same function.

    Block i is a copy of the small model's block `i * small_blocks // blocks`, its output projections divided by
    the number of copies.
    """
    blocks, few = SAMPLE_MODELS[name]["num_blocks"], small.config.num_hidden_layers
    model = new_model(name, tokenizer, blocks)
    sources = [block * few // blocks for block in range(blocks)]
    for source, layer in zip(sources, model.base_model.layers, strict=True):
        layer.load_state_dict(small.base_model.layers[source].state_dict())
        with torch.no_grad():
            for part, weights in layer.named_parameters():
                if any(output in part for output in _OUTPUTS):
                    weights.div_(sources.count(source))
    outside = {key: value for key, value in small.state_dict().items() if ".layers." not in key}
    model.load_state_dict(outside, strict=False)
    return model


def _batch(background: Background, tokenizer: Any, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw texts, each ended by EOS: tokens `[size, longest]`, padded, and their lengths `[size]`."""
    rows = [[*tokenizer.encode(background.text()), tokenizer.eos_token_id] for _ in range(size)]
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.full((size, int(lengths.max())), tokenizer.pad_token_id)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
    return tokens, lengths


def _loss(model: Any, tokens: torch.Tensor, lengths: torch.Tensor, letters: _Letters) -> torch.Tensor:
    """Mean next-token loss of a batch, an answer's letter counting `letters.weight` times."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    labels = tokens[:, 1:]
    nll = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    real = torch.arange(1, tokens.shape[1]) < lengths[:, None]
    answered = (tokens[:, :-1] == letters.opening) & torch.isin(labels, letters.ids)
    weights = real * (1.0 + (letters.weight - 1.0) * answered)
    return (nll * weights).sum() / weights.sum()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: at this size a second gains little, and sums always have the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _no_library_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _bar(name: str, total: int, show: bool) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not show, transient=True) as progress:
        task = progress.add_task(f"training {name}", total=total)
        yield lambda: progress.advance(task)
