from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.lm.reference import attach_memory
from trainables.lm.tokens import encode
from trainables.probes.sampling import AnswerSampler, WholeModelSampler


class Fixed:
    """A model with the same next-token probabilities everywhere."""

    def __init__(self, probabilities: Tensor) -> None:
        self.logits = probabilities.log()

    def next_logits(self, sequences: list[list[int]]) -> Tensor:
        return self.logits.expand(len(sequences), -1)


def test_tokens_are_drawn_in_proportion_to_their_probability(neox_tokenizer: Any) -> None:
    tokens = [encode(neox_tokenizer, text)[0] for text in "xyz"]
    probabilities = torch.zeros(len(neox_tokenizer))
    probabilities[tokens] = torch.tensor([0.2, 0.5, 0.3])
    uniforms = np.random.default_rng(0).random((1, 4000, 1))
    sampler = AnswerSampler(neox_tokenizer, answer_tokens=1, temperature=1.0)
    (answers,) = sampler.sample(Fixed(probabilities), [encode(neox_tokenizer, "A:")], uniforms)
    assert set(answers) == set("xyz")
    for text, share in zip("xyz", (0.2, 0.5, 0.3), strict=True):
        assert abs(answers.count(text) / 4000 - share) < 0.03


def test_the_extreme_draws_give_possible_tokens(neox_tokenizer: Any) -> None:
    tokens = [encode(neox_tokenizer, text)[0] for text in "xy"]
    probabilities = torch.zeros(len(neox_tokenizer))
    probabilities[tokens] = 0.5
    uniforms = np.array([[[0.0], [np.nextafter(1.0, 0.0)]]])
    sampler = AnswerSampler(neox_tokenizer, answer_tokens=1, temperature=1.0)
    (answers,) = sampler.sample(Fixed(probabilities), [encode(neox_tokenizer, "A:")], uniforms)
    assert sorted(answers) == ["x", "y"]


def test_batches_do_not_change_answers(tokenizer: Any, tiny_model: Callable[[Any, int], Any]) -> None:
    model = WholeModelSampler(whole(tiny_model(tokenizer, 0)))
    prompts = [encode(tokenizer, text) for text in ("Tetris is", "Tetris is a", "Röyksopp comes from")]
    uniforms = np.random.default_rng(1).random((3, 4, 3))
    large, small = (
        AnswerSampler(tokenizer, 3, 1.5, batch_answers=size).sample(model, prompts, uniforms) for size in (64, 5)
    )
    assert large == small


def test_the_whole_model_sampler_gives_the_plain_models_logits(
    tokenizer: Any, tiny_model: Callable[[Any, int], Any]
) -> None:
    model = tiny_model(tokenizer, 2)
    texts = ("Tetris is a game", "Tetris is", "Tetris", "Norway is far", "Norway is near")
    sequences = [encode(tokenizer, text) for text in texts]
    for memory in (None, torch.tanh):
        handle = attach_memory(model, memory, 0) if memory else None
        plain = torch.stack([model(torch.tensor([ids])).logits[0, -1] for ids in sequences])
        for size in (512, 8):
            sampled = WholeModelSampler(whole(model), max_tree_tokens=size).next_logits(sequences)
            torch.testing.assert_close(sampled, plain)
        if handle:
            handle.remove()


def whole(model: Any) -> Callable[[Tensor, Tensor | None, Tensor | None], Tensor]:
    """The signature of `WholeModel` around a model at hand."""

    def forward(tokens: Tensor, attention_mask: Tensor | None, positions: Tensor | None) -> Tensor:
        logits: Tensor = model(input_ids=tokens, attention_mask=attention_mask, position_ids=positions).logits
        return logits

    return forward
