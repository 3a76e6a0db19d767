"""What a worker process keeps from one pack to the next: model parts, data, hidden states, probes.

Everything here depends on the model, the layer and the texts, never on a member; a reused process therefore loads,
tokenises and looks up each of them once for many packs. Only the latest of each kind is kept. What is kept is made of
its key and of nothing else of a trial, so that it can never be handed to a trial that needs another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch

from trainables.data.corpus import load_corpus
from trainables.data.counterfact import facts_to_train, load_counterfact
from trainables.data.documents import Document
from trainables.lm.card import ModelCard, model_card
from trainables.lm.hidden import HiddenStates
from trainables.lm.hidden_cache import HiddenCache
from trainables.lm.reference import WholeModel
from trainables.lm.texts import TrainingText
from trainables.lm.tokens import load_tokenizer
from trainables.lm.upper import Upper, load_upper
from trainables.lm.weight_budget import WeightBudget, model_bytes, part_bytes
from trainables.node.cache_dir import cache_dir
from trainables.node.map_batches import MapBatches, map_here
from trainables.pack.document_texts import (
    check_lengths,
    document_texts,
    fact_texts,
    question_texts,
    select_documents,
    template_texts,
    text_bytes,
)
from trainables.probes.plan import ProbePlan
from trainables.probes.probe import Probe
from trainables.probes.registry import probe_plans
from trainables.trial.canonical import draws_texts
from trainables.trial.fields import Part
from trainables.trial.making import twin
from trainables.trial.parts import fields_of, only
from trainables.trial.spec import TrialSpec

T = TypeVar("T")

_HIDDEN, _ADAPTERS = "hidden", "adapter's "
"""Kinds of things of which the key begins with a model and the type of its numbers: the latter is of all adapters'."""
_text_fields = only(
    fields_of(Part.CORPUS | Part.PAGES | Part.SEGMENTS | Part.TEMPLATES | Part.FEVER | Part.COUNTERFACT)
)


def texts_key(spec: TrialSpec, plans: Sequence[ProbePlan] | None = None) -> tuple[TrialSpec, tuple[ProbePlan, ...]]:
    """Return all that the texts of a trial depend on, besides the model: the fields of texts, and the probes.

    Args:
        spec: the trial, canonical.
        plans: what is asked; None for what its own fields say.
    """
    trained_on = spec if draws_texts(spec) else twin(spec, {"seed": TrialSpec.seed})
    return _text_fields(trained_on), tuple(probe_plans(vars(spec)) if plans is None else plans)


@dataclass
class StudyTexts:
    """The texts and questions of a trial; they depend on the tokenizer, not on the model's weights.

    Attributes:
        documents: the pages memorised, in rank order.
        counts: N_full, N_top, N_trunc and the row counts.
        segments: the documents' segments, on which the memorisation error is evaluated.
        tokenizer: whose tokens they are.
        train: texts that are trained on; the segments themselves where only documents are memorised.
        asked: what is asked, by its plan; one that has nothing to ask about these documents is left out.
    """

    documents: tuple[Document, ...]
    counts: dict[str, int]
    segments: Sequence[TrainingText]
    tokenizer: Any
    train: Sequence[TrainingText]
    asked: dict[ProbePlan, Probe[Any]]

    @cached_property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the segments' text."""
        return text_bytes(self.segments, self.tokenizer)

    @property
    def probes(self) -> dict[str, Probe[Any]]:
        """What is asked, by the probes' names; of one that is asked in several ways, the first."""
        return {plan.name: probe for plan, probe in reversed(self.asked.items())}


class ProcessCache:
    """Loads on demand and keeps the latest.

    Args:
        device: where to compute.
        cache_bytes: limit of the hidden-state cache; None for the default of `HiddenCache`.
        map_batches: where many documents are tokenised and hashed.

    Attributes:
        device: the same.
        map_batches: likewise.
        budget: of the weights on the device.
        timings: seconds spent by part since `take_timings` was last called.
    """

    def __init__(self, device: torch.device, cache_bytes: int | None, map_batches: MapBatches = map_here) -> None:
        """Start empty."""
        self.device, self.map_batches = device, map_batches
        self._hidden_cache = HiddenCache(cache_dir() / "hidden", cache_bytes)
        self.budget = WeightBudget(device)
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

    @property
    def trouble(self) -> str:
        """Why hidden states are computed without being kept, in one line; empty while they are."""
        return self._hidden_cache.trouble

    def take_timings(self) -> dict[str, float]:
        """Return the timings and start anew."""
        taken, self.timings = self.timings, {}
        return taken

    def _keep(self, kind: str, key: tuple[Any, ...], make: Callable[..., T], part: str | None) -> T:
        """Return the latest of a kind if it has this key, else make it.

        Args:
            kind: of thing.
            key: the arguments of `make`, all that the thing depends on.
            make: makes it.
            part: under which its time is counted; None where its own parts are timed.
        """
        held = self._kept.get(kind)
        if held is None or held[0] != key:
            self._kept.pop(kind, None)
            del held
            if kind == _HIDDEN:
                self._forget_others(key[:2])
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            with self.timing(part) if part else nullcontext():
                self._kept[kind] = (key, make(*key))
        found: T = self._kept[kind][1]
        return found

    def _forget_others(self, model: tuple[Any, ...]) -> None:
        """Drop what is kept of other models: two of them need not fit at a time."""
        for kind, (key, _) in list(self._kept.items()):
            if (kind == _HIDDEN or kind.startswith(_ADAPTERS)) and key[:2] != model:
                del self._kept[kind]

    def card(self, spec: TrialSpec) -> ModelCard:
        """Return the model's card."""
        return model_card(spec.model, spec.revision)

    def tokenizer(self, spec: TrialSpec) -> Any:
        """Return the model's tokenizer."""
        return self._tokenizer(self.card(spec))

    def texts(self, spec: TrialSpec, plans: Sequence[ProbePlan] | None = None) -> StudyTexts:
        """Return the texts of trials like this one, and what is asked: `plans`, or what its own fields say."""
        return self._keep("texts", (self.card(spec), *texts_key(spec, plans)), self._make_texts, "data_s")

    def parts(self, spec: TrialSpec) -> CachedParts:
        """Return the model of trials like this one, as an adapter sees it."""
        return CachedParts(self, self.card(spec), spec.dtype, texts_key(spec, ()))

    def hidden_states(self, card: ModelCard, dtype: str) -> HiddenStates:
        """Return the source of a model's hidden states."""
        return self._keep(_HIDDEN, (card, dtype), self._open_hidden, "load_s")

    def upper(self, card: ModelCard, dtype: str, layer: int) -> Upper:
        """Return a model's blocks above `layer`."""
        self._forget_others((card, dtype))
        of = getattr(torch, dtype)
        make = self._timed(lambda: load_upper(card, layer, of, self.device, self.budget))
        return self.budget.hold("upper", card, of, part_bytes(card, of, card.num_blocks - 1 - layer), make, layer)

    def whole_model(self, card: ModelCard, dtype: str) -> WholeModel:
        """Return a whole model, frozen."""
        self._forget_others((card, dtype))
        of = getattr(torch, dtype)
        make = self._timed(lambda: WholeModel(card, of, self.device, self.budget))
        return self.budget.hold("whole", card, of, model_bytes(card, of), make)

    def own_model(self, card: ModelCard, dtype: str) -> WholeModel:
        """Load a whole model that is the caller's."""
        self._forget_others((card, dtype))
        of = getattr(torch, dtype)
        self.budget.turn_to(card, of)
        return self._timed(lambda: WholeModel(card, of, self.device, self.budget))()

    def _timed(self, load: Callable[[], T]) -> Callable[[], T]:
        """Return what does the same and counts the time as that of loading."""

        def timed() -> T:
            with self.timing("load_s"):
                return load()

        return timed

    def keep(self, kind: str, key: tuple[Hashable, ...], make: Callable[[], T]) -> T:
        """Keep what an adapter makes; the key says all that it depends on."""
        return self._keep(_ADAPTERS + kind, key, lambda *_: make(), None)

    def _tokenizer(self, card: ModelCard) -> Any:
        return self._keep("tokenizer", (card,), load_tokenizer, "load_s")

    def _open_hidden(self, card: ModelCard, dtype: str) -> HiddenStates:
        of = getattr(torch, dtype)
        self.budget.turn_to(card, of)
        return HiddenStates(card, of, self.device, self._hidden_cache, budget=self.budget)

    def _make_texts(self, card: ModelCard, spec: TrialSpec, plans: tuple[ProbePlan, ...]) -> StudyTexts:
        """Make the texts of a stand-in that has the fields of texts only, and of probes."""
        corpus = self._keep("corpus", (spec.data, spec.detokenize, spec.allow_missing_pages), load_corpus, None)
        selection = select_documents(
            corpus, spec.data, spec.num_documents, spec.page_order, spec.detokenize, spec.allow_missing_pages
        )
        documents = selection.documents
        tokenizer = self._tokenizer(card)
        segments = document_texts(documents, tokenizer, spec.segment_tokens, spec.max_segments, self.map_batches)
        train = list(segments) if spec.content == "document+template" else []
        if spec.content != "document":
            answer_only = spec.template_loss == "answer"
            train += template_texts(
                documents, tokenizer, spec.num_shots, spec.seed, spec.notes_labels, answer_loss_only=answer_only
            )
            asked_with = (spec.data, spec.num_shots, spec.seed, spec.allow_missing_pages)
            train += question_texts(documents, tokenizer, *asked_with, answer_loss_only=answer_only)
            if spec.template_facts:
                titles = [document.title for document in documents]
                facts = facts_to_train(load_counterfact(spec.data), titles, spec.template_facts)
                train += fact_texts(facts, tokenizer, answer_loss_only=answer_only)
        made = {plan: plan.load().make(plan, documents, tokenizer) for plan in plans}
        found = StudyTexts(
            documents=documents,
            counts=dict(selection.counts),
            segments=segments,
            tokenizer=tokenizer,
            train=segments if spec.content == "document" else train,
            asked={plan: probe for plan, probe in made.items() if probe is not None},
        )
        check_lengths(card, (found.segments, found.train), found.asked.values())
        return found


class CachedParts:
    """A process's model for trials of the same texts, as `trainables.adapters.adapter.ModelParts` wants it.

    Args:
        cache: of the process.
        card: the model.
        dtype: of its weights, by name.
        texts: what the texts depend on.
    """

    def __init__(self, cache: ProcessCache, card: ModelCard, dtype: str, texts: tuple[Hashable, ...]) -> None:
        """Load nothing yet."""
        self._cache, self._of, self._texts = cache, (card, dtype), texts
        self.card, self.device, self.map_batches = card, cache.device, cache.map_batches
        self.dtype: torch.dtype = getattr(torch, dtype)

    def hidden_states(self) -> HiddenStates:
        """Return the source of hidden states."""
        return self._cache.hidden_states(*self._of)

    def upper(self, layer: int) -> Upper:
        """Return the blocks above a layer."""
        return self._cache.upper(*self._of, layer)

    def whole_model(self) -> WholeModel:
        """Return the whole model, frozen."""
        return self._cache.whole_model(*self._of)

    def own_model(self) -> WholeModel:
        """Load a whole model that is the caller's."""
        return self._cache.own_model(*self._of)

    def keep(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for the same model, texts and key if it was the latest of its kind, else make it."""
        return self._cache.keep(kind, (*self._of, *self._texts, key), make)

    def timing(self, part: str) -> AbstractContextManager[None]:
        """Count the time of a `with` block under a part's name."""
        return self._cache.timing(part)
