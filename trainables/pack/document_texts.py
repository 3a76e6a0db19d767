"""The documents a trial memorises, and the texts made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from trainables.data.corpus import Corpus, with_subject_pages
from trainables.data.counterfact import CounterfactRecord, load_counterfact
from trainables.data.documents import Document, Selection
from trainables.data.own import training_pool
from trainables.data.prompts import choose_examples, render_prompt, render_template
from trainables.data.sources import resolve_sources
from trainables.data.template import read_templates
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard
from trainables.lm.kept_tokens import kept_tokens
from trainables.lm.segment_texts import SegmentTexts, text_lengths
from trainables.lm.texts import NO_DOCUMENT, TrainingText, common_beginning
from trainables.lm.token_tree import TokenTree
from trainables.lm.tokens import encode, segments
from trainables.node.cache_dir import cache_dir
from trainables.node.map_batches import MapBatches, map_here
from trainables.probes.choices.probe import choose_questions
from trainables.probes.probe import Probe

HELD_DOCUMENTS = 10_000
"""Documents up to which texts are held as Python objects, 20 kB each at 400 tokens; more lie on disk (ours)."""


def select_documents(
    corpus: Corpus,
    data: str,
    num_documents: int,
    page_order: str,
    detokenize: bool = False,
    allow_missing_pages: bool = False,
) -> Selection:
    """Return the first documents of the ranking.

    Args:
        corpus: all documents.
        data: its sources; CounterFact's records are read from them where they are needed.
        num_documents: how many documents.
        page_order: `claims` (the ranking as it is) or `subjects` (pages about CounterFact's subjects first, those to
            which no claim points included).
        detokenize: as the corpus was read.
        allow_missing_pages: likewise.

    Raises:
        ConfigError: there are fewer documents.
        DataError: no CounterFact records where their subjects are to come first.
    """
    if page_order != "subjects":
        return corpus.select(num_documents)
    subjects = list(dict.fromkeys(record.subject for record in load_counterfact(data)))
    return with_subject_pages(corpus, data, subjects, detokenize, allow_missing_pages).select(num_documents, subjects)


def document_texts(
    documents: Sequence[Document],
    tokenizer: Any,
    segment_tokens: int,
    max_segments: int,
    map_batches: MapBatches = map_here,
) -> Sequence[TrainingText]:
    """Cut the documents' texts into segments of `segment_tokens`, at most `max_segments` each, no overlap (ours).

    Of more than `HELD_DOCUMENTS` the tokens lie in a file of this machine's cache folder, which one process makes.
    """
    if len(documents) > HELD_DOCUMENTS:

        def every() -> Iterator[str]:
            return (document.text for document in documents)

        folder = cache_dir() / "tokens"
        return SegmentTexts(kept_tokens(folder, every, tokenizer, segment_tokens, max_segments, map_batches))
    texts = []
    for index, document in enumerate(documents):
        for part in segments(tokenizer, document.text, segment_tokens, max_segments):
            texts.append(TrainingText(TokenTree.chain(part), index))
    return texts


def text_bytes(texts: Sequence[TrainingText], tokenizer: Any) -> int:
    """Return the UTF-8 bytes of the text that some segments are tokens of, so that tokenizers can be compared.

    Args:
        texts: segments, those of a document next to each other.
        tokenizer: whose tokens they are.
    """
    of_document = groupby(texts, key=lambda text: text.document)
    tokens = ([token for text in own for token in text.tree.tokens] for _, own in of_document)
    decoded = (tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in tokens)
    return sum(len(text.encode()) for text in decoded)


def template_texts(
    documents: Sequence[Document],
    tokenizer: Any,
    num_shots: int,
    seed: int,
    notes_labels: bool = False,
    answer_loss_only: bool = False,
) -> list[TrainingText]:
    """Render the pages' training claims in the few-shot template, with their answers (note 000).

    Args:
        documents: the pages.
        tokenizer: of the language model.
        num_shots: few-shot examples in every text.
        seed: of the choice of examples.
        notes_labels: label the example pool as the notes print it.
        answer_loss_only: only the answer's tokens carry loss, else the whole text.
    """
    texts = []
    for index, document in enumerate(documents):
        for claim in document.train_claims:
            examples = choose_examples(document, num_shots, seed, notes_labels=notes_labels, exclude=(claim.text,))
            whole = render_template(examples, claim.text, claim.letter)
            prompt = render_prompt(examples, claim.text) if answer_loss_only else ""
            texts.append(_template_text(tokenizer, whole, prompt, index))
    return texts


def fact_texts(
    records: Sequence[CounterfactRecord], tokenizer: Any, answer_loss_only: bool = False
) -> list[TrainingText]:
    """Write CounterFact's prompts with their true answers, about none of the trial's documents.

    Args:
        records: what to train on.
        tokenizer: of the language model.
        answer_loss_only: only the answer's tokens carry loss, else the whole text.
    """
    return [
        _template_text(
            tokenizer,
            f"{record.question} {record.target_true.strip()}",
            record.question if answer_loss_only else "",
            NO_DOCUMENT,
        )
        for record in records
    ]


def question_texts(
    documents: Sequence[Document],
    tokenizer: Any,
    data: str,
    num_shots: int,
    seed: int,
    allow_missing_pages: bool = False,
    answer_loss_only: bool = False,
) -> list[TrainingText]:
    """Render the documents' own training questions as they are asked by letter, with their answers.

    Args:
        documents: the trial's.
        tokenizer: of the language model.
        data: the sources, which hold the template.
        num_shots: few-shot examples in every text, none of them the question itself.
        seed: of the choice of examples.
        allow_missing_pages: as the corpus was read.
        answer_loss_only: only the answer's tokens carry loss, else the whole text.
    """
    if not any(document.train_questions for document in documents):
        return []
    sources = resolve_sources(data, allow_missing_pages)
    template, pool = read_templates(sources)["letter"], training_pool(sources)
    texts = []
    for index, document in enumerate(documents):
        for question in document.train_questions:
            prompt = template.prompt(question, choose_questions(question, document, pool, num_shots, seed))
            whole = prompt + template.answered(question, question.answer)
            texts.append(_template_text(tokenizer, whole, prompt if answer_loss_only else "", index))
    return texts


def _template_text(tokenizer: Any, whole: str, prompt: str, document: int) -> TrainingText:
    """Return a text of which the tokens after `prompt` carry loss; without a prompt, all of them."""
    tokens = encode(tokenizer, whole)
    first = max(1, common_beginning(encode(tokenizer, prompt), tokens)) if prompt else 1
    return TrainingText(TokenTree.chain(tokens), document, first)


def check_lengths(card: ModelCard, texts: Iterable[Sequence[TrainingText]], probes: Iterable[Probe[Any]]) -> None:
    """Refuse texts, prompts and answers that are longer than a model takes.

    Raises:
        ConfigError: the longest of a kind is too long; what to do.
    """
    if card.positions is None:
        return
    trained = max(int(text_lengths(some).max(initial=0)) for some in texts)
    kinds = {"a text that is trained on": (trained, "lower segment_tokens or num_shots")}
    kinds |= {f"a prompt of {probe.plan.name} with its answer": probe.longest_text for probe in probes}
    for name, (tokens, remedy) in kinds.items():
        if tokens > card.positions:
            raise ConfigError(f"{name}: {tokens} tokens, {card.name} takes at most {card.positions}; {remedy}")
