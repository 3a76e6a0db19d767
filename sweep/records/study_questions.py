"""What a study asks: one declaration, from which the report makes its tables and MLflow its saved views.

A question compares trials over some fields by some qualities. Whether a sweep asks it follows from its trials: those
that the question is about must differ in one of its fields, and have one of its qualities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Quality:
    """A metric by which trials are compared.

    Attributes:
        metric: its name in records and in MLflow.
        name: what it is, for the title of a table.
        short: heading of a column.
        lower_is_better: which end is best.
    """

    metric: str
    name: str
    short: str
    lower_is_better: bool


ERROR_BEFORE = Quality("memory/nll_before", "error of the model as it comes (NLL per token)", "NLL before", True)
ERROR = Quality("memory/nll", "memorisation error (NLL per token)", "NLL", True)
LEAKED = Quality("memory/leakage", "leakage (share of energy outside)", "leakage", True)
RIGHT = Quality("fever/accuracy", "FEVER accuracy", "accuracy", False)
MACRO_F1 = Quality("fever/f1_macro", "FEVER macro F1", "macro F1", False)
TRUE_RATE = Quality("counterfact/true_rate", "answers that begin with the true target", "true target", False)
NEW_RATE = Quality("counterfact/new_rate", "answers that begin with the counterfactual target", "new target", True)

RESULTS = (ERROR_BEFORE, ERROR, LEAKED, RIGHT, MACRO_F1, TRUE_RATE)
"""What a table of any trials shows, in this order."""
RATES = (TRUE_RATE, NEW_RATE)
"""The scores of CounterFact whose comparison with the pretrained model MLflow shows; the report has all."""


@dataclass(frozen=True)
class StudyQuestion:
    """Something that a study may ask.

    Attributes:
        key: short name, part of its view's id.
        section: heading of its tables in the report.
        view: title of its saved view.
        over: fields over which trials are compared; none: the trials that have the qualities.
        qualities: by which they are compared.
        about: values of fields that a trial must have for the question to be about it.
    """

    key: str
    section: str
    view: str
    over: tuple[str, ...]
    qualities: tuple[Quality, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


FEW_SHOT = StudyQuestion(
    "few_shot", "Few-shot examples, pretrained models", "few-shot examples", ("num_shots",), (RIGHT, MACRO_F1),
    {"method": "pretrained"},
)  # fmt: skip
CONTENT = StudyQuestion(
    "content", "What is memorised", "what is memorised", ("content", "template_loss"), (RIGHT, MACRO_F1)
)
STRUCTURE = StudyQuestion(
    "structure", "Structure", "structure", ("allocation", "granularity", "entries_per_group"),
    (ERROR, RIGHT, MACRO_F1), {"method": "memory", "mode": "hard"},
)  # fmt: skip
LAYERS = StudyQuestion("layers", "Layers", "layers", ("layer",), (ERROR, RIGHT, MACRO_F1), {"method": "memory"})
INDUCTIVE = StudyQuestion(
    "alpha_allocation", "Inductive loss: alpha and allocation", "alpha x allocation", ("alpha", "allocation"),
    (ERROR, RIGHT, MACRO_F1, LEAKED), {"method": "memory", "mode": "inductive"},
)  # fmt: skip
DOCUMENTS = StudyQuestion(
    "documents", INDUCTIVE.section, "number of documents", ("num_documents",), INDUCTIVE.qualities, {"method": "memory"}
)
ENTRIES = StudyQuestion(
    "entries", INDUCTIVE.section, "entries of a document", ("entries_per_group",), INDUCTIVE.qualities, INDUCTIVE.about
)
MEMORY_SIZE = StudyQuestion(
    "memory_size", "Size of the memory and clusters", "size of the memory", ("memory_dim",), (ERROR, RIGHT),
    {"method": "memory"},
)  # fmt: skip
CLUSTERS = StudyQuestion(
    "clusters", MEMORY_SIZE.section, "clusters of documents", ("num_clusters",), (ERROR, RIGHT), {"method": "memory"}
)
COUNTERFACT = StudyQuestion("counterfact", "CounterFact", "CounterFact", (), RATES)

QUESTIONS = (
    FEW_SHOT, CONTENT, STRUCTURE, LAYERS, INDUCTIVE, DOCUMENTS, ENTRIES, MEMORY_SIZE, CLUSTERS, COUNTERFACT,
)  # fmt: skip


@dataclass(frozen=True)
class Against:
    """What trials are measured against.

    Attributes:
        key: first part of the comparison's metric names.
        slug: file name of the report's table, without ending.
        title: heading of the report's table.
        view: title of the saved view.
        name: what it is, in words.
        verdict: tag that says in a word whether the difference is real.
    """

    key: str
    slug: str
    title: str
    view: str
    name: str
    verdict: str

    @property
    def accuracy(self) -> str:
        """Name of the difference in accuracy."""
        return f"{self.key}/accuracy"

    def rate(self, quality: Quality, end: str = "") -> str:
        """Return the name of the difference in another quality than FEVER's, or of an end of its interval."""
        return f"{self.key}/{quality.metric.replace('/', '_')}{end}"

    def verdict_on(self, quality: Quality) -> str:
        """Return the tag that says in a word whether the difference in such a quality is real."""
        return f"{self.verdict}_{quality.metric.replace('/', '_')}"


AGAINST_PRETRAINED = Against(
    "vs_pretrained",
    "against_pretrained",
    "Every trial against the pretrained model",
    "against pretrained",
    "the pretrained model",
    "verdict",
)
AGAINST_PLAIN = Against(
    "vs_plain", "against_plain", "Structured against plain memory (no structure, alpha 0)", "against plain memorising",
    "plain memorising (no structure, alpha 0)", "verdict_vs_plain",
)  # fmt: skip
AGAINST = (AGAINST_PRETRAINED, AGAINST_PLAIN)
ENDS = ("", "_low", "_high")
"""Of a difference: itself and the ends of its interval."""
COMPARED = ("accuracy", "accuracy_low", "accuracy_high", "f1_macro", "p_holm")
"""What a comparison of FEVER answers says: difference in accuracy, ends of its interval, difference in macro F1, p."""
