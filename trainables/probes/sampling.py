"""Sampled continuations of prompts, from any model that gives next-token logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.lm.token_tree import build_trees, collate
from trainables.lm.tokens import end_tokens
from trainables.probes.answer_letter import ContinuationDecoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class NextLogits(Protocol):
    """One member's language model, memory included, as sampling needs it."""

    def next_logits(self, sequences: list[list[int]]) -> Tensor:
        """Return the logits of the token after each sequence: `[N, vocab]` for N different sequences.

        Sequences that share a beginning stand together, so `build_trees` merges them well.
        """


class WholeModelSampler:
    """The plain reference: the whole model, its memory attached by a hook, every step run anew."""

    def __init__(
        self,
        model: Callable[[Tensor, Tensor | None, Tensor | None], Tensor],
        device: torch.device | str = "cpu",
        max_tree_tokens: int = 512,
    ) -> None:
        """Sample from `model`.

        Args:
            model: a `trainables.lm.reference.WholeModel`: tokens, attention mask and positions to logits.
            device: where the model is.
            max_tree_tokens: largest tree run at a time; logits are made for all of it.
        """
        self._model = model
        self._device = device
        self._max_tree_tokens = max_tree_tokens

    @torch.no_grad()
    def next_logits(self, sequences: list[list[int]]) -> Tensor:
        """Return the logits of the token after each sequence: `[N, vocab]`."""
        trees, ends = build_trees(sequences, self._max_tree_tokens)
        rows: list[Tensor] = []
        for index, tree in enumerate(trees):
            batch = collate([tree], self._device)
            logits = self._model(batch.tokens, batch.attention_mask, batch.positions)
            rows.append(logits[0, [node for at, node in ends if at == index]])
        return torch.cat(rows)  # a sequence's tree never comes before that of the sequence ahead of it


class AnswerSampler:
    """Samples the continuations of many prompts side by side."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        answer_tokens: int,
        temperature: float,
        batch_answers: int = 128,
    ) -> None:
        """Fix how answers are sampled.

        Args:
            tokenizer: decodes; any of its model's end-of-sequence tokens ends an answer.
            answer_tokens: most tokens of an answer.
            temperature: the logits are divided by it; above 0.
            batch_answers: answers that grow together; several `[batch_answers, vocab]` float64 are held.
        """
        self.answer_tokens = answer_tokens
        self._temperature = temperature
        self._batch_answers = batch_answers
        self._decoder = ContinuationDecoder(tokenizer)
        self._ends = end_tokens(tokenizer)

    def sample(
        self, model: NextLogits, prompts: Sequence[Sequence[int]], uniforms: NDArray[np.float64]
    ) -> list[list[str]]:
        """Sample answers to every prompt.

        The randomness comes in as numbers, one per token, so a prompt's answers do not depend on what
        else is in the batch.

        Args:
            model: gives the logits.
            prompts: token ids.
            uniforms: `[prompts, answers, answer_tokens]`, between 0 and 1.

        Returns:
            For every prompt, the text of its answers.
        """
        num_answers = uniforms.shape[1]
        flat = [(list(prompt), draws) for prompt, rows in zip(prompts, uniforms, strict=True) for draws in rows]
        texts: list[str] = []
        for start in range(0, len(flat), self._batch_answers):
            batch = flat[start : start + self._batch_answers]
            generated = self._grow(model, batch)
            texts += [self._decoder.text(prompt, new) for (prompt, _), new in zip(batch, generated, strict=True)]
        return [texts[at * num_answers : (at + 1) * num_answers] for at in range(len(prompts))]

    def _grow(self, model: NextLogits, batch: Sequence[tuple[list[int], NDArray[np.float64]]]) -> list[list[int]]:
        """Return the tokens generated for every (prompt, draws), end of sequence left out."""
        generated: list[list[int]] = [[] for _ in batch]
        growing = list(range(len(batch)))
        for step in range(self.answer_tokens):
            sequences = [tuple(batch[at][0] + generated[at]) for at in growing]
            places = {sequence: place for place, sequence in enumerate(dict.fromkeys(sequences))}
            logits = model.next_logits([list(sequence) for sequence in places])
            rows = torch.tensor([places[sequence] for sequence in sequences], device=logits.device)
            draws = torch.tensor([batch[at][1][step] for at in growing], device=logits.device)
            tokens = _draw(logits, self._temperature, rows, draws)
            growing_on = []
            for at, token in zip(growing, tokens, strict=True):
                if token not in self._ends:
                    generated[at].append(token)
                    growing_on.append(at)
            growing = growing_on
            if not growing:
                break
        return generated


def _draw(logits: Tensor, temperature: float, rows: Tensor, draws: Tensor) -> list[int]:
    """Return, for each draw, the token at which its row's cumulative probability passes it.

    Args:
        logits: `[rows, vocab]`.
        temperature: divides the logits.
        rows: `[draws]`, which row each draw is for.
        draws: `[draws]`, float64 between 0 and 1.
    """
    cumulative = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    of_draw = cumulative[rows]
    tokens = torch.searchsorted(of_draw, (draws * of_draw[:, -1])[:, None], right=True)
    return [int(token) for token in tokens[:, 0].clamp(max=logits.shape[1] - 1).tolist()]
