"""What a worker process keeps from one pack to the next: model parts, data, hidden states, probes.

Everything here depends on the model, the layer and the texts, never on a member; a reused process therefore loads,
tokenises and looks up each of them once for many packs. Only the latest of each kind is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from trainables.data.corpus import load_corpus
from trainables.data.documents import Document
from trainables.lm.card import ModelCard, model_card
from trainables.lm.hidden import HiddenStates
from trainables.lm.hidden_cache import HiddenCache
from trainables.lm.reference import WholeModel
from trainables.lm.texts import TrainingText
from trainables.lm.tokens import load_tokenizer
from trainables.lm.upper import Upper, load_upper
from trainables.node.cache_dir import cache_dir
from trainables.pack.texts import document_texts, select_documents, template_texts
from trainables.probes.probe import Probe
from trainables.probes.registry import probe_plans
from trainables.trial.spec import TrialSpec

T = TypeVar("T")


@dataclass
class StudyTexts:
    """The texts and questions of a trial; they depend on the tokenizer, not on the model's weights.

    Attributes:
        documents: the pages memorised, in rank order.
        counts: N_full, N_top, N_trunc and the row counts.
        segments: the documents' segments, on which the memorisation error is evaluated.
        train: texts that are trained on; the segments themselves where only documents are memorised.
        probes: what is asked, by name; one that has nothing to ask about these documents is left out.
    """

    documents: tuple[Document, ...]
    counts: dict[str, int]
    segments: list[TrainingText]
    train: list[TrainingText]
    probes: dict[str, Probe[Any]]


class ProcessCache:
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
        self._hidden_cache = HiddenCache(cache_dir() / "hidden", cache_bytes)
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
            "hidden", (card.key, dtype), lambda: HiddenStates(card, dtype, self.device, self._hidden_cache), "load_s"
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

    def parts(self, spec: TrialSpec) -> SpecParts:
        """Return the model of trials like this one, as an adapter sees it."""
        return SpecParts(self, spec)

    def keep(self, spec: TrialSpec, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """Keep what an adapter makes of the texts of trials like this one."""
        return self._keep(f"adapter's {kind}", (self._text_key(spec), spec.dtype, key), make, None)

    def _text_key(self, spec: TrialSpec) -> tuple[Any, ...]:
        fields = (getattr(spec, name) for name in _TEXT_FIELDS)
        return (self.card(spec).key, *fields, *probe_plans(vars(spec)))

    def _make_texts(self, spec: TrialSpec) -> StudyTexts:
        corpus = self._keep(
            "corpus", (spec.data, spec.detokenize), lambda: load_corpus(spec.data, spec.detokenize), None
        )
        selection = select_documents(corpus, spec.data, spec.num_documents, spec.page_order)
        documents = selection.documents
        tokenizer = self.tokenizer(spec)
        segments = document_texts(documents, tokenizer, spec.segment_tokens, spec.max_segments)
        train = list(segments) if spec.content == "document+template" else []
        if spec.content != "document":
            answer_only = spec.template_loss == "answer"
            train += template_texts(
                documents, tokenizer, spec.num_shots, spec.seed, spec.notes_labels, answer_loss_only=answer_only
            )
        probes = {plan.name: plan.load().make(plan, documents, tokenizer) for plan in probe_plans(vars(spec))}
        return StudyTexts(
            documents=documents,
            counts=dict(selection.counts),
            segments=segments,
            train=segments if spec.content == "document" else train,
            probes={name: probe for name, probe in probes.items() if probe is not None},
        )


class SpecParts:
    """The model of one trial and its like, as `trainables.adapters.adapter.ModelParts` wants it."""

    def __init__(self, cache: ProcessCache, spec: TrialSpec) -> None:
        """Load nothing yet."""
        self._cache, self._spec = cache, spec
        self.card, self.device = cache.card(spec), cache.device
        self.dtype: torch.dtype = getattr(torch, spec.dtype)

    def hidden_states(self) -> HiddenStates:
        """Return the source of hidden states."""
        return self._cache.hidden_states(self._spec)

    def upper(self, layer: int) -> Upper:
        """Return the blocks above a layer."""
        return self._cache.upper(self._spec, layer)

    def whole_model(self) -> WholeModel:
        """Return the whole model, frozen."""
        return self._cache.whole_model(self._spec)

    def keep(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for the same model, texts and key if it was the latest of its kind, else make it."""
        return self._cache.keep(self._spec, kind, key, make)

    def timing(self, part: str) -> AbstractContextManager[None]:
        """Count the time of a `with` block under a part's name."""
        return self._cache.timing(part)


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
