"""A trial is a value: what one grid point of the study is, and the id that names it.

`TrialSpec` is plain, immutable, validated data. Each field is declared once, with its role and the parts of a trial
that depend on it (see `fields`); every list of fields elsewhere is derived from that (see `parts`). `canonical`
removes what cannot matter, `identity` states what does, and `trial_id` hashes that statement; the same function gives
the id of a spec and of a finished record. `training_id` hashes that part of it which changes what is trained: trials
that only ask differently share one training.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from trainables.adapters.docguidance.plan import ACTIVATIONS, NEGATIVES
from trainables.adapters.lora.targets import without_repetition
from trainables.adapters.memory.setting import ALLOCATIONS, GROUPINGS, MOST_COMPLETE, SetSetting
from trainables.adapters.registry import ADAPTERS
from trainables.data.general_text import general_text_key
from trainables.data.sources import data_key as key_of_data
from trainables.data.sources import used_key, uses_hub
from trainables.data.task_folder import task_folder_key
from trainables.errors import ConfigError, nearest
from trainables.lm.card import ModelCard, model_card
from trainables.probes.registry import PROBES
from trainables.trial.fields import InReport, Part, Role, SpecField, declare, declared_fields

ID_VERSION = "1"
MATHS = "maths"
MATHS_VERSIONS: Mapping[str, int] = {"all": 1, "subjects": 2}
"""Raised by hand when the same trial gives other numbers than before, so that its id is another one.

`all`: of every trial; `subjects`: of those with `page_order=subjects` (2: the subjects' own pages, those included to
which no claim points). A version of 1 is left out, so that the ids of before stay. What only asks differently has a
version of its own, that of the probe, and keeps the id.
"""
_TRAINING, _PROBE, _BOTH = Role.TRAINING, Role.PROBE, Role.TRAINING | Role.PROBE
_IN_PROMPTS = Part.TEMPLATES | Part.FEVER
_ASKED = Part.QUESTIONS


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One grid point. Values are coerced (`1` and `1.0`, `"10"` and `10` are the same) and checked.

    Raises:
        ConfigError: a value of the wrong type, outside its range or choices, or at odds with another field.
    """

    # The model.
    model: str = declare(
        "sample-llama", "alias, hub id or folder of a causal language model of transformers", _TRAINING, Part.MODEL,
        costs=True,
    )  # fmt: skip
    revision: str = declare("main", "revision on the hub", _TRAINING, Part.MODEL, costs=True, report=InReport.HIDDEN)
    dtype: str = declare(
        "float32", "type of the frozen model's numbers", _TRAINING, Part.MODEL, costs=True,
        choices=("float32", "bfloat16"),
    )  # fmt: skip
    # The texts.
    data: str = declare(
        "sample", "sources joined by commas: fever, counterfact, sample, hub, folders or files", _BOTH, Part.CORPUS,
        costs=True,
    )  # fmt: skip
    allow_missing_pages: bool = declare(
        False, "go on without the pages that the hub's copy lacks", _BOTH, Part.CORPUS, costs=True
    )
    detokenize: bool = declare(False, "undo FEVER's tokenisation in page texts", _BOTH, Part.CORPUS, costs=True)
    method: str = declare(
        "memory", "what is trained", _TRAINING, Part.MEMORY | Part.SCHEDULE, costs=True,
        choices=ADAPTERS,
    )  # fmt: skip
    content: str = declare(
        "document", "what is memorised", _TRAINING, Part.TEMPLATES | Part.SCHEDULE, costs=True,
        choices=("document", "template", "document+template"),
    )  # fmt: skip
    template_loss: str = declare(
        "full", "template tokens that carry the loss", _TRAINING, Part.TEMPLATES, choices=("full", "answer")
    )
    template_facts: int = declare(
        0, "CounterFact prompts about subjects that are not asked, trained on as templates with their true answers",
        _BOTH, Part.TEMPLATES | Part.COUNTERFACT, costs=True, low=0,
    )  # fmt: skip
    num_documents: int = declare(10, "top pages of the ranking (N_top)", _BOTH, Part.PAGES, costs=True, low=1)
    page_order: str = declare(
        "claims", "ranking of pages: by claims asked, or CounterFact's subjects first", _BOTH, Part.PAGES, costs=True,
        choices=("claims", "subjects"),
    )  # fmt: skip
    num_clusters: int | None = declare(
        None, "groups of documents; default one each", _TRAINING, Part.ENTRY_SETS, may_differ=True, low=1
    )
    grouping: str = declare(
        "complete", "how fewer groups than documents are found: from all pairs, or from near ones (lsh)", _TRAINING,
        Part.ENTRY_SETS, may_differ=True, choices=GROUPINGS,
    )  # fmt: skip
    segment_tokens: int = declare(256, "tokens per segment", _BOTH, Part.SEGMENTS | _ASKED, costs=True, low=2)
    max_segments: int = declare(10, "segments per document", _BOTH, Part.SEGMENTS, costs=True, low=1)
    # The memory.
    layer: int | None = declare(
        None,
        "block whose output the memory adds to, 0-based; a lora is on the blocks above it",
        _TRAINING,
        Part.MEMORY,
        costs=True,
        low=0,
    )
    depth: float | None = declare(
        None, "the same as a share of the depth, in (0, 1]", _TRAINING, Part.MEMORY, report=InReport.HIDDEN,
        above=0, high=1,
    )  # fmt: skip
    memory_dim: int = declare(
        128, "entries of the memory", _TRAINING, Part.MEMORY, costs=True, may_differ=True, by_adapter=True, low=1
    )
    norm_and_gate: bool = declare(
        True, "LayerNorm and gate after the memory's second linear map", _TRAINING, Part.MEMORY, may_differ=True,
        by_adapter=True,
    )  # fmt: skip
    mode: str = declare(
        "inductive", "how an entry set acts", _TRAINING, Part.ENTRY_SETS, may_differ=True,
        choices=("inductive", "hard"),
    )  # fmt: skip
    allocation: str = declare(
        "none", "entries a document may use", _TRAINING, Part.ENTRY_SETS, may_differ=True, choices=ALLOCATIONS
    )
    granularity: str = declare(
        "dim", "entry set per document or per token", _TRAINING, Part.ENTRY_SETS, may_differ=True,
        choices=("dim", "token"),
    )  # fmt: skip
    entries_per_group: int | None = declare(
        None, "hash functions of simset; default by memory_dim", _TRAINING, Part.ENTRY_SETS, may_differ=True, low=1
    )
    mem_seed: int = declare(
        0, "seed of the allocation", _TRAINING, Part.ENTRY_SETS, may_differ=True, report=InReport.SEED, low=0
    )
    alpha: float = declare(0.0, "weight of the inductive loss", _TRAINING, Part.ENTRY_SETS, may_differ=True, low=0)
    # Other adapters.
    rank: int = declare(8, "rank of a lora", _TRAINING, Part.MEMORY, costs=True, low=1)
    lora_alpha: float = declare(
        16.0, "weight of a lora, times its rank", _TRAINING, Part.MEMORY, may_differ=True, above=0
    )
    lora_targets: tuple[str, ...] = declare(
        ("all",), "linear maps that a lora updates: all, attention, mlp, or names such as q_proj", _TRAINING,
        Part.MEMORY, costs=True,
    )  # fmt: skip
    virtual_tokens: int = declare(
        20, "vectors that a tuned prompt has before every text", _TRAINING, Part.MEMORY, costs=True, low=1
    )
    template_layer: int | None = declare(
        None, "block of the templates' memory, of two memories; default that of the documents'", _TRAINING,
        Part.MEMORY, costs=True, low=0,
    )  # fmt: skip
    key_dim: int = declare(2, "numbers of a document's vector under document guidance", _TRAINING, Part.MEMORY, low=1)
    activation: str = declare(
        "tanh", "of entries, gates and output under document guidance", _TRAINING, Part.MEMORY, choices=ACTIVATIONS
    )
    negatives: str = declare(
        "other", "vector under which a text is not to be known under document guidance", _TRAINING, Part.MEMORY,
        choices=NEGATIVES,
    )  # fmt: skip
    guidance_target: float = declare(
        4.5, "NLL that a text is to have under a wrong vector", _TRAINING, Part.MEMORY, may_differ=True, low=0
    )
    guidance_alpha: float = declare(0.1, "weight of the guidance loss", _TRAINING, Part.MEMORY, may_differ=True, low=0)
    # The training.
    start_from: str | None = declare(
        None, "training whose weights this one starts from, by its id; a stage says it by its start_from", _TRAINING,
        Part.SCHEDULE, may_differ=True,
    )  # fmt: skip
    epochs: int = declare(25, "passes over the texts", _TRAINING, Part.SCHEDULE, costs=True, low=1)
    batch_size: int = declare(4, "texts per step", _TRAINING, Part.SCHEDULE, costs=True, low=1)
    lr: float = declare(1e-3, "peak learning rate", _TRAINING, Part.SCHEDULE, may_differ=True, above=0)
    weight_decay: float = declare(0.05, "decoupled weight decay", _TRAINING, Part.SCHEDULE, may_differ=True, low=0)
    warmup_steps: int = declare(10, "warm-up of the cosine schedule, steps", _TRAINING, Part.SCHEDULE, low=0)
    grad_clip: float = declare(10.0, "largest gradient norm", _TRAINING, Part.SCHEDULE, may_differ=True, above=0)
    seed: int = declare(
        0, "initialisation, order of texts, choice of few-shot examples, sampled answers", _BOTH,
        Part.MEMORY | Part.SCHEDULE | _IN_PROMPTS | Part.COUNTERFACT | _ASKED, costs=True, may_differ=True,
        by_adapter=True, report=InReport.SEED, low=0,
    )  # fmt: skip
    epoch_order: str = declare(
        "shuffled", "order of texts in an epoch: any, or shards of neighbours one after the other (many documents)",
        _TRAINING, Part.SCHEDULE, choices=("shuffled", "shards"),
    )  # fmt: skip
    # The questions.
    num_shots: int = declare(1, "few-shot examples in a prompt", _BOTH, _IN_PROMPTS | _ASKED, costs=True, low=0, high=5)
    notes_labels: bool = declare(
        False, "label the second and third pool lists as the notes print them", _BOTH, _IN_PROMPTS | _ASKED, costs=True
    )
    claims_per_page: int | None = declare(
        None, "ask at most so many claims a page", _PROBE, Part.FEVER, costs=True, low=1
    )
    eval_epochs: tuple[int, ...] = declare(
        (), "further epochs after which to evaluate", _PROBE, Part.SCHEDULE, costs=True
    )
    probes: tuple[str, ...] = declare(
        ("fever",), "evaluations", _PROBE, Part.FEVER | Part.COUNTERFACT | _ASKED, costs=True, report=InReport.HIDDEN,
        choices=PROBES,
    )  # fmt: skip
    counterfact_records: int = declare(100, "CounterFact records asked", _PROBE, Part.COUNTERFACT, costs=True, low=1)
    num_answers: int = declare(5, "sampled answers per CounterFact prompt", _PROBE, Part.COUNTERFACT, costs=True, low=1)
    answer_tokens: int = declare(5, "tokens per sampled answer", _PROBE, Part.COUNTERFACT, costs=True, low=1)
    temperature: float = declare(1.0, "temperature of sampled answers", _PROBE, Part.COUNTERFACT, above=0)
    recall_documents: int = declare(50, "documents asked for by recall, at most", _PROBE, _ASKED, costs=True, low=1)
    recall_title: bool = declare(
        True, "the title stands before the words that recall gives", _PROBE, _ASKED, costs=True
    )
    recall_words: int = declare(8, "first words of a document that recall gives", _PROBE, _ASKED, costs=True, low=1)
    recall_tokens: int = declare(64, "tokens of the rest that recall asks for", _PROBE, _ASKED, costs=True, low=1)
    heldout_documents: int = declare(
        20, "documents that are not memorised, read for forgetting, at most", _PROBE, _ASKED, costs=True, low=1
    )
    heldout_claims: int = declare(
        5, "claims about a held-out page asked for forgetting, at most", _PROBE, _ASKED, costs=True, low=1
    )
    general_text: str | None = declare(
        None, "text file that forgetting reads besides the held-out documents", _PROBE, _ASKED, costs=True
    )
    choices_by: str = declare(
        "letter",
        "how the user's own questions are answered",
        _PROBE,
        _ASKED,
        costs=True,
        choices=("letter", "likelihood"),
    )
    questions_per_document: int | None = declare(
        None, "ask at most so many of the user's own questions a document", _PROBE, _ASKED, costs=True, low=1
    )
    lm_eval_tasks: tuple[str, ...] = declare((), "tasks or groups of lm-evaluation-harness", _PROBE, _ASKED, costs=True)
    lm_eval_folder: str | None = declare(None, "folder of task files (YAML) for lm_eval", _PROBE, _ASKED)
    lm_eval_limit: int | None = declare(
        None, "examples of each task of lm_eval, at most", _PROBE, _ASKED, costs=True, low=1
    )
    lm_eval_shots: int | None = declare(
        None, "few-shot examples in lm_eval's prompts; default what each task says", _PROBE, _ASKED, costs=True, low=0
    )
    # How it is run, and what it is called.
    micro_batch_tokens: int = declare(
        16384, "tokens of a pack in one forward pass", Role.RESOURCE, may_differ=True, low=1
    )
    checkpoint_every_s: float = declare(60.0, "seconds between checkpoints", Role.RESOURCE, may_differ=True, low=0)
    keep_memory: bool = declare(
        True, "store the trained memory with the record", Role.RESOURCE, costs=True, may_differ=True
    )
    keep_epochs: bool = declare(
        True, "store the weights after each of eval_epochs too, so that they can be asked later", Role.RESOURCE,
        costs=True, may_differ=True,
    )  # fmt: skip
    leakage_sets: tuple[str, ...] = declare(
        (), "further entry sets under which a memory without structure has its leakage measured, such as simset2_g50",
        Role.RESOURCE, may_differ=True,
    )  # fmt: skip
    stage: str = declare("", "stage of the sweep", Role.LABEL, may_differ=True)

    def __post_init__(self) -> None:
        """Coerce and check every field, then the rules between fields."""
        for name, value in list(vars(self).items()):
            declared = FIELDS[name]
            if value is not declared.default:
                object.__setattr__(self, name, declared.check(value))
        self._check_together()

    def _check_together(self) -> None:
        used = ADAPTERS[self.method].uses()
        if "layer" in used and (self.layer is None) == (self.depth is None):
            raise ConfigError(f"layer, depth: a {self.method} needs exactly one; set layer=INDEX or depth=SHARE")
        if self.num_clusters is not None and self.num_clusters > self.num_documents:
            raise ConfigError(
                f"num_clusters={self.num_clusters}: must not exceed num_documents={self.num_documents}; lower it"
            )
        if "allocation" in used and self.allocation != "none" and self.grouping == "complete":
            if self.groups < self.num_documents > MOST_COMPLETE:
                raise ConfigError(
                    f"num_clusters={self.num_clusters}: to find groups from all pairs of {self.num_documents:,} "
                    f"documents takes {self.num_documents**2 * 24 / 2**30:,.0f} GiB; set grouping=lsh, which takes "
                    "near pairs only"
                )
        if "allocation" in used and self.allocation in ("random", "partitioned"):
            if self.memory_dim < self.groups:
                raise ConfigError(
                    f"memory_dim={self.memory_dim}: {self.allocation} needs at least one entry for each of "
                    f"{self.groups} groups; raise memory_dim or lower num_clusters"
                )
        if self.method == "two_memories" and self.content != "document+template" and self.start_from is None:
            raise ConfigError(
                f"content={self.content}: two memories need both kinds; set content=document+template, or start from a "
                "stage that has trained the other kind (start_from)"
            )
        if self.start_from is not None and not re.fullmatch("[0-9a-f]{16}", self.start_from):
            raise ConfigError(
                f"start_from={self.start_from!r}: must be the id of a training, 16 hex digits; for those of an earlier "
                "stage write Stage(..., start_from=NAME)"
            )
        if "lora_targets" in used and not self.lora_targets:
            raise ConfigError("lora_targets=: names no linear map; write all, attention, mlp, or names such as q_proj")
        for name in self.leakage_sets:
            SetSetting.named(name)
        if self.eval_epochs and (min(self.eval_epochs) < 0 or max(self.eval_epochs) > self.epochs):
            raise ConfigError(f"eval_epochs={self.eval_epochs}: must lie between 0 and epochs={self.epochs}")

    @property
    def groups(self) -> int:
        """Groups asked for: `num_clusters`, or one per document."""
        return self.num_clusters or self.num_documents


FIELDS: Mapping[str, SpecField] = declared_fields(TrialSpec)
IDENTITY_FIELDS: tuple[str, ...] = tuple(name for name, field in FIELDS.items() if field.role & _BOTH)
REPEATED: tuple[str, ...] = tuple(name for name, field in FIELDS.items() if field.report is InReport.SEED)
"""Fields whose values repeat a trial: means are taken over them."""
STATED_FIELDS: tuple[str, ...] = tuple(name for name in IDENTITY_FIELDS if name != "depth")
"""What `identity` states: a depth is stated as the layer it stands for."""
_UNSTATED_FIELDS = tuple(name for name in FIELDS if name not in STATED_FIELDS)
_ELIDED: dict[str, Any] = {
    name: list(FIELDS[name].default) if FIELDS[name].base is tuple else FIELDS[name].default
    for name in IDENTITY_FIELDS
    if name not in ("model", "data")
}
_TUPLES = tuple(name for name in STATED_FIELDS if FIELDS[name].base is tuple)
TOLD_APART: tuple[str, ...] = (*STATED_FIELDS, MATHS)
"""By which two different trials differ in at least one."""
STATED_DEFAULTS: Mapping[str, Any] = _ELIDED
"""What a record from before a field was added would have stated for it."""
_KEPT = ("method", "probes", "seed")
"""Never without use: the first two say which parts a trial has, and ids have always held the seed."""
OTHER_NAMES: Mapping[str, str] = {
    "hook_layer": "layer",
    "selected_docs": "num_documents",
    "lm_size": "model (an alias such as llama2-7b, a hub id or a folder)",
    "lm": "model",
    "memory_allocation": "allocation",
    "simset": "allocation (simset1, simset2 or simset3, by the length of shingles)",
    "clusters": "num_clusters",
    "memory_seed": "mem_seed",
    "shots": "num_shots",
    "learning_rate": "lr",
    "num_epochs": "epochs",
}
"""Names of fields in the study's notes, in MLflow and in other programs, where the nearest name would mislead."""
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _check_names(names: Mapping[str, Any]) -> None:
    """Refuse unknown field names.

    Raises:
        ConfigError: names the first unknown field and the nearest known one.
    """
    for name in names:
        if name not in FIELDS:
            raise ConfigError(f"{name}: {unknown_field(name)}")


def unknown_field(name: str) -> str:
    """Say that there is no such field, and which one is meant: by the study's name for it, or the nearest."""
    plain = name.strip().lower().replace("-", "_")
    if plain in OTHER_NAMES:
        return f"unknown field; the field is {OTHER_NAMES[plain]}"
    return f"unknown field{nearest(name, FIELDS)}"


def make_spec(values: Mapping[str, Any]) -> TrialSpec:
    """Build a spec from a mapping, refusing unknown names.

    Raises:
        ConfigError: an unknown field or a bad value.
    """
    _check_names(values)
    return TrialSpec(**values)


def vary(spec: TrialSpec, values: Mapping[str, Any]) -> TrialSpec:
    """Return the spec with other values, which `coerce` has seen: only the rules between fields are checked.

    Several times faster than `dataclasses.replace`, for spaces of many points.

    Raises:
        ConfigError: a value at odds with another field.
    """
    varied = twin(spec, values)
    varied._check_together()
    return varied


def twin(spec: TrialSpec, changes: Mapping[str, Any]) -> TrialSpec:
    """Return the spec with other values, unchecked."""
    twin = object.__new__(TrialSpec)
    vars(twin).update(vars(spec), **changes)
    return twin


def coerce(name: str, value: Any) -> Any:
    """Return one field's value in its declared type.

    Raises:
        ConfigError: unknown field, wrong type, range or choice.
    """
    _check_names({name: value})
    return FIELDS[name].check(value)


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
    adapter = ADAPTERS[spec.method]
    acts = "alpha" not in adapter.uses() or spec.mode == "hard" or spec.alpha != 0
    sets = "allocation" in adapter.uses() and spec.allocation != "none" and acts
    new = dict(_without_use(spec.method, spec.probes, spec.content != "document", sets))
    if not card.is_hub:
        new["revision"] = "main"
    elif card.commit:
        new["revision"] = card.commit  # every worker takes the commit that the driver saw, though the branch may move
    if not uses_hub(spec.data):
        new["allow_missing_pages"] = False
    if "layer" in adapter.uses():
        new["layer"], new["depth"] = _block(spec, card), None
    if sets:
        new |= _canonical_entry_sets(spec)
    if "lora_targets" in adapter.uses():
        new["lora_targets"] = without_repetition(spec.lora_targets)
    if "template_layer" in adapter.uses() and spec.template_layer == new["layer"]:
        new["template_layer"] = None
    if adapter.trains and spec.eval_epochs:
        new["eval_epochs"] = tuple(e for e in spec.eval_epochs if e != spec.epochs)
    if spec.num_shots == 0:
        new["notes_labels"] = False
    stated = vars(spec)
    changed = {name: value for name, value in new.items() if stated[name] != value}
    return twin(spec, changed) if changed else spec


def uses_counterfact(spec: TrialSpec) -> bool:
    """Say whether a trial needs CounterFact records: to ask them, to train on them, or to order its pages by them."""
    return "counterfact" in spec.probes or _trains_on_counterfact(vars(spec))


def _trains_on_counterfact(stated: Mapping[str, Any]) -> bool:
    """Say whether CounterFact records decide what is trained: its pages' order, or texts of theirs."""
    texts = stated.get("template_facts") and stated["content"] != "document"
    trains = texts and stated["method"] in ADAPTERS and ADAPTERS[stated["method"]].trains
    return stated.get("page_order") == "subjects" or bool(trains)


def draws_texts(spec: TrialSpec) -> bool:
    """Say whether the seed decides what is trained on: the examples of prompts that are."""
    return spec.content != "document" and spec.num_shots > 0


def uses_questions(spec: TrialSpec) -> bool:
    """Say whether a trial asks questions of the user's own, or trains on them."""
    return "choices" in spec.probes or (ADAPTERS[spec.method].trains and spec.content != "document")


def unused_fields(stated: Mapping[str, Any]) -> frozenset[str]:
    """Return the identity fields that a trial's method and probes have no use for; they are at their defaults.

    Args:
        stated: an identity, as `identity` states it or as a record holds it.
    """
    if stated["method"] not in ADAPTERS:
        return frozenset()
    return frozenset(_without_use(stated["method"], (*stated["probes"], "fever")))  # whose fields always tell apart


@cache
def _without_use(
    method: str, probes: tuple[str, ...], templates: bool = True, entry_sets: bool = True
) -> Mapping[str, Any]:
    """Return the fields that no part of a trial has a use for, with their defaults.

    Args:
        method: what is trained.
        probes: what is asked; those that are not known any more are passed over.
        templates: whether templates are trained on, if anything is.
        entry_sets: whether entries are allocated, to an effect.
    """
    adapter = ADAPTERS[method]
    own = {*adapter.uses(), *(("depth",) if "layer" in adapter.uses() else ())}
    asked = {name for probe in probes if probe in PROBES for name in PROBES[probe].uses()}
    present = {
        Part.MEMORY: own,
        Part.ENTRY_SETS: own if entry_sets else (),
        Part.SCHEDULE: FIELDS if adapter.trains else (),
        Part.TEMPLATES: FIELDS if adapter.trains and templates else (),
        Part.FEVER: asked,
        Part.COUNTERFACT: asked,
        Part.QUESTIONS: asked,
    }
    return {
        name: FIELDS[name].default
        for name in IDENTITY_FIELDS
        if name not in _KEPT
        and all(name not in present.get(part, FIELDS) for part in Part if part in FIELDS[name].parts)
    }


def _block(spec: TrialSpec, card: ModelCard) -> int:
    """Return the index of the block that the memory adds to."""
    layer = spec.layer if spec.depth is None else layer_index(spec.depth, card.num_blocks)
    assert layer is not None
    if layer >= card.num_blocks:
        raise ConfigError(
            f"layer={layer}: {spec.model} has {card.num_blocks} blocks, 0 to {card.num_blocks - 1}; choose one of them"
        )
    return layer


def _canonical_entry_sets(spec: TrialSpec) -> dict[str, Any]:
    """Return what of an allocation cannot matter, with what it is set to."""
    new: dict[str, Any] = dict(vars(SetSetting.of(vars(spec))))
    if spec.mode == "hard":
        new["alpha"] = 0.0
    return new


def identity(spec: TrialSpec, card: ModelCard | None = None, data_key: str | None = None) -> dict[str, Any]:
    """State everything that decides the result, model and data by what they contain.

    Args:
        spec: any spec; it is made canonical.
        card: its model, where the caller has it at hand.
        data_key: its data's fingerprint, likewise.

    Returns:
        The `STATED_FIELDS`, as plain JSON values; and `maths`, the `MATHS_VERSIONS` that are not 1, if there are any.
    """
    card = card or model_card(spec.model, spec.revision)
    return canonical_identity(canonical(spec, card), card, data_key or key_of_data(spec.data))


def canonical_identity(plain: TrialSpec, card: ModelCard, data_key: str) -> dict[str, Any]:
    """Do the same for a spec that is canonical already."""
    stated = dict(vars(plain), model=card.key, data=used_key(data_key, uses_counterfact(plain), uses_questions(plain)))
    for name in _UNSTATED_FIELDS:
        del stated[name]
    parts = ("all", *(("subjects",) if plain.page_order == "subjects" else ()))
    maths = [f"{part} {MATHS_VERSIONS[part]}" for part in parts if MATHS_VERSIONS[part] > 1]
    if maths:
        stated[MATHS] = ", ".join(maths)
    if plain.general_text is not None:
        stated["general_text"] = general_text_key(plain.general_text)
    if plain.lm_eval_folder is not None:
        stated["lm_eval_folder"] = task_folder_key(plain.lm_eval_folder)
    for name in _TUPLES:
        stated[name] = list(stated[name])
    return stated


def trial_id(stated: Mapping[str, Any]) -> str:
    """Hash an identity, as `identity` states it or as a record holds it: 16 hex digits.

    Fields at their default are left out, so that a field added later changes no id.
    """
    kept = {name: value for name, value in stated.items() if name not in _ELIDED or value != _ELIDED[name]}
    return digest([ID_VERSION, kept])


def training_identity(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an identity that decides what is trained, and on what its memorisation error is measured.

    What only asks is at its default: the fields of probes, and those of prompts unless prompts are trained on. So a
    training has the id of the trial that asks what is asked by default, and records of every format tell theirs.

    Args:
        stated: an identity, as `identity` states it or as a record holds it.
    """
    asks = {name: _ELIDED[name] for name, field in FIELDS.items() if field.role is Role.PROBE}
    if stated["method"] in ADAPTERS:
        unused = _without_use(stated["method"], (), stated["content"] != "document")
        asks |= {name: _ELIDED[name] for name in unused if name in _ELIDED and name in stated}
    trains = stated["method"] in ADAPTERS and ADAPTERS[stated["method"]].trains
    texts = trains and stated["content"] != "document"
    data = used_key(stated["data"], _trains_on_counterfact(stated), texts)
    return {**stated, **{name: value for name, value in asks.items() if name in stated}, "data": data}


def training_id(stated: Mapping[str, Any]) -> str:
    """Return the id of the training that a trial needs: 16 hex digits.

    Args:
        stated: the trial's identity.
    """
    return trial_id(training_identity(stated))


def digest(value: Any) -> str:
    """Hash a plain JSON value: 16 hex digits."""
    return hashlib.blake2b(_encode(value).encode(), digest_size=8).hexdigest()
