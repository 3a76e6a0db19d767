"""What a worker process keeps from one pack to the next: model parts, data, hidden states, questions.

Everything here depends on the model, the layer and the texts, never on a member; a reused process therefore loads,
tokenises and looks up each of them once for many packs. Only the latest of each kind is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from trainables.batches import TextBatches
from trainables.cache import cache_dir
from trainables.data.corpus import load_corpus
from trainables.data.documents import Document
from trainables.entry_sets import EntrySets
from trainables.evaluation.fever import FeverQuestions
from trainables.lm.cache import HiddenCache
from trainables.lm.hidden import HiddenStates
from trainables.lm.tokens import load_tokenizer
from trainables.lm.upper import Upper, load_upper
from trainables.measure import document_nll
from trainables.models import ModelCard, model_card
from trainables.spec import TrialSpec
from trainables.texts import document_texts, training_texts

T = TypeVar("T")


@dataclass
class Material:
    """All that the members of a pack share.

    Attributes:
        documents: the pages memorised, in rank order.
        counts: N_full, N_top, N_trunc and the row counts.
        train: texts that are trained on.
        segments: the documents' segments, on which the memorisation error is measured.
        entry_sets: builds allocations over the segments.
        questions: FEVER prompts, or None where no page has a claim or FEVER is not asked.
        nll_before: memorisation error of the pretrained model.
    """

    documents: tuple[Document, ...]
    counts: dict[str, int]
    train: TextBatches
    segments: TextBatches
    entry_sets: EntrySets
    questions: FeverQuestions | None
    nll_before: float


class Workbench:
    """Loads on demand and keeps the latest.

    Args:
        device: where to compute.
        cache_bytes: limit of the hidden-state cache.

    Attributes:
        timings: seconds spent by part since `take_timings` was last called.
    """

    def __init__(self, device: torch.device, cache_bytes: int) -> None:
        """Start empty."""
        self.device = device
        self._cache = HiddenCache(cache_dir() / "hidden", cache_bytes)
        self._kept: dict[str, tuple[Any, Any]] = {}
        self.timings: dict[str, float] = {}

    def timed(self, part: str, make: Callable[[], T]) -> T:
        """Run `make` and add its time to `timings[part]`."""
        start = time.perf_counter()
        try:
            return make()
        finally:
            self.timings[part] = self.timings.get(part, 0.0) + time.perf_counter() - start

    def take_timings(self) -> dict[str, float]:
        """Return the timings and start anew."""
        taken, self.timings = self.timings, {}
        return taken

    def _keep(self, kind: str, key: Any, make: Callable[[], T]) -> T:
        held = self._kept.get(kind)
        if held is None or held[0] != key:
            self._kept.pop(kind, None)
            del held
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._kept[kind] = (key, make())
        found: T = self._kept[kind][1]
        return found

    def card(self, spec: TrialSpec) -> ModelCard:
        """Return the model's card."""
        return model_card(spec.model, spec.revision)

    def tokenizer(self, spec: TrialSpec) -> Any:
        """Return the model's tokenizer."""
        card = self.card(spec)
        return self._keep("tokenizer", card.key, lambda: self.timed("load_s", lambda: load_tokenizer(card)))

    def hidden_states(self, spec: TrialSpec) -> HiddenStates:
        """Return the source of hidden states."""
        card, dtype = self.card(spec), getattr(torch, spec.dtype)
        return self._keep(
            "hidden", (card.key, dtype), lambda: HiddenStates(card, dtype, self.device, self._cache)
        )

    def upper(self, spec: TrialSpec, layer: int) -> Upper:
        """Return the blocks above `layer`."""
        card, dtype = self.card(spec), getattr(torch, spec.dtype)
        return self._keep(
            "upper",
            (card.key, dtype, layer),
            lambda: self.timed("load_s", lambda: load_upper(card, layer, dtype, self.device)),
        )

    def material(self, spec: TrialSpec, layer: int, trunk_layers: tuple[int, ...]) -> Material:
        """Return what packs like this one share; `trunk_layers` are computed in the same trunk pass."""
        key = (self.card(spec).key, layer, *(getattr(spec, name) for name in _MATERIAL_FIELDS))
        return self._keep("material", key, lambda: self._make_material(spec, layer, trunk_layers))

    def _make_material(self, spec: TrialSpec, layer: int, trunk_layers: tuple[int, ...]) -> Material:
        corpus = self._keep(
            "corpus", (spec.data, spec.detokenize),
            lambda: self.timed("data_s", lambda: load_corpus(spec.data, spec.detokenize)),
        )
        selection = corpus.select(spec.num_documents)
        documents = selection.documents
        tokenizer = self.tokenizer(spec)
        segments = self.timed("data_s", lambda: document_texts(documents, tokenizer, spec))
        texts = segments if spec.content == "document" else training_texts(documents, tokenizer, spec)
        questions = None
        if "fever" in spec.probes and any(document.claims for document in documents):
            questions = self.timed(
                "data_s",
                lambda: FeverQuestions(
                    documents, tokenizer, spec.num_shots, spec.seed, spec.notes_labels, spec.claims_per_page
                ),
            )
        states = self.hidden_states(spec)
        trees = [text.tree for text in segments] + [text.tree for text in texts]
        if questions is not None:
            trees += questions.trees
        found = self.timed("trunk_s", lambda: states.get(trees, layer, trunk_layers))
        measured = TextBatches(segments, found[: len(segments)], self.device)
        train = measured if texts is segments else TextBatches(
            texts, found[len(segments) : len(segments) + len(texts)], self.device
        )
        upper = self.upper(spec, layer)
        before = self.timed(
            "measure_s", lambda: document_nll(upper, measured, None, [None], spec.micro_batch_tokens)
        )
        return Material(
            documents=documents,
            counts=dict(selection.counts),
            train=train,
            segments=measured,
            entry_sets=EntrySets(segments, len(documents), spec.memory_dim),
            questions=questions,
            nll_before=float(before[0]),
        )


_MATERIAL_FIELDS = (
    "revision", "dtype", "data", "detokenize", "content", "template_loss", "num_documents", "segment_tokens",
    "max_segments", "memory_dim", "seed", "num_shots", "notes_labels", "claims_per_page", "probes",
)
