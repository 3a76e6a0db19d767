"""The CounterFact probe: sampled completions of a fact's prompt, and how often they name its target.

Records are those of CounterFact (Meng et al. 2022): a prompt about a subject, paraphrases of it, prompts
about neighbouring subjects for which the true target holds as well, and a new, counterfactual target. As
in note 002, several answers are sampled per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.data.counterfact import CounterfactRecord
from trainables.lm.tokens import encode
from trainables.probes.sampling import AnswerSampler, Sampler
from trainables.probes.targets import METRICS, sample_scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class CounterfactResult:
    """What one member's probe found.

    Attributes:
        metrics: `METRICS`, between 0 and 1. Each is the mean over records of the mean over a record's answers
            (to its own prompt, its paraphrases or its neighbours); one for which no record has prompts is
            left out.
        samples: per record `prompt`, `target_true`, `target_new`, and the `answers` to the prompt, to its
            paraphrases (`paraphrase_answers`) and neighbours (`neighborhood_answers`), as plain values.
    """

    metrics: dict[str, float]
    samples: list[dict[str, Any]]


class CounterfactProbe:
    """CounterFact records made ready to be asked of any number of members."""

    def __init__(
        self,
        records: Sequence[CounterfactRecord],
        tokenizer: PreTrainedTokenizerBase,
        num_answers: int = 5,
        answer_tokens: int = 5,
        temperature: float = 1.0,
    ) -> None:
        """Tokenise all prompts.

        Args:
            records: what to ask.
            tokenizer: of the language model.
            num_answers: answers sampled per prompt.
            answer_tokens: tokens per answer; a target that needs more can never be named.
            temperature: of the sampling, above 0.
        """
        self._records = list(records)
        self._num_answers = num_answers
        self._sampler = AnswerSampler(tokenizer, answer_tokens, temperature)
        self._prompts = [[encode(tokenizer, text) for text in _questions(record)] for record in self._records]

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt."""
        return max((len(prompt) for prompts in self._prompts for prompt in prompts), default=0)

    def run(self, model: Sampler, seed: int) -> CounterfactResult:
        """Sample one member's answers and measure them.

        The randomness of a record's answers is a function of `seed` and its `case_id`: it does not depend
        on the other records, members or batches.

        Args:
            model: the member's next-token logits.
            seed: of the trial.
        """
        if not self._records:
            return CounterfactResult({}, [])
        shape = (self._num_answers, self._sampler.answer_tokens)
        uniforms = [
            np.random.default_rng([seed, record.case_id]).random((len(prompts), *shape))
            for record, prompts in zip(self._records, self._prompts, strict=True)
        ]
        flat = [prompt for prompts in self._prompts for prompt in prompts]
        answers = iter(self._sampler.sample(model, flat, np.concatenate(uniforms)))
        scores: dict[str, list[float]] = {name: [] for name in METRICS}
        samples: list[dict[str, Any]] = []
        for record in self._records:
            own = next(answers)
            paraphrases = [text for _ in record.paraphrase_prompts for text in next(answers)]
            neighbors = [text for _ in record.neighborhood_prompts for text in next(answers)]
            sample = {
                "prompt": record.question,
                "target_true": record.target_true,
                "target_new": record.target_new,
                "answers": own,
                "paraphrase_answers": paraphrases,
                "neighborhood_answers": neighbors,
            }
            for name, value in sample_scores(sample).items():
                scores[name].append(value)
            samples.append(sample)
        return CounterfactResult({name: fmean(found) for name, found in scores.items() if found}, samples)


def _questions(record: CounterfactRecord) -> tuple[str, ...]:
    return (record.question, *record.paraphrase_prompts, *record.neighborhood_prompts)
