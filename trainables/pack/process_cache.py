"""What a worker process keeps from one pack to the next: model parts, data, hidden states, questions.

Everything here depends on the model, the layer and the texts, never on a member; a reused process therefore loads,
tokenises and looks up each of them once for many packs. Only the latest of each kind is kept. What is kept is made of
its key and of nothing else of a trial, so that it can never be handed to a trial that needs another.
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
from trainables.pack.entry_sets import EntrySets
from trainables.pack.evaluate import document_nll
from trainables.pack.texts import TrainingText, document_texts, training_texts
from trainables.probes.counterfact import CounterfactProbe
from trainables.probes.fever import FeverQuestions
from trainables.trial.fields import Part
from trainables.trial.parts import fields_of, only
from trainables.trial.spec import TrialSpec

T = TypeVar("T")

_text_fields = only(
    fields_of(Part.CORPUS | Part.PAGES | Part.SEGMENTS | Part.TEMPLATES | Part.FEVER | Part.COUNTERFACT)
)


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

    def _keep(self, kind: str, key: tuple[Any, ...], make: Callable[..., T], part: str | None, **how: Any) -> T:
        """Return the latest of a kind if it has this key, else make it.

        Args:
            kind: of thing.
            key: the arguments of `make`, all that the thing depends on.
            make: makes it.
            part: under which its time is counted; None where its own parts are timed.
            **how: further arguments, on which the thing does not depend.
        """
        held = self._kept.get(kind)
        if held is None or held[0] != key:
            self._kept.pop(kind, None)
            del held
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            with self.timing(part) if part else nullcontext():
                self._kept[kind] = (key, make(*key, **how))
        found: T = self._kept[kind][1]
        return found

    def card(self, spec: TrialSpec) -> ModelCard:
        """Return the model's card."""
        return model_card(spec.model, spec.revision)

    def tokenizer(self, spec: TrialSpec) -> Any:
        """Return the model's tokenizer."""
        return self._tokenizer(self.card(spec))

    def hidden_states(self, spec: TrialSpec) -> HiddenStates:
        """Return the source of hidden states."""
        return self._hidden_states(self.card(spec), spec.dtype)

    def upper(self, spec: TrialSpec, layer: int) -> Upper:
        """Return the blocks above `layer`."""
        return self._upper(self.card(spec), spec.dtype, layer)

    def whole_model(self, spec: TrialSpec) -> WholeModel:
        """Return the whole model, frozen."""
        return self._keep("whole", (self.card(spec), spec.dtype), self._load_whole, "load_s")

    def texts(self, spec: TrialSpec) -> StudyTexts:
        """Return the texts and questions of trials like this one."""
        return self._texts(self.card(spec), _text_fields(spec))

    def material(self, spec: TrialSpec, layer: int, trunk_layers: tuple[int, ...]) -> Material:
        """Return what packs like this one share; `trunk_layers` are computed in the same trunk pass."""
        key = (self.card(spec), spec.dtype, layer, spec.memory_dim, _text_fields(spec))
        how = {"trunk_layers": trunk_layers, "max_tokens": spec.micro_batch_tokens}
        return self._keep("material", key, self._make_material, None, **how)

    def _tokenizer(self, card: ModelCard) -> Any:
        return self._keep("tokenizer", (card,), load_tokenizer, "load_s")

    def _hidden_states(self, card: ModelCard, dtype: str) -> HiddenStates:
        return self._keep("hidden", (card, dtype), self._open_hidden, "load_s")

    def _upper(self, card: ModelCard, dtype: str, layer: int) -> Upper:
        return self._keep("upper", (card, dtype, layer), self._load_upper, "load_s")

    def _texts(self, card: ModelCard, chosen: TrialSpec) -> StudyTexts:
        return self._keep("texts", (card, chosen), self._make_texts, "data_s")

    def _open_hidden(self, card: ModelCard, dtype: str) -> HiddenStates:
        return HiddenStates(card, getattr(torch, dtype), self.device, self._cache)

    def _load_upper(self, card: ModelCard, dtype: str, layer: int) -> Upper:
        return load_upper(card, layer, getattr(torch, dtype), self.device)

    def _load_whole(self, card: ModelCard, dtype: str) -> WholeModel:
        return WholeModel(card, getattr(torch, dtype), self.device)

    def _make_texts(self, card: ModelCard, spec: TrialSpec) -> StudyTexts:
        """Make the texts of a stand-in that has the fields of texts only."""
        corpus = self._keep("corpus", (spec.data, spec.detokenize), load_corpus, None)
        selection = select_documents(corpus, spec)
        documents = selection.documents
        tokenizer = self._tokenizer(card)
        segments = document_texts(documents, tokenizer, spec)
        questions = probe = None
        if "fever" in spec.probes and any(document.claims for document in documents):
            questions = FeverQuestions(
                documents, tokenizer, spec.num_shots, spec.seed, spec.notes_labels, spec.claims_per_page
            )
        if "counterfact" in spec.probes:
            records = counterfact_records(spec, {document.title for document in documents})
            probe = CounterfactProbe(records, tokenizer, spec.num_answers, spec.answer_tokens, spec.temperature)
        return StudyTexts(
            documents=documents,
            counts=dict(selection.counts),
            segments=segments,
            train=segments if spec.content == "document" else training_texts(documents, tokenizer, spec),
            questions=questions,
            counterfact=probe,
        )

    def _make_material(
        self,
        card: ModelCard,
        dtype: str,
        layer: int,
        memory_dim: int,
        chosen: TrialSpec,
        *,
        trunk_layers: tuple[int, ...],
        max_tokens: int,
    ) -> Material:
        texts, states = self._texts(card, chosen), self._hidden_states(card, dtype)
        train = [] if texts.train is texts.segments else texts.train
        trees = [text.tree for text in [*texts.segments, *train]]
        trees += texts.questions.trees if texts.questions else []
        with self.timing("trunk_s"):
            found = states.get(trees, layer, trunk_layers)
        first, last = len(texts.segments), len(texts.segments) + len(train)
        segments = TextBatches(texts.segments, found[:first], self.device)
        upper = self._upper(card, dtype, layer)
        with self.timing("measure_s"):
            before = document_nll(upper, segments, None, [None], max_tokens)
        return Material(
            train=TextBatches(train, found[first:last], self.device) if train else segments,
            segments=segments,
            entry_sets=EntrySets(texts.segments, len(texts.documents), memory_dim),
            nll_before=float(before[0]),
        )
