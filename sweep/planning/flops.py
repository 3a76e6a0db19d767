"""FLOPs, disk and memory of trials, from their specs alone.

All formulas are ours. Counted are the weights' multiplications, two FLOPs each; attention scores and norms
are left out. The trunk runs once for each (model, text), up to the highest layer asked for. A trial pays for
the blocks above its memory, the head and the memory itself: forward and, for activations only, backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sweep.planning.points import Point
from trainables.lm.card import ModelCard
from trainables.trial.spec import TrialSpec

NUMBER_BYTES = {"float32": 4, "bfloat16": 2}
TRAINED_PARAMETER_BYTES = 16  # value, gradient and two moments, float32
RECORD_BYTES = 20_000
PREDICTION_BYTES = 60
ANSWER_POSITIONS = 5  # read per claim: the end of the prompt and the answer path
COUNTERFACT_PROMPTS = 13  # per record: the prompt, two paraphrases, ten of the neighbourhood
COUNTERFACT_PROMPT_TOKENS = 12

_cost_fields = itemgetter(
    "method", "content", "layer", "num_documents", "segment_tokens", "max_segments", "epochs", "memory_dim",
    "num_shots", "claims_per_page", "eval_epochs", "probes", "counterfact_records", "num_answers", "answer_tokens",
    "dtype", "detokenize", "seed", "notes_labels", "keep_memory",
)  # fmt: skip
_document_fields = itemgetter("dtype", "detokenize", "segment_tokens", "max_segments")
_prompt_fields = itemgetter("dtype", "detokenize", "seed", "num_shots", "notes_labels", "claims_per_page", "content")


@dataclass(frozen=True)
class Texts:
    """Sizes of a data set's texts.

    Attributes:
        document_tokens: mean length of a page.
        claims: validation claims of a page.
        train_claims: training claims of a page.
        claim_tokens: one claim with its `Claim:` and `A: (x)`.
        header_tokens: the template's first two lines.
    """

    document_tokens: float
    claims: float
    train_claims: float = 10
    claim_tokens: float = 22
    header_tokens: float = 40


FEVER_TEXTS = Texts(document_tokens=300, claims=12)
SAMPLE_TEXTS = Texts(document_tokens=75, claims=14, train_claims=5)


@dataclass(frozen=True)
class Work:
    """FLOPs of one trial, its share of the trunk left out."""

    training: float
    evaluation: float

    @property
    def total(self) -> float:
        """Both."""
        return self.training + self.evaluation


class CostModel:
    """Costs of points, given the sizes of texts.

    Args:
        texts: measured sizes by data key; FEVER's or the sample world's are assumed for the others.
    """

    def __init__(self, texts: Mapping[str, Texts]) -> None:
        """Start with the sizes that are known."""
        self._texts = texts

    def texts(self, point: Point) -> Texts:
        """Return the sizes of a point's texts."""
        known = self._texts.get(point.data_key)
        return known or (SAMPLE_TEXTS if point.data_key.startswith("sample@") else FEVER_TEXTS)

    def work(self, point: Point) -> Work:
        """Return what a trial computes above the trunk."""
        return _work(point.spec, point.card, self.texts(point))

    def trunk(self, points: Iterable[Point]) -> tuple[dict[str, float], float]:
        """Return the trunk's FLOPs by number type, and the bytes of its cached hidden states.

        Smaller document sets are parts of larger ones, and one pass serves all layers of a model.
        """
        layers: dict[Any, set[int]] = {}
        tokens: dict[Any, float] = {}
        cards: dict[Any, tuple[ModelCard, str]] = {}
        for point in points:
            spec, card = point.spec, point.card
            if spec.method == "full_update":
                continue
            documents, templates, prompts = _tokens(spec, self.texts(point))
            layer = card.num_blocks - 1 if spec.layer is None else spec.layer
            for fields, size in ((_document_fields, documents), (_prompt_fields, templates + prompts)):
                key = (card.key, point.data_key, fields, fields(vars(spec)))
                layers.setdefault(key, set()).add(layer)
                tokens[key] = max(size, tokens.get(key, 0))
                cards[key] = card, spec.dtype
        flops = dict.fromkeys(NUMBER_BYTES, 0.0)
        cached = 0.0
        for key, (card, dtype) in cards.items():
            flops[dtype] += 2 * card.active_block_params * (max(layers[key]) + 1) * tokens[key]
            cached += tokens[key] * card.model_dim * NUMBER_BYTES[dtype] * len(layers[key])
        return flops, cached


def merge_alike(points: Iterable[tuple[Point, float]]) -> list[tuple[Point, float]]:
    """Replace points that cost the same by one of them with the sum of their weights."""
    merged: dict[Any, tuple[Point, float]] = {}
    for point, weight in points:
        key = (point.card.key, point.data_key, _cost_fields(vars(point.spec)))
        first, total = merged.get(key, (point, 0.0))
        merged[key] = (first, total + weight)
    return list(merged.values())


def _tokens(spec: TrialSpec, texts: Texts) -> tuple[float, float, float]:
    """Return the tokens of documents, of training templates, and of prompts, shared prefixes once."""
    documents = spec.num_documents * min(texts.document_tokens, spec.segment_tokens * spec.max_segments)
    one = texts.header_tokens + (spec.num_shots + 1) * texts.claim_tokens
    templates = spec.num_documents * texts.train_claims * one if "template" in spec.content else 0.0
    asked = texts.header_tokens + (spec.num_shots + _claims(spec, texts)) * texts.claim_tokens
    return documents, templates, spec.num_documents * asked if "fever" in spec.probes else 0.0


def _claims(spec: TrialSpec, texts: Texts) -> float:
    return min(texts.claims, spec.claims_per_page or texts.claims)


def _work(spec: TrialSpec, card: ModelCard, texts: Texts) -> Work:
    documents, templates, prompts = _tokens(spec, texts)
    train_tokens = templates + (documents if "document" in spec.content else 0)
    head, above = card.head_params, card.active_block_params * _trial_blocks(spec, card) + _memory_params(spec, card)
    answers = spec.num_documents * _claims(spec, texts) * ANSWER_POSITIONS if prompts else 0.0
    once = 2 * above * (documents + prompts) + 2 * head * (documents + answers)
    if "counterfact" in spec.probes:
        tokens = COUNTERFACT_PROMPT_TOKENS + spec.num_answers * spec.answer_tokens
        whole = card.num_blocks * card.active_block_params + head + _memory_params(spec, card)
        once += 2 * whole * spec.counterfact_records * COUNTERFACT_PROMPTS * tokens
    return Work(
        training=train_token_flops(spec, card) * train_tokens * spec.epochs,
        evaluation=once * (1 + len(spec.eval_epochs)),
    )


def train_token_flops(spec: TrialSpec, card: ModelCard) -> float:
    """Return the FLOPs of training on one token."""
    blocks = card.active_block_params * _trial_blocks(spec, card)
    if spec.method == "full_update":
        return 6 * (blocks + card.head_params)
    if spec.method == "memory":
        return 4 * (blocks + card.head_params) + 6 * _memory_params(spec, card)
    return 0


def _trial_blocks(spec: TrialSpec, card: ModelCard) -> int:
    """Return the blocks that run in each trial again, rather than once in the trunk."""
    if spec.method == "full_update":
        return card.num_blocks
    return 0 if spec.layer is None else card.num_blocks - 1 - spec.layer


def _memory_params(spec: TrialSpec, card: ModelCard) -> int:
    return 2 * card.model_dim * spec.memory_dim if spec.method == "memory" else 0


def disk_bytes(spec: TrialSpec, card: ModelCard, texts: Texts) -> float:
    """Return what a trial leaves in the storage: record, predictions, memory."""
    kept = NUMBER_BYTES["float32"] * _memory_params(spec, card) if spec.keep_memory else 0
    return RECORD_BYTES + PREDICTION_BYTES * spec.num_documents * _claims(spec, texts) + kept


def device_bytes(spec: TrialSpec, card: ModelCard, pack_size: int) -> float:
    """Return the larger of trunk and upper part with its pack: they are never loaded together."""
    number = NUMBER_BYTES[spec.dtype]
    if spec.method == "full_update":
        return card.params * TRAINED_PARAMETER_BYTES
    above = _trial_blocks(spec, card)
    trunk = number * (card.block_params * (card.num_blocks - above) + card.head_params)
    upper = number * (card.block_params * above + card.head_params)
    return max(trunk, upper + pack_size * _memory_params(spec, card) * TRAINED_PARAMETER_BYTES)
