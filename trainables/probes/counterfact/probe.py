"""The CounterFact probe: sampled completions of a fact's prompt, and how often they name its target.

Records are those of CounterFact (Meng et al. 2022): a prompt about a subject, paraphrases of it, prompts
about neighbouring subjects for which the true target holds as well, and a new, counterfactual target. As
in note 002, several answers are sampled per prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.data.corpus import subject_of
from trainables.data.counterfact import CounterfactRecord, facts_to_ask, load_counterfact
from trainables.data.documents import Document
from trainables.lm.members import ModelMembers
from trainables.lm.tokens import encode
from trainables.probes.counterfact.plan import CounterfactPlan
from trainables.probes.counterfact.targets import GROUPS, sample_scores
from trainables.probes.probe import Finding, Probe
from trainables.probes.sampling import AnswerSampler, NextLogits, WholeModelSampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class CounterfactProbe(Probe[CounterfactPlan]):
    """CounterFact records made ready to be asked of any number of members."""

    def __init__(
        self,
        plan: CounterfactPlan,
        records: Sequence[CounterfactRecord],
        tokenizer: PreTrainedTokenizerBase,
        documents: Sequence[Document] = (),
    ) -> None:
        """Tokenise all prompts.

        Args:
            plan: how to ask.
            records: what to ask.
            tokenizer: of the language model.
            documents: of the trial.
        """
        self.plan = plan
        self._records = list(records)
        self._titles = [document.title for document in documents]
        about = {subject_of(title): place for place, title in reversed(list(enumerate(self._titles)))}
        self._pages = [about.get(subject_of(record.subject)) for record in self._records]
        self._sampler = AnswerSampler(tokenizer, plan.answer_tokens, plan.temperature)
        self._prompts = [[encode(tokenizer, text) for text in _questions(record)] for record in self._records]

    @classmethod
    def make(
        cls, plan: CounterfactPlan, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase
    ) -> CounterfactProbe:
        """Read the records: those about a document first, in file order, `plan.counterfact_records` of them.

        Raises:
            ConfigError: none is left beside those that are trained on.
            DataError: no source has any, or a file is broken.
        """
        titles = [document.title for document in documents]
        known = facts_to_ask(load_counterfact(plan.data), titles, plan.template_facts)
        return cls(plan, known[: plan.counterfact_records], tokenizer, documents)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many records are asked about subjects whose page is a document, and about others."""
        with_page = sum(page is not None for page in self._pages)
        return {"counterfact_with_page": with_page, "counterfact_without_page": len(self._pages) - with_page}

    @property
    def longest_text(self) -> tuple[int, str]:
        """The longest prompt, its answer's last token not read."""
        longest = max((len(prompt) for prompts in self._prompts for prompt in prompts), default=0)
        return longest + self.plan.answer_tokens - 1, "lower answer_tokens, or leave CounterFact out"

    def ask(self, members: ModelMembers) -> list[Finding]:
        """Sample answers of every member from the whole model: sampled text has no hidden states that are kept.

        A member that is masked is asked about a record with the entry set of the record's page; where the subject has
        no page among the documents there is no such set, and every entry is used.
        """
        return [self._ask_member(members, member) for member in range(members.num_members)]

    def ask_one(self, model: NextLogits) -> Finding:
        """Sample one member's answers, every entry used, and score them.

        The randomness of a record's answers is a function of the plan's seed and the record's `case_id`: it does not
        depend on the other records, members or batches. Each metric is the mean over records of the mean over a
        record's answers (to its own prompt, its paraphrases or its neighbours).

        Args:
            model: the member's next-token logits.
        """
        return self._finding(self._sample(model, range(len(self._records))), frozenset())

    def _ask_member(self, members: ModelMembers, member: int) -> Finding:
        masked = [at for at, page in enumerate(self._pages) if page is not None and members.is_masked(member, page)]
        free = sorted({*range(len(self._records))} - {*masked})
        answers: dict[int, list[list[str]]] = {}
        if free:
            with members.attached(member) as model:
                answers |= self._sample(WholeModelSampler(model, model.device), free)
        for page, own in groupby(sorted(masked, key=self._page_of), key=self._page_of):
            with members.attached(member, page) as model:
                answers |= self._sample(WholeModelSampler(model, model.device), list(own))
        found = self._finding(answers, frozenset(masked))
        if not self._records or not members.is_masked(member, 0):
            return found
        return Finding({**found.metrics, "masked": len(masked) / len(self._records)}, found.answers)

    def _page_of(self, at: int) -> int:
        page = self._pages[at]
        assert page is not None
        return page

    def _sample(self, model: NextLogits, which: Sequence[int]) -> dict[int, list[list[str]]]:
        """Return the answers to every prompt of some records, by their places."""
        if not which:
            return {}
        shape = (self.plan.num_answers, self.plan.answer_tokens)
        uniforms = [
            np.random.default_rng([self.plan.seed, self._records[at].case_id]).random((len(self._prompts[at]), *shape))
            for at in which
        ]
        flat = [prompt for at in which for prompt in self._prompts[at]]
        texts = iter(self._sampler.sample(model, flat, np.concatenate(uniforms)))
        return {at: [next(texts) for _ in self._prompts[at]] for at in which}

    def _finding(self, answers: Mapping[int, list[list[str]]], masked: Collection[int]) -> Finding:
        """Score the answers to all records: over all of them, and by whether a document is about the subject."""
        scores: dict[str, list[float]] = {name: [] for name in self.plan.metrics}
        samples: list[dict[str, Any]] = []
        apart = len({page is None for page in self._pages}) > 1
        for at, (record, page) in enumerate(zip(self._records, self._pages, strict=True)):
            own, *others = answers[at]
            count = len(record.paraphrase_prompts)
            sample = {
                "case_id": record.case_id,
                "page": None if page is None else self._titles[page],
                "masked": at in masked,
                "prompt": record.question,
                "target_true": record.target_true,
                "target_new": record.target_new,
                "answers": own,
                "paraphrase_answers": [text for texts in others[:count] for text in texts],
                "neighborhood_answers": [text for texts in others[count:] for text in texts],
            }
            group = GROUPS[0] if page is not None else GROUPS[1]
            for name, value in sample_scores(sample).items():
                for known in (name, *((f"{group}_{name}",) if apart else ())):
                    scores[known].append(value)
            samples.append(sample)
        return Finding({name: fmean(found) for name, found in scores.items() if found}, samples)


def _questions(record: CounterfactRecord) -> tuple[str, ...]:
    return (record.question, *record.paraphrase_prompts, *record.neighborhood_prompts)
