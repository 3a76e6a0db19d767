"""The rival: one trial as a competent user would write it with `transformers` alone.

The whole model in every step, the memory in a forward hook, the base frozen, AdamW, `generate` for the claims. It takes
its texts, order of batches and initial memory from the project, so that both compute the same thing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

from trainables.batches import epoch_order
from trainables.evaluation.answers import MAX_ANSWER_TOKENS, parse_answer
from trainables.lm.files import model_folder
from trainables.lm.reference import attach_memory
from trainables.memory.bank import Memory
from trainables.models import ModelCard
from trainables.spec import TrialSpec
from trainables.workbench import StudyTexts

EVALUATION_BATCH = 16


@dataclass
class Measured:
    """What one trial took and gave.

    Attributes:
        load_s: seconds to load the model (for ours: and to fill the cache of hidden states, when it is cold).
        train_s: seconds of training.
        evaluate_s: seconds of answering the claims.
        curve: mean NLL per target token, per epoch.
        letters: the answer to each claim.
    """

    load_s: float
    train_s: float
    evaluate_s: float
    curve: list[float]
    letters: list[str | None]

    @property
    def warm_s(self) -> float:
        """Training and evaluation."""
        return self.train_s + self.evaluate_s


def run_plain(card: ModelCard, spec: TrialSpec, texts: StudyTexts, tokenizer: Any, nograd: bool = False) -> Measured:
    """Run one trial; with `nograd` no autograd graph is kept below the memory."""
    assert spec.layer is not None
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(model_folder(card), dtype=getattr(torch, spec.dtype))
    model.eval().requires_grad_(False)
    memory = Memory(card.model_dim, spec.memory_dim, spec.norm_and_gate, spec.seed)
    handle = attach_memory(model, memory, spec.layer)
    loaded = time.perf_counter()
    with _no_graph_below(model, spec.layer) if nograd else _as_it_is():
        curve = _train(model, memory, spec, texts)
    trained = time.perf_counter()
    letters = _evaluate(model, tokenizer, [list(question.prompt) for question in texts.questions.questions])
    handle.remove()
    return Measured(loaded - start, trained - loaded, time.perf_counter() - trained, curve, letters)


def _train(model: nn.Module, memory: Memory, spec: TrialSpec, texts: StudyTexts) -> list[float]:
    optimiser = torch.optim.AdamW(memory.parameters(), lr=spec.lr, weight_decay=spec.weight_decay)
    steps = -(-len(texts.train) // spec.batch_size) * spec.epochs
    schedule = get_cosine_schedule_with_warmup(optimiser, spec.warmup_steps, steps)
    curve = []
    for epoch in range(spec.epochs):
        total, count = 0.0, 0
        order = epoch_order(len(texts.train), spec.seed, epoch)
        for first in range(0, len(order), spec.batch_size):
            chosen = [texts.train[i].tree.tokens for i in order[first : first + spec.batch_size]]
            tokens, mask = _pad(chosen, left=False)
            labels = tokens.masked_fill(mask == 0, -100)
            loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(memory.parameters(), spec.grad_clip)
            optimiser.step()
            schedule.step()
            targets = sum(len(text) - 1 for text in chosen)
            total, count = total + loss.item() * targets, count + targets
        curve.append(total / count)
    return curve


@torch.no_grad()
def _evaluate(model: Any, tokenizer: Any, prompts: Sequence[list[int]]) -> list[str | None]:
    letters: list[str | None] = []
    for first in range(0, len(prompts), EVALUATION_BATCH):
        tokens, mask = _pad(prompts[first : first + EVALUATION_BATCH], left=True)
        written = model.generate(
            input_ids=tokens, attention_mask=mask, do_sample=False, max_new_tokens=MAX_ANSWER_TOKENS,
            pad_token_id=tokenizer.eos_token_id or 0,
        )[:, tokens.shape[1] :]
        letters += [parse_answer(text) for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
    return letters


def _pad(rows: Sequence[Sequence[int]], left: bool) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, text in enumerate(rows):
        place = slice(width - len(text), width) if left else slice(0, len(text))
        tokens[row, place] = torch.tensor(text)
        mask[row, place] = 1
    return tokens, mask


@contextmanager
def _no_graph_below(model: Any, layer: int) -> Iterator[None]:
    """Switch autograd off from the first block up to the memory."""
    blocks = model.base_model.layers

    def switch_off(block: Any, args: Any) -> None:
        torch.set_grad_enabled(False)

    def switch_on(block: Any, args: Any, output: Any) -> None:
        torch.set_grad_enabled(True)

    off = blocks[0].register_forward_pre_hook(switch_off)
    on = blocks[layer].register_forward_hook(switch_on, prepend=True)
    try:
        yield
    finally:
        off.remove()
        on.remove()


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield
