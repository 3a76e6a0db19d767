"""FLOPs and disk of trials, from their specs alone.

All formulas are ours. Counted are the weights' multiplications, two FLOPs each; attention scores and norms
are left out. The trunk runs once for each (model, text), up to the highest layer asked for. A trial pays for
the blocks above its memory, the head and the memory itself: forward and, for activations only, backward.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweep.planning.points import Point
from trainables.adapters.plan import AdapterPlan
from trainables.adapters.registry import adapter_plan
from trainables.lm.card import ModelCard
from trainables.probes.plan import Reading, TextSizes
from trainables.probes.registry import probe_plans
from trainables.trial.asking import Asking
from trainables.trial.fields import Part
from trainables.trial.parts import COST_FIELDS, fields_of, only, with_only
from trainables.trial.spec import TrialSpec

NUMBER_BYTES = {"float32": 4, "bfloat16": 2}
RECORD_BYTES = 20_000
PREDICTION_BYTES = 60
FACT_TOKENS = 10
"""Of a CounterFact prompt with its answer: 9.4 on the average of 1,500 records by the tokenizer of SmolLM2."""

_SAME_TOKENS = ("num_documents", "content", "template_loss", "probes")
"""Fields of the texts that decide how many of them there are, or where their loss begins: the trunk's work on smaller
sets is part of that on larger ones."""


def _told_apart_by(parts: Part) -> tuple[str, ...]:
    """Return the fields by which texts differ for the trunk; the model itself and the data have keys of their own."""
    return ("dtype", *(name for name in fields_of(parts) if name not in _SAME_TOKENS))


_cost_fields = only(COST_FIELDS)
_document_fields = only(_told_apart_by(Part.CORPUS | Part.PAGES | Part.SEGMENTS))
_template_fields = only(_told_apart_by(Part.PAGES | Part.TEMPLATES))
_prompt_fields = only(_told_apart_by(Part.PAGES | Part.FEVER))


FEVER_TEXTS = TextSizes(document_tokens=300, claims=12)
SAMPLE_TEXTS = TextSizes(document_tokens=75, claims=14, train_claims=5)


@dataclass(frozen=True)
class TrialFlops:
    """FLOPs of one trial, its share of the trunk left out.

    Attributes:
        training: of all epochs.
        evaluation: of all that is measured and asked.
        own: what of both the products of the adapter's own weights are.
        precision: how those are computed, a key of `Gpu.flop_per_s`; the others are of the model's type.
    """

    training: float
    evaluation: float
    own: float = 0.0
    precision: str = "float32"

    @property
    def total(self) -> float:
        """Both."""
        return self.training + self.evaluation

    def by_precision(self, dtype: str) -> Mapping[str, float]:
        """Return the FLOPs by how they are computed, given the type of the model's numbers."""
        found = {dtype: self.total - self.own}
        found[self.precision] = found.get(self.precision, 0.0) + self.own
        return found


class CostModel:
    """Costs of points, given the sizes of texts.

    Args:
        texts: measured sizes by data key; FEVER's or the sample world's are assumed for the others.
    """

    def __init__(self, texts: Mapping[str, TextSizes]) -> None:
        """Start with the sizes that are known."""
        self._texts = texts

    def texts(self, point: Point) -> TextSizes:
        """Return the sizes of a point's texts."""
        known = self._texts.get(point.data_key)
        return known or (SAMPLE_TEXTS if point.data_key.startswith("sample@") else FEVER_TEXTS)

    def work(self, point: Point) -> TrialFlops:
        """Return what a trial computes above the trunk."""
        return _work(point.spec, point.card, self.texts(point))

    def asking(self, point: Point, askings: Iterable[Asking]) -> TrialFlops:
        """Return what asking a stored training computes above the trunk: the askings alone, no memorisation error."""
        spec, adapter = point.spec, adapter_plan(vars(point.spec))
        total = own = 0.0
        for asking in askings:
            reading = asking.plan(spec).reading(self.texts(point), spec.num_documents)
            times = 1 + len(asking.epochs)
            total += _asked_once(adapter, point.card, reading) * times
            own += _own_once(adapter, point.card, reading) * times
        return TrialFlops(0.0, total, own, adapter.own_precision)

    def trunk(self, points: Iterable[Point]) -> tuple[dict[str, float], float]:
        """Return the trunk's FLOPs by number type, and the bytes of its cached hidden states.

        Smaller document sets are parts of larger ones, and one pass serves all layers of a model.
        """
        layers: dict[Any, set[int]] = {}
        tokens: dict[Any, float] = {}
        cards: dict[Any, tuple[ModelCard, str]] = {}
        for point in points:
            spec, card = point.spec, point.card
            layer = adapter_plan(vars(spec)).trunk_layer(card)
            if layer is None:
                continue
            documents, templates = _tokens(spec, self.texts(point))
            prompts = _reading(spec, self.texts(point)).above_trunk
            sizes = ((_document_fields, documents), (_template_fields, templates), (_prompt_fields, prompts))
            for fields, size in sizes:
                if not size:
                    continue
                key = (card.key, point.data_key, fields, fields(spec))
                layers.setdefault(key, set()).add(layer)
                tokens[key] = max(size, tokens.get(key, 0))
                cards[key] = card, spec.dtype
        flops = dict.fromkeys(NUMBER_BYTES, 0.0)
        cached = 0.0
        for key, (card, dtype) in cards.items():
            flops[dtype] += 2 * card.active_block_params * (max(layers[key]) + 1) * tokens[key]
            cached += tokens[key] * card.model_dim * NUMBER_BYTES[dtype] * len(layers[key])
        return flops, cached


def cost_key(point: Point) -> Hashable:
    """Return what is the same for points that cost the same."""
    return point.card.key, point.data_key, point.added, _cost_fields(point.spec)


def merge_alike(points: Iterable[tuple[Point, float]]) -> list[tuple[Point, float]]:
    """Replace points that cost the same by one of them with the sum of their weights.

    Its fields that are not declared to cost are at their defaults, so that no cost can depend on one of them.
    """
    merged: dict[Any, tuple[Point, float]] = {}
    for point, weight in points:
        key = cost_key(point)
        first, total = merged.get(key, (point, 0.0))
        merged[key] = (first, total + weight)
    return [(replace(first, spec=with_only(COST_FIELDS, first.spec)), total) for first, total in merged.values()]


def _tokens(spec: TrialSpec, texts: TextSizes) -> tuple[float, float]:
    """Return the tokens of documents and of training templates."""
    documents = spec.num_documents * min(texts.document_tokens, spec.segment_tokens * spec.max_segments)
    if "template" not in spec.content:
        return documents, 0.0
    one = texts.header_tokens + (spec.num_shots + 1) * texts.claim_tokens
    return documents, spec.num_documents * texts.train_claims * one + spec.template_facts * FACT_TOKENS


def _train_texts(spec: TrialSpec, texts: TextSizes) -> float:
    """Return how many texts a trial trains on."""
    kept = min(texts.document_tokens, spec.segment_tokens * spec.max_segments)
    segments = math.ceil(kept / spec.segment_tokens) if "document" in spec.content else 0
    if "template" not in spec.content:
        return spec.num_documents * segments
    return spec.num_documents * (segments + texts.train_claims) + spec.template_facts


def _reading(spec: TrialSpec, texts: TextSizes) -> Reading:
    """Return what all probes of a trial read."""
    found = [plan.reading(texts, spec.num_documents) for plan in probe_plans(vars(spec))]
    return Reading(
        above_trunk=sum(reading.above_trunk for reading in found),
        heads=sum(reading.heads for reading in found),
        whole=sum(reading.whole for reading in found),
    )


def _work(spec: TrialSpec, card: ModelCard, texts: TextSizes) -> TrialFlops:
    documents, templates = _tokens(spec, texts)
    train_tokens = templates + (documents if "document" in spec.content else 0)
    adapter, reading = adapter_plan(vars(spec)), _reading(spec, texts)
    measured = documents if adapter.has_error else 0
    added = 2 * adapter.added_params(card) * measured
    once = _asked_once(adapter, card, reading) + added
    once += 2 * (card.active_block_params * adapter.trial_blocks(card) + card.head_params) * measured
    times = 1 + len(spec.eval_epochs)
    own = adapter.own_token_flops(card) * train_tokens * spec.epochs
    return TrialFlops(
        training=adapter.train_flops(card, train_tokens, _train_texts(spec, texts)) * spec.epochs,
        evaluation=once * times,
        own=own + (_own_once(adapter, card, reading) + added) * times,
        precision=adapter.own_precision,
    )


def _asked_once(adapter: AdapterPlan, card: ModelCard, reading: Reading) -> float:
    """Return what one member computes above the trunk to be asked once."""
    head = card.head_params
    above = card.active_block_params * adapter.trial_blocks(card)
    whole = card.num_blocks * card.active_block_params + head
    of_model = 2 * above * reading.above_trunk + 2 * head * reading.heads + 2 * whole * reading.whole
    return of_model + _own_once(adapter, card, reading)


def _own_once(adapter: AdapterPlan, card: ModelCard, reading: Reading) -> float:
    """Return what of it the products of the adapter's own weights are."""
    return 2 * adapter.added_params(card) * (reading.above_trunk + reading.whole)


def train_token_flops(spec: TrialSpec, card: ModelCard) -> float:
    """Return the FLOPs of training on one token."""
    return adapter_plan(vars(spec)).train_token_flops(card)


def disk_bytes(spec: TrialSpec, card: ModelCard, texts: TextSizes) -> float:
    """Return what a trial leaves in the storage: record, predictions, memory."""
    times = 1 + len(spec.eval_epochs) * spec.keep_epochs if spec.keep_memory else 0
    kept = times * NUMBER_BYTES["float32"] * adapter_plan(vars(spec)).stored_params(card)
    claims = min(texts.claims, spec.claims_per_page or texts.claims)
    return RECORD_BYTES + PREDICTION_BYTES * spec.num_documents * claims + kept
