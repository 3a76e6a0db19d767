"""The rival: one trial as a competent user would write it with `transformers` alone.

The whole model in every step, the memory in a forward hook, the base frozen, AdamW, `generate` for the claims. It takes
its texts, order of batches, entry sets and initial memory from the project, so that both compute the same thing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

from benchmarks.common import fever_questions
from trainables.adapters.memory.bank import Memory
from trainables.adapters.memory.entry_sets import EntrySet, EntrySets
from trainables.adapters.memory.plan import MemoryPlan
from trainables.lm.batches import epoch_order
from trainables.lm.card import ModelCard
from trainables.lm.reference import attach_memory
from trainables.lm.weights import model_folder
from trainables.pack.process_cache import StudyTexts
from trainables.probes.answer_letter import MAX_ANSWER_TOKENS, parse_answer
from trainables.trial.spec import TrialSpec

EVALUATION_BATCH = 16


@dataclass
class TrialTimes:
    """What one trial took and gave.

    Attributes:
        load_s: seconds to load the model (for ours: and to fill the cache of hidden states, when it is cold).
        train_s: seconds of training.
        measure_s: seconds of measuring the memorisation error.
        evaluate_s: seconds of answering the claims.
        curve: mean NLL per target token, per epoch.
        nll: memorisation error after training: the same over all pages, nothing updated in between.
        letters: the answer to each claim.
        leakage: mean leakage per token, per epoch; empty where the trial has no entry set.
    """

    load_s: float
    train_s: float
    measure_s: float
    evaluate_s: float
    curve: list[float]
    nll: float
    letters: list[str | None]
    leakage: list[float] = field(default_factory=list)

    @property
    def warm_s(self) -> float:
        """Training and evaluation."""
        return self.train_s + self.evaluate_s


class _KeepsActivations(Memory):
    """The same memory; the inductive loss reads the activations of the latest call."""

    activations: Tensor

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what is to be added to `hidden`; no entry is silenced."""
        self.activations = F.gelu(self.up(hidden.float()))
        out: Tensor = self.down(self.activations)
        if self.ln is not None and self.gate is not None:
            out = self.ln(out) * self.gate
        return out.to(hidden.dtype)


def run_plain(
    card: ModelCard,
    spec: TrialSpec,
    texts: StudyTexts,
    tokenizer: Any,
    nograd: bool = False,
    device: torch.device | str = "cpu",
) -> TrialTimes:
    """Run one trial; with `nograd` no autograd graph is kept below the memory.

    Args:
        card: the model.
        spec: canonical; a memory at one block, documents memorised, entry sets by the inductive loss or not at all.
        texts: what is memorised and asked.
        tokenizer: the model's.
        nograd: leave the blocks below the memory out of the graph.
        device: where it runs.
    """
    assert spec.layer is not None and (spec.mode == "inductive" or spec.allocation == "none")
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(
        model_folder(card), dtype=getattr(torch, spec.dtype), device_map={"": device}
    )
    model.eval().requires_grad_(False)
    memory = _KeepsActivations(card.model_dim, spec.memory_dim, spec.norm_and_gate, spec.seed).to(device)
    handle = attach_memory(model, memory, spec.layer)
    loaded = time.perf_counter()
    with _no_graph_below(model, spec.layer) if nograd else _as_it_is():
        curve, leaked = _train(model, memory, spec, texts)
    trained = time.perf_counter()
    nll = _memorisation_error(model, texts, spec.batch_size)
    measured = time.perf_counter()
    prompts = [list(asked.prompt) for asked in fever_questions(texts).prompts]
    letters = _evaluate(model, tokenizer, prompts)
    handle.remove()
    taken = (loaded - start, trained - loaded, measured - trained, time.perf_counter() - measured)
    return TrialTimes(*taken, curve, nll, letters, leaked)


def _train(
    model: Any, memory: _KeepsActivations, spec: TrialSpec, texts: StudyTexts
) -> tuple[list[float], list[float]]:
    """Train the memory; return the mean NLL per target and, with an entry set, the mean leakage per token, by epoch."""
    entries: EntrySet | None = None
    if spec.allocation != "none":
        plan = MemoryPlan.from_fields(vars(spec))
        entries = EntrySets(texts.segments, len(texts.documents)).of(plan.setting, spec.memory_dim)
    optimiser = torch.optim.AdamW(memory.parameters(), lr=spec.lr, weight_decay=spec.weight_decay)
    steps = -(-len(texts.train) // spec.batch_size) * spec.epochs
    schedule = get_cosine_schedule_with_warmup(optimiser, spec.warmup_steps, steps)
    curve, leaked = [], []
    for epoch in range(spec.epochs):
        total = count = leak_total = leak_count = 0.0
        order = epoch_order(len(texts.train), spec.seed, epoch)
        for first in range(0, len(order), spec.batch_size):
            batch = [texts.train[i] for i in order[first : first + spec.batch_size]]
            chosen = [text.tree.tokens for text in batch]
            tokens, mask = _pad(chosen, False, model.device)
            labels = tokens.masked_fill(mask == 0, -100)
            lm_loss = loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
            if entries is not None:
                allowed = entries.mask([t.document for t in batch], [t.tree for t in batch], model.device)
                leak = _leakage(memory.activations, allowed, mask)
                loss = lm_loss + spec.alpha * leak
                real = int(mask.sum())
                leak_total, leak_count = leak_total + leak.item() * real, leak_count + real
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(memory.parameters(), spec.grad_clip)
            optimiser.step()
            schedule.step()
            targets = sum(len(text) - 1 for text in chosen)
            total, count = total + lm_loss.item() * targets, count + targets
        curve.append(total / count)
        if entries is not None:
            leaked.append(leak_total / leak_count)
    return curve, leaked


@torch.no_grad()
def _memorisation_error(model: Any, texts: StudyTexts, batch_size: int) -> float:
    total = count = 0.0
    for first in range(0, len(texts.segments), batch_size):
        rows = [text.tree.tokens for text in texts.segments[first : first + batch_size]]
        tokens, mask = _pad(rows, False, model.device)
        targets = sum(len(row) - 1 for row in rows)
        loss = model(input_ids=tokens, attention_mask=mask, labels=tokens.masked_fill(mask == 0, -100)).loss
        total, count = total + loss.item() * targets, count + targets
    return total / count


def _leakage(activations: Tensor, allowed: Tensor | None, mask: Tensor) -> Tensor:
    """Return the share of the squared activations outside the allowed entries, mean over the tokens there are."""
    energy = activations[mask.bool()].square()
    outside = (energy * ~allowed).sum(-1) if allowed is not None else torch.zeros_like(energy[..., 0])
    return (outside / energy.sum(-1)).mean()


@torch.no_grad()
def _evaluate(model: Any, tokenizer: Any, prompts: Sequence[list[int]]) -> list[str | None]:
    letters: list[str | None] = []
    for first in range(0, len(prompts), EVALUATION_BATCH):
        tokens, mask = _pad(prompts[first : first + EVALUATION_BATCH], True, model.device)
        written = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=MAX_ANSWER_TOKENS,
            pad_token_id=tokenizer.eos_token_id or 0,
        )[:, tokens.shape[1] :]
        letters += [parse_answer(text) for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
    return letters


def _pad(rows: Sequence[Sequence[int]], left: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, text in enumerate(rows):
        place = slice(width - len(text), width) if left else slice(0, len(text))
        tokens[row, place] = torch.tensor(text)
        mask[row, place] = 1
    return tokens.to(device), mask.to(device)


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
