"""The CounterFact probe as planning sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.probes.counterfact.targets import GROUPS, METRICS
from trainables.probes.plan import ProbePlan, Reading, TextSizes

if TYPE_CHECKING:
    from trainables.probes.counterfact.probe import CounterfactProbe

PROMPTS = 13
"""Prompts per record: its own, two paraphrases, ten of the neighbourhood."""
PROMPT_TOKENS = 12


@dataclass(frozen=True, kw_only=True)
class CounterfactPlan(ProbePlan):
    """CounterFact records, those about the trial's documents first.

    Every metric there is over all records; where the page of some subjects is among the documents and that of others is
    not, also over the two groups apart. `masked`: the share that a hard memory was asked with its page's entries only.

    Attributes:
        data: the sources, joined by commas.
        counterfact_records: records asked.
        template_facts: records trained on as templates; their subjects are not asked about.
        num_answers: answers sampled per prompt.
        answer_tokens: tokens per answer; a target that needs more can never be named.
        temperature: of the sampling, above 0.
        seed: of the sampling.
    """

    name: ClassVar[str] = "counterfact"
    version: ClassVar[int] = 2
    """2: targets are compared by words; a hard memory is masked with the set of the record's page."""
    metrics: ClassVar = dict.fromkeys(
        (*METRICS, *(f"{group}_{name}" for group in GROUPS for name in METRICS), "masked"), (0.0, 1.0)
    )
    answers: ClassVar = {
        "case_id": "int64",
        "page": "string",
        "masked": "bool",
        "prompt": "string",
        "target_true": "string",
        "target_new": "string",
        "answers": "list<string>",
        "paraphrase_answers": "list<string>",
        "neighborhood_answers": "list<string>",
    }

    data: str
    counterfact_records: int
    num_answers: int
    answer_tokens: int
    temperature: float
    seed: int
    template_facts: int = 0

    def reading(self, sizes: TextSizes, num_documents: int) -> Reading:
        """Return prompts and answers, token by token."""
        tokens = PROMPT_TOKENS + self.num_answers * self.answer_tokens
        return Reading(whole=self.counterfact_records * PROMPTS * tokens)

    @classmethod
    def load(cls) -> type[CounterfactProbe]:
        """Import the probe."""
        from trainables.probes.counterfact.probe import CounterfactProbe

        return CounterfactProbe
