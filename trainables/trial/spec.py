"""A trial is a value: what one grid point of the study is, and the id that names it.

`TrialSpec` is plain, immutable, validated data. Each field is *identity* (it changes the result), *resource*
(where and how fast) or *label*. `canonical` removes what cannot matter, `identity` states what does, and
`trial_id` hashes that statement; the same function gives the id of a spec and of a finished record.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from trainables.data.sources import data_key as key_of_data
from trainables.errors import ConfigError, nearest
from trainables.lm.card import ModelCard, model_card
from trainables.trial.fields import identity_field, other_field, rules_of

ID_VERSION = "1"
PROBES = ("fever", "counterfact")
ALLOCATIONS = ("none", "random", "partitioned", "simset1", "simset2", "simset3")


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One grid point. Values are coerced (`1` and `1.0`, `"10"` and `10` are the same) and checked.

    Raises:
        ConfigError: a value of the wrong type, outside its range or choices, or at odds with another field.
    """

    model: str = identity_field("sample-llama", "alias, hub id or folder of a causal language model of transformers")
    revision: str = identity_field("main", "revision on the hub")
    dtype: str = identity_field("float32", "type of the frozen model's numbers", choices=("float32", "bfloat16"))
    data: str = identity_field("sample", "sources joined by commas: sample, hub or folders")
    detokenize: bool = identity_field(False, "undo FEVER's tokenisation in page texts")
    method: str = identity_field("memory", "what is trained", choices=("memory", "pretrained", "full_update"))
    content: str = identity_field(
        "document", "what is memorised", choices=("document", "template", "document+template")
    )
    template_loss: str = identity_field("full", "template tokens that carry the loss", choices=("full", "answer"))
    num_documents: int = identity_field(10, "top pages of the ranking (N_top)", low=1)
    page_order: str = identity_field(
        "claims", "ranking of pages: by claims asked, or CounterFact's subjects first", choices=("claims", "subjects")
    )
    num_clusters: int | None = identity_field(None, "groups of documents; default one each", low=1, packs=True)
    segment_tokens: int = identity_field(256, "tokens per segment", low=2)
    max_segments: int = identity_field(10, "segments per document", low=1)
    layer: int | None = identity_field(None, "block whose output the memory adds to, 0-based", low=0)
    depth: float | None = identity_field(None, "the same as a share of the depth, in (0, 1]", above=0, high=1)
    memory_dim: int = identity_field(128, "entries of the memory", low=1)
    norm_and_gate: bool = identity_field(True, "LayerNorm and gate after the memory's second linear map")
    mode: str = identity_field("inductive", "how an entry set acts", choices=("inductive", "hard"), packs=True)
    allocation: str = identity_field("none", "entries a document may use", choices=ALLOCATIONS, packs=True)
    granularity: str = identity_field(
        "dim", "entry set per document or per token", choices=("dim", "token"), packs=True
    )
    entries_per_group: int | None = identity_field(
        None, "hash functions of simset; default by memory_dim", low=1, packs=True
    )
    mem_seed: int = identity_field(0, "seed of the allocation", low=0, packs=True)
    alpha: float = identity_field(0.0, "weight of the inductive loss", low=0, packs=True)
    epochs: int = identity_field(25, "passes over the texts", low=1)
    batch_size: int = identity_field(4, "texts per step", low=1)
    lr: float = identity_field(1e-3, "peak learning rate", above=0, packs=True)
    weight_decay: float = identity_field(0.05, "decoupled weight decay", low=0, packs=True)
    warmup_steps: int = identity_field(10, "warm-up of the cosine schedule, steps", low=0)
    grad_clip: float = identity_field(10.0, "largest gradient norm", above=0, packs=True)
    seed: int = identity_field(0, "initialisation, order of texts, choice of few-shot examples", low=0)
    num_shots: int = identity_field(1, "few-shot examples in a prompt", low=0, high=5)
    notes_labels: bool = identity_field(False, "label the second and third pool lists as the notes print them")
    claims_per_page: int | None = identity_field(None, "ask at most so many claims a page", low=1)
    eval_epochs: tuple[int, ...] = identity_field((), "further epochs after which to evaluate")
    probes: tuple[str, ...] = identity_field(("fever",), "evaluations: fever, counterfact")
    counterfact_records: int = identity_field(100, "CounterFact records asked", low=1)
    num_answers: int = identity_field(5, "sampled answers per CounterFact prompt", low=1)
    answer_tokens: int = identity_field(5, "tokens per sampled answer", low=1)
    temperature: float = identity_field(1.0, "temperature of sampled answers", above=0)
    device: str = other_field("resource", "auto", "where to run", choices=("auto", "cpu", "cuda"))
    micro_batch_tokens: int = other_field("resource", 16384, "tokens of a pack in one forward pass", low=1)
    checkpoint_every_s: float = other_field("resource", 60.0, "seconds between checkpoints", low=0)
    keep_memory: bool = other_field("resource", True, "store the trained memory with the record")
    stage: str = other_field("label", "", "stage of the sweep")

    def __post_init__(self) -> None:
        """Coerce and check every field, then the rules between fields."""
        for name, value in list(vars(self).items()):
            rule = _RULES[name]
            if value is not rule.default:
                object.__setattr__(self, name, rule.check(value))
        self._check_together()

    def _check_together(self) -> None:
        if self.method == "memory" and (self.layer is None) == (self.depth is None):
            raise ConfigError("layer, depth: a memory needs exactly one; set layer=INDEX or depth=SHARE")
        if self.num_clusters is not None and self.num_clusters > self.num_documents:
            raise ConfigError(
                f"num_clusters={self.num_clusters}: must not exceed num_documents={self.num_documents}; lower it"
            )
        if self.method == "memory" and self.allocation in ("random", "partitioned"):
            groups = self.num_clusters or self.num_documents
            if self.memory_dim < groups:
                raise ConfigError(
                    f"memory_dim={self.memory_dim}: {self.allocation} needs at least one entry for each of "
                    f"{groups} groups; raise memory_dim or lower num_clusters"
                )
        if self.eval_epochs and (min(self.eval_epochs) < 0 or max(self.eval_epochs) > self.epochs):
            raise ConfigError(f"eval_epochs={self.eval_epochs}: must lie between 0 and epochs={self.epochs}")
        for probe in self.probes:
            if probe not in PROBES:
                raise ConfigError(f"probes={probe!r}: must be {' or '.join(PROBES)}{nearest(probe, PROBES)}")

    @property
    def groups(self) -> int:
        """Groups asked for: `num_clusters`, or one per document."""
        return self.num_clusters or self.num_documents


_RULES = rules_of(TrialSpec)
FIELDS: tuple[str, ...] = tuple(_RULES)
IDENTITY_FIELDS: tuple[str, ...] = tuple(n for n, r in _RULES.items() if r.meta["kind"] == "identity")
PACK_SHARES: tuple[str, ...] = tuple(n for n, r in _RULES.items() if not r.meta["packs"])
_UNSTATED_FIELDS = ("depth", *(n for n in FIELDS if n not in IDENTITY_FIELDS))


def _defaults(*names: str) -> dict[str, Any]:
    return {name: _RULES[name].default for name in names}


_DEFAULTS = _defaults(*IDENTITY_FIELDS)
_NO_TRAINING = _defaults("content", "template_loss", "epochs", "batch_size", "lr", "weight_decay", "warmup_steps")
_NO_TRAINING |= _defaults("grad_clip", "eval_epochs")
_NO_ENTRY_SETS = _defaults("allocation", "mode", "alpha", "granularity", "num_clusters", "entries_per_group")
_NO_ENTRY_SETS |= _defaults("mem_seed")
_NO_MEMORY = _NO_ENTRY_SETS | _defaults("layer", "depth", "memory_dim", "norm_and_gate")
_NO_SAMPLES = _defaults("counterfact_records", "num_answers", "answer_tokens", "temperature")
_ELIDED: dict[str, Any] = {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in _DEFAULTS.items()
    if name not in ("model", "data")
}
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def field_doc(name: str) -> str:
    """One line on a field, for help texts."""
    return str(_RULES[name].meta["doc"])


def field_names_check(names: Mapping[str, Any]) -> None:
    """Refuse unknown field names.

    Raises:
        ConfigError: names the first unknown field and the nearest known one.
    """
    for name in names:
        if name not in _RULES:
            raise ConfigError(f"{name}: unknown field{nearest(name, FIELDS)}")


def make_spec(values: Mapping[str, Any]) -> TrialSpec:
    """Build a spec from a mapping, refusing unknown names.

    Raises:
        ConfigError: an unknown field or a bad value.
    """
    field_names_check(values)
    return TrialSpec(**values)


def vary(spec: TrialSpec, values: Mapping[str, Any]) -> TrialSpec:
    """Return the spec with other values, which `coerce` has seen: only the rules between fields are checked.

    Several times faster than `dataclasses.replace`, for spaces of many points.

    Raises:
        ConfigError: a value at odds with another field.
    """
    varied = _twin(spec, values)
    varied._check_together()
    return varied


def _twin(spec: TrialSpec, changes: Mapping[str, Any]) -> TrialSpec:
    twin = object.__new__(TrialSpec)
    vars(twin).update(vars(spec), **changes)
    return twin


def coerce(name: str, value: Any) -> Any:
    """Return one field's value in its declared type.

    Raises:
        ConfigError: unknown field, wrong type, range or choice.
    """
    field_names_check({name: value})
    return _RULES[name].check(value)


def layer_index(depth: float, num_blocks: int) -> int:
    """Block at a relative depth: `round(depth * blocks) - 1`, halves up, at least 0 (ours)."""
    return max(0, math.floor(depth * num_blocks + 0.5 + 1e-9) - 1)


def canonical(spec: TrialSpec, card: ModelCard | None = None) -> TrialSpec:
    """Return the equivalent spec without what cannot matter.

    A depth becomes a block index; without an entry set, or at alpha 0 in inductive mode, the allocation and
    all that shapes it is dropped; a pretrained trial keeps nothing of training; and so on. The model and the
    data stay as the user named them.

    Raises:
        ConfigError: the layer lies beyond the model.
    """
    card = card or model_card(spec.model, spec.revision)
    new = dict(_without_use(spec.method, "counterfact" in spec.probes))
    if not card.is_hub:
        new["revision"] = "main"
    elif card.commit:
        new["revision"] = card.commit  # every worker takes the commit that the driver saw, though the branch may move
    if spec.method == "memory":
        new |= _canonical_memory(spec, card)
    if spec.method != "pretrained" and spec.eval_epochs:
        new["eval_epochs"] = tuple(e for e in spec.eval_epochs if e != spec.epochs)
    if spec.content == "document" or spec.method == "pretrained":
        new["template_loss"] = "full"
    if "fever" not in spec.probes:
        new["claims_per_page"] = None
        if spec.content == "document" or spec.method == "pretrained":
            new |= {"num_shots": 1, "notes_labels": False}
    if spec.num_shots == 0:
        new["notes_labels"] = False
    stated = vars(spec)
    changed = {name: value for name, value in new.items() if stated[name] != value}
    return _twin(spec, changed) if changed else spec


def unused_fields(stated: Mapping[str, Any]) -> frozenset[str]:
    """Return the identity fields that a trial's method and probes have no use for; they are at their defaults.

    Args:
        stated: an identity, as `identity` states it or as a record holds it.
    """
    return frozenset(_without_use(stated["method"], "counterfact" in stated["probes"]))


@cache
def _without_use(method: str, counterfact: bool) -> Mapping[str, Any]:
    """Return the fields that a method and its probes have no use for, with what they are set to."""
    values: dict[str, Any] = {}
    if method != "memory":
        values |= _NO_MEMORY
    if method == "pretrained":
        values |= _NO_TRAINING
    if not counterfact:
        values |= _NO_SAMPLES
    return values


def _canonical_memory(spec: TrialSpec, card: ModelCard) -> dict[str, Any]:
    layer = spec.layer if spec.depth is None else layer_index(spec.depth, card.num_blocks)
    assert layer is not None
    if layer >= card.num_blocks:
        raise ConfigError(
            f"layer={layer}: {spec.model} has {card.num_blocks} blocks, 0 to {card.num_blocks - 1}; choose one of them"
        )
    new: dict[str, Any] = {"layer": layer, "depth": None}
    plain = spec.allocation == "none" or (spec.mode == "inductive" and spec.alpha == 0)
    if plain:
        return new | _NO_ENTRY_SETS
    if spec.mode == "hard":
        new["alpha"] = 0.0
    if spec.num_clusters == spec.num_documents:
        new["num_clusters"] = None
    if spec.allocation in ("random", "partitioned"):
        new |= {"granularity": "dim", "entries_per_group": None}
    if spec.allocation == "partitioned":
        new["mem_seed"] = 0
    return new


def identity(spec: TrialSpec, card: ModelCard | None = None, data_key: str | None = None) -> dict[str, Any]:
    """State everything that decides the result, model and data by what they contain.

    Args:
        spec: any spec; it is made canonical.
        card: its model, where the caller has it at hand.
        data_key: its data's fingerprint, likewise.

    Returns:
        Every identity field but `depth`, as plain JSON values.
    """
    card = card or model_card(spec.model, spec.revision)
    return canonical_identity(canonical(spec, card), card, data_key or key_of_data(spec.data))


def canonical_identity(plain: TrialSpec, card: ModelCard, data_key: str) -> dict[str, Any]:
    """Do the same for a spec that is canonical already."""
    stated = dict(vars(plain), model=card.key, data=data_key)
    for name in _UNSTATED_FIELDS:
        del stated[name]
    stated["eval_epochs"] = list(plain.eval_epochs)
    stated["probes"] = list(plain.probes)
    return stated


def trial_id(stated: Mapping[str, Any]) -> str:
    """Hash an identity, as `identity` states it or as a record holds it: 16 hex digits.

    Fields at their default are left out, so that a field added later changes no id.
    """
    kept = {name: value for name, value in stated.items() if name not in _ELIDED or value != _ELIDED[name]}
    return digest([ID_VERSION, kept])


def digest(value: Any) -> str:
    """Hash a plain JSON value: 16 hex digits."""
    return hashlib.blake2b(_encode(value).encode(), digest_size=8).hexdigest()
