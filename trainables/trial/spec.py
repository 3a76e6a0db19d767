"""A trial is a value: what one grid point of the study is.

`TrialSpec` is plain, immutable, validated data. Each field is declared once, with its role and the parts of a trial
that depend on it (see `fields`); every list of fields elsewhere is derived from that (see `parts`). `canonical`
removes what cannot matter, `identity` states what does, and its hash is the trial's id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trainables.adapters.docguidance.plan import ACTIVATIONS, NEGATIVES
from trainables.adapters.memory.setting import ALLOCATIONS, GROUPINGS, MOST_COMPLETE, SetSetting
from trainables.adapters.registry import ADAPTERS
from trainables.errors import ConfigError
from trainables.probes.registry import PROBES
from trainables.trial.fields import InReport, Part, Role, SpecField, declare, declared_fields

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
        may_differ=True,
        by_adapter=True,
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
        16384, "tokens of a pack in one forward pass", Role.RESOURCE, costs=True, may_differ=True, low=1
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
        self.check_together()

    def check_together(self) -> None:
        """Check the rules between fields.

        Raises:
            ConfigError: a value at odds with another field.
        """
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
