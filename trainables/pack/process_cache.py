"""What a worker process keeps from one pack to the next: model parts, data, hidden states, questions.

Everything here depends on the model, the layer and the texts, never on a member; a reused process therefore loads,
tokenises and looks up each of them once for many packs. Only the latest of each kind is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from trainables.data.corpus import load_corpus
from trainables.data.documents import Document
from trainables.lm.card import ModelCard, model_card
from trainables.lm.hidden import HiddenStates
from trainables.lm.hidden_cache import HiddenCache
from trainables.lm.reference import WholeModel
from trainables.lm.tokens import load_tokenizer
from trainables.lm.upper import Upper, load_upper
from trainables.node.cache_dir import cache_dir
from trainables.pack.asking import counterfact_records, select_documents
from trainables.pack.batches import TextBatches
from trainables.pack.check import check_texts
from trainables.pack.entry_sets import EntrySets
from trainables.pack.evaluate import document_nll
from trainables.pack.texts import TrainingText, document_texts, training_texts
from trainables.probes.counterfact import CounterfactProbe
from trainables.probes.fever import FeverQuestions
from trainables.trial.spec import TrialSpec

T = TypeVar("T")


@dataclass
class StudyTexts:
    """The texts and questions of a trial; they depend on the tokenizer, not on the model's weights.

    Attributes:
        documents: the pages memorised, in rank order.
        counts: N_full, N_top, N_trunc and the row counts.
        segments: the documents' segments, on which the memorisation error is measured.
        train: texts that are trained on; the segments themselves where only documents are memorised.
        questions: FEVER prompts, or None where no page has a claim or FEVER is not asked.
        counterfact: CounterFact prompts, or None where they are not asked.
    """

    documents: tuple[Document, ...]
    counts: dict[str, int]
    segments: list[TrainingText]
    train: list[TrainingText]
    questions: FeverQuestions | None
    counterfact: CounterfactProbe | None


@dataclass
class Material:
    """The same as tensors at one layer, shared by the members of a pack.

    Attributes:
        train: texts that are trained on.
        segments: the documents' segments.
        entry_sets: builds allocations over the segments.
        nll_before: memorisation error of the pretrained model.
    """

    train: TextBatches
    segments: TextBatches
    entry_sets: EntrySets
    nll_before: float


class Workbench:
    """Loads on demand and keeps the latest.

    Args:
        device: where to compute.
        cache_bytes: limit of the hidden-state cache; None for half of the free disk.

    Attributes:
        timings: seconds spent by part since `take_timings` was last called.
    """

    def __init__(self, device: torch.device, cache_bytes: int | None) -> None:
        """Start empty."""
        self.device = device
        self._cache = HiddenCache(cache_dir() / "hidden", cache_bytes)
        self._kept: dict[str, tuple[Any, Any]] = {}
        self.timings: dict[str, float] = {}
        self._inner_s = 0.0

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Add the time of a `with` block to `timings[part]`, less that of blocks inside it: a second counts once."""
        start = time.perf_counter()
        outer_s, self._inner_s = self._inner_s, 0.0
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.timings[part] = self.timings.get(part, 0.0) + spent - self._inner_s
            self._inner_s = outer_s + spent

    def take_timings(self) -> dict[str, float]:
        """Return the timings and start anew."""
        taken, self.timings = self.timings, {}
        return taken

    def _keep(self, kind: str, key: Any, make: Callable[[], T], part: str | None) -> T:
        """Return the latest of a kind if it has this key, else make it, its time counted under `part`."""
        held = self._kept.get(kind)
        if held is None or held[0] != key:
            self._kept.pop(kind, None)
            del held
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            with self.timing(part) if part else nullcontext():
                self._kept[kind] = (key, make())
        found: T = self._kept[kind][1]
        return found

    def card(self, spec: TrialSpec) -> ModelCard:
        """Return the model's card."""
        return model_card(spec.model, spec.revision)

    def tokenizer(self, spec: TrialSpec) -> Any:
        """Return the model's tokenizer."""
        card = self.card(spec)
        return self._keep("tokenizer", card.key, lambda: load_tokenizer(card), "load_s")

    def hidden_states(self, spec: TrialSpec) -> HiddenStates:
        """Return the source of hidden states."""
        card, dtype = self.card(spec), getattr(torch, spec.dtype)
        return self._keep(
            "hidden", (card.key, dtype), lambda: HiddenStates(card, dtype, self.device, self._cache), "load_s"
        )

    def upper(self, spec: TrialSpec, layer: int) -> Upper:
        """Return the blocks above `layer`."""
        card, dtype = self.card(spec), getattr(torch, spec.dtype)
        key = (card.key, dtype, layer)
        return self._keep("upper", key, lambda: load_upper(card, layer, dtype, self.device), "load_s")

    def whole_model(self, spec: TrialSpec) -> WholeModel:
        """Return the whole model, frozen."""
        card, dtype = self.card(spec), getattr(torch, spec.dtype)
        return self._keep("whole", (card.key, dtype), lambda: WholeModel(card, dtype, self.device), "load_s")

    def texts(self, spec: TrialSpec) -> StudyTexts:
        """Return the texts and questions of trials like this one."""
        return self._keep("texts", self._text_key(spec), lambda: self._make_texts(spec), "data_s")

    def material(self, spec: TrialSpec, layer: int, trunk_layers: tuple[int, ...]) -> Material:
        """Return what packs like this one share; `trunk_layers` are computed in the same trunk pass."""
        texts = self.texts(spec)
        key = (self._text_key(spec), spec.dtype, layer, spec.memory_dim)
        return self._keep("material", key, lambda: self._make_material(spec, texts, layer, trunk_layers), None)

    def _text_key(self, spec: TrialSpec) -> tuple[Any, ...]:
        return text_key(spec, self.card(spec))

    def _make_texts(self, spec: TrialSpec) -> StudyTexts:
        corpus = self._keep(
            "corpus", (spec.data, spec.detokenize), lambda: load_corpus(spec.data, spec.detokenize), None
        )
        selection = select_documents(corpus, spec)
        documents = selection.documents
        tokenizer = self.tokenizer(spec)
        segments = document_texts(documents, tokenizer, spec)
        questions = probe = None
        if "fever" in spec.probes and any(document.claims for document in documents):
            questions = FeverQuestions(
                documents, tokenizer, spec.num_shots, spec.seed, spec.notes_labels, spec.claims_per_page
            )
        if "counterfact" in spec.probes:
            records = counterfact_records(spec, {document.title for document in documents})
            probe = CounterfactProbe(records, tokenizer, spec.num_answers, spec.answer_tokens, spec.temperature)
        found = StudyTexts(
            documents=documents,
            counts=dict(selection.counts),
            segments=segments,
            train=segments if spec.content == "document" else training_texts(documents, tokenizer, spec),
            questions=questions,
            counterfact=probe,
        )
        check_texts(spec, self.card(spec), found)
        return found

    def _make_material(self, spec: TrialSpec, texts: StudyTexts, layer: int, trunk_layers: tuple[int, ...]) -> Material:
        states = self.hidden_states(spec)
        train = [] if texts.train is texts.segments else texts.train
        trees = [text.tree for text in [*texts.segments, *train]]
        trees += texts.questions.trees if texts.questions else []
        with self.timing("trunk_s"):
            found = states.get(trees, layer, trunk_layers)
        first, last = len(texts.segments), len(texts.segments) + len(train)
        segments = TextBatches(texts.segments, found[:first], self.device)
        upper = self.upper(spec, layer)
        with self.timing("measure_s"):
            before = document_nll(upper, segments, None, [None], spec.micro_batch_tokens)
        return Material(
            train=TextBatches(train, found[first:last], self.device) if train else segments,
            segments=segments,
            entry_sets=EntrySets(texts.segments, len(texts.documents), spec.memory_dim),
            nll_before=float(before[0]),
        )


def text_key(spec: TrialSpec, card: ModelCard) -> tuple[Any, ...]:
    """Return what trials with the same texts and questions share."""
    return (card.key, *(getattr(spec, name) for name in _TEXT_FIELDS))


_TEXT_FIELDS = (
    "data",
    "detokenize",
    "content",
    "template_loss",
    "num_documents",
    "page_order",
    "segment_tokens",
    "max_segments",
    "seed",
    "num_shots",
    "notes_labels",
    "claims_per_page",
    "probes",
    "counterfact_records",
    "num_answers",
    "answer_tokens",
    "temperature",
)
