"""The texts a trial memorises, as token trees with the place where their loss begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainables.data.documents import LETTERS, Document
from trainables.data.prompts import choose_examples, render_prompt, render_template
from trainables.lm.token_tree import TokenTree
from trainables.lm.tokens import encode, segments
from trainables.trial.spec import TrialSpec


@dataclass(frozen=True)
class TrainingText:
    """One text.

    Attributes:
        tree: its tokens, a chain.
        document: index of the document it belongs to.
        first_target: index of the first token that is predicted; those before it carry no loss.
    """

    tree: TokenTree
    document: int
    first_target: int = 1

    @property
    def num_targets(self) -> int:
        """Tokens that carry loss."""
        return len(self.tree) - self.first_target


def document_texts(documents: Sequence[Document], tokenizer: Any, spec: TrialSpec) -> list[TrainingText]:
    """Cut the documents' texts into segments of `segment_tokens`, at most `max_segments` each, no overlap (ours)."""
    texts = []
    for index, document in enumerate(documents):
        for part in segments(tokenizer, document.text, spec.segment_tokens, spec.max_segments):
            if len(part) > 1:
                texts.append(TrainingText(TokenTree.chain(part), index))
    return texts


def template_texts(documents: Sequence[Document], tokenizer: Any, spec: TrialSpec) -> list[TrainingText]:
    """Render the pages' training claims in the few-shot template, with their answers (note 000).

    With `template_loss="answer"` only the answer's tokens carry loss, else the whole text.
    """
    texts = []
    for index, document in enumerate(documents):
        for claim in document.train_claims:
            examples = choose_examples(
                document, spec.num_shots, spec.seed, notes_labels=spec.notes_labels, exclude=claim.text
            )
            tokens = encode(tokenizer, render_template(examples, claim.text, LETTERS[claim.label]))
            first = 1
            if spec.template_loss == "answer":
                prompt = encode(tokenizer, render_prompt(examples, claim.text))
                first = max(1, _common_prefix(prompt, tokens))
            texts.append(TrainingText(TokenTree.chain(tokens), index, first))
    return texts


def training_texts(documents: Sequence[Document], tokenizer: Any, spec: TrialSpec) -> list[TrainingText]:
    """Return the texts that `spec.content` names: documents, templates or both."""
    texts = []
    if spec.content in ("document", "document+template"):
        texts += document_texts(documents, tokenizer, spec)
    if spec.content in ("template", "document+template"):
        texts += template_texts(documents, tokenizer, spec)
    return texts


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
