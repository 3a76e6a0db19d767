"""Whether a text is memorised, as people can judge it: what the model writes after its title and first words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from trainables.data.corpus import subject_of
from trainables.data.documents import Document
from trainables.lm.members import ModelMembers
from trainables.lm.texts import common_beginning
from trainables.lm.token_tree import TokenTree
from trainables.lm.tokens import encode, end_tokens
from trainables.lm.writing import write_on
from trainables.probes.answer_letter import ContinuationDecoder
from trainables.probes.probe import Finding, Probe
from trainables.probes.recall.plan import RecallPlan
from trainables.probes.words import rouge_l, spoken_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Beginning:
    """A document whose rest is asked for.

    Attributes:
        document: its place among the trial's.
        page: its title.
        prompt: what is given, as text.
        given: the same as tokens; where a tokenizer joins the end of the prompt with what follows, less than that.
        rest: tokens asked for.
        expected: the rest as text.
    """

    document: int
    page: str
    prompt: str
    given: tuple[int, ...]
    rest: tuple[int, ...]
    expected: str


class RecallProbe(Probe[RecallPlan]):
    """The documents' beginnings, ready to be gone on with by any number of members."""

    def __init__(self, plan: RecallPlan, beginnings: Sequence[Beginning], tokenizer: PreTrainedTokenizerBase) -> None:
        """Make the trees in which the true rest is read."""
        self.plan, self.beginnings = plan, list(beginnings)
        self._decoder = ContinuationDecoder(tokenizer)
        self._ends = end_tokens(tokenizer)
        self._trees = [TokenTree.chain((*each.given, *each.rest[:-1])) for each in self.beginnings]
        self._documents = [each.document for each in self.beginnings]
        self._nodes = [range(len(each.given) - 1, len(each.given) + len(each.rest) - 1) for each in self.beginnings]

    @classmethod
    def make(
        cls, plan: RecallPlan, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase
    ) -> RecallProbe | None:
        """Cut the texts; None where none of them is longer than the words that are given."""
        decoder = ContinuationDecoder(tokenizer)
        found = [
            beginning
            for place, document in enumerate(documents)
            if (beginning := _beginning(plan, place, document, tokenizer, decoder))
        ]
        return cls(plan, found[: plan.recall_documents], tokenizer) if found else None

    @property
    def prompts(self) -> Sequence[TokenTree]:
        """The texts as they truly go on."""
        return self._trees

    @property
    def counts(self) -> Mapping[str, int]:
        """How many documents were asked for."""
        return {"recall_asked": len(self.beginnings)}

    @property
    def longest_text(self) -> tuple[int, str]:
        """The longest beginning with as much as may be written."""
        longest = max(len(each.given) for each in self.beginnings) + self.plan.recall_tokens
        return longest, f"lower recall_tokens, which is {self.plan.recall_tokens}"

    def ask(self, members: ModelMembers) -> list[Finding]:
        """Read the true rest with all members at once; let each member write, from the whole model.

        A member that is masked writes about each document with that document's entries.
        """
        likely = members.next_tokens(self._trees, self._documents, self._nodes)
        found = []
        for member, tokens in enumerate(likely.tolist()):
            written = self._written(members, member)
            found.append(self._finding(tokens, written))
        return found

    def _written(self, members: ModelMembers, member: int) -> list[list[int]]:
        masked = [at for at, document in enumerate(self._documents) if members.is_masked(member, document)]
        free = [at for at in range(len(self.beginnings)) if at not in set(masked)]
        written: dict[int, list[int]] = {}
        together = [(None, free)] if free else []
        for document, places in [*together, *((self._documents[at], [at]) for at in masked)]:
            with members.attached(member, document) as whole, whole.usual() as model:
                given = [self.beginnings[at].given for at in places]
                texts = write_on(model, given, self.plan.recall_tokens, self._ends)
                written |= dict(zip(places, texts, strict=True))
        return [written[at] for at in range(len(self.beginnings))]

    def _finding(self, likely: Sequence[int], written: Sequence[Sequence[int]]) -> Finding:
        """Compare one member's tokens and texts with what truly follows."""
        answers: list[dict[str, Any]] = []
        start = 0
        for each, tokens in zip(self.beginnings, written, strict=True):
            own = likely[start : start + len(each.rest)]
            start += len(each.rest)
            text = self._decoder.text(each.given, tokens)
            wanted, said = spoken_words(each.expected), spoken_words(text)
            answers.append(
                {
                    "page": each.page,
                    "prompt": each.prompt,
                    "expected": each.expected,
                    "written": text,
                    "tokens": len(each.rest),
                    "tokens_right": sum(one == other for one, other in zip(own, each.rest, strict=True)),
                    "rouge_l": rouge_l(said, wanted),
                    "words": len(wanted),
                    "words_right": common_beginning(said, wanted),
                }
            )
        return Finding(recall_metrics(answers), answers)


def recall_metrics(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the means over documents; a rest without any word counts as written word by word when nothing is."""
    return {
        "token_accuracy": fmean(row["tokens_right"] / row["tokens"] for row in answers),
        "rouge_l": fmean(row["rouge_l"] for row in answers),
        "verbatim": fmean(row["words_right"] / row["words"] if row["words"] else row["rouge_l"] for row in answers),
    }


def _beginning(
    plan: RecallPlan,
    place: int,
    document: Document,
    tokenizer: PreTrainedTokenizerBase,
    decoder: ContinuationDecoder,
) -> Beginning | None:
    """Cut one document after its first words; None where nothing follows them."""
    words = list(re.finditer(r"\S+", document.text))
    if len(words) <= plan.recall_words:
        return None
    title = f"{subject_of(document.title)}\n" if plan.recall_title else ""
    text = title + document.text[words[0].start() :]
    prompt = title + document.text[words[0].start() : words[plan.recall_words - 1].end()]
    whole = encode(tokenizer, text)
    alone = encode(tokenizer, prompt)
    shared = next((at for at, (one, other) in enumerate(zip(whole, alone, strict=False)) if one != other), len(alone))
    given, rest = whole[:shared], whole[shared : shared + plan.recall_tokens]
    if not given or not rest:
        return None
    return Beginning(place, document.title, prompt, tuple(given), tuple(rest), decoder.text(given, rest))
