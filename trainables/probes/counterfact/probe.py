"""The CounterFact probe: sampled completions of a fact's prompt, and how often they name its target.

Records are those of CounterFact (Meng et al. 2022): a prompt about a subject, paraphrases of it, prompts
about neighbouring subjects for which the true target holds as well, and a new, counterfactual target. As
in note 002, several answers are sampled per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.data.corpus import subject_of
from trainables.data.counterfact import CounterfactRecord, load_counterfact
from trainables.data.documents import Document
from trainables.lm.members import ModelMembers
from trainables.lm.tokens import encode
from trainables.probes.counterfact.plan import CounterfactPlan
from trainables.probes.counterfact.targets import METRICS, sample_scores
from trainables.probes.probe import Finding, Probe
from trainables.probes.sampling import AnswerSampler, NextLogits, WholeModelSampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class CounterfactProbe(Probe[CounterfactPlan]):
    """CounterFact records made ready to be asked of any number of members."""

    def __init__(
        self, plan: CounterfactPlan, records: Sequence[CounterfactRecord], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Tokenise all prompts.

        Args:
            plan: how to ask.
            records: what to ask.
            tokenizer: of the language model.
        """
        self.plan = plan
        self._records = list(records)
        self._sampler = AnswerSampler(tokenizer, plan.answer_tokens, plan.temperature)
        self._prompts = [[encode(tokenizer, text) for text in _questions(record)] for record in self._records]

    @classmethod
    def make(
        cls, plan: CounterfactPlan, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase
    ) -> CounterfactProbe:
        """Read the records: those about a document first, in file order, `plan.counterfact_records` of them.

        Raises:
            DataError: no source has any, or a file is broken.
        """
        subjects = {subject_of(document.title) for document in documents}
        known = sorted(load_counterfact(plan.data), key=lambda record: record.subject not in subjects)
        return cls(plan, known[: plan.counterfact_records], tokenizer)

    @property
    def longest_text(self) -> tuple[int, str]:
        """The longest prompt, its answer's last token not read."""
        longest = max((len(prompt) for prompts in self._prompts for prompt in prompts), default=0)
        return longest + self.plan.answer_tokens - 1, "lower answer_tokens, or leave CounterFact out"

    def ask(self, members: ModelMembers) -> list[Finding]:
        """Sample answers of every member from the whole model: sampled text has no hidden states that are kept."""
        found = []
        for member in range(members.num_members):
            with members.attached(member) as model:
                found.append(self.ask_one(WholeModelSampler(model, model.device)))
        return found

    def ask_one(self, model: NextLogits) -> Finding:
        """Sample one member's answers and score them.

        The randomness of a record's answers is a function of the plan's seed and the record's `case_id`: it does not
        depend on the other records, members or batches. Each metric is the mean over records of the mean over a
        record's answers (to its own prompt, its paraphrases or its neighbours).

        Args:
            model: the member's next-token logits.
        """
        if not self._records:
            return Finding({}, [])
        shape = (self.plan.num_answers, self.plan.answer_tokens)
        uniforms = [
            np.random.default_rng([self.plan.seed, record.case_id]).random((len(prompts), *shape))
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
        return Finding({name: fmean(found) for name, found in scores.items() if found}, samples)


def _questions(record: CounterfactRecord) -> tuple[str, ...]:
    return (record.question, *record.paraphrase_prompts, *record.neighborhood_prompts)
