"""What things are called in the report: metrics, and a trial in a few words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sweep.records.study_questions import ERROR, LEAKED, MACRO_F1, RIGHT
from sweep.report.references import is_structured
from sweep.report.study import Trial
from sweep.report.table import cell_text
from trainables.trial.fields import InReport
from trainables.trial.identity import TOLD_APART
from trainables.trial.parts import fields_in_report

SEEDS = fields_in_report(InReport.SEED)
NOT_SHOWN = (*fields_in_report(InReport.HIDDEN), *SEEDS)
ACCURACY, MACRO, NLL, LEAKAGE = RIGHT.metric, MACRO_F1.metric, ERROR.metric, LEAKED.metric
NLL_PER_BYTE = "memory/nll_per_byte"
IN_VARIANT = (
    "model",
    "method",
    "content",
    "allocation",
    "granularity",
    "entries_per_group",
    "mode",
    "alpha",
)
"""Fields that `variant` names; `model` has a label of its own."""


def variant(trial: Trial) -> str:
    """Name in short what was trained, such as `pretrained` or `document simset1-token hard`."""
    method = trial.get("method")
    if method == "pretrained":
        return "pretrained"
    if method == "allocate":
        return f"allocate {allocation_name(trial)}"
    words = [*([] if method == "memory" else [str(method).replace("_", " ")]), str(trial.get("content"))]
    if is_structured(trial):
        mode = "hard" if trial.get("mode") == "hard" else f"alpha {cell_text(trial.get('alpha'))}"
        words += [allocation_name(trial), mode]
    return " ".join(words)


def allocation_name(trial: Trial) -> str:
    """Name an entry set: the allocation, with SimSet's granularity and a given number of hash functions."""
    name, entries = str(trial.get("allocation")), trial.get("entries_per_group")
    if name.startswith("simset"):
        name = f"{name}-{trial.get('granularity')}"
    return name if entries is None else f"{name} n={entries}"


def varying(trials: Iterable[Trial], besides: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the identity fields, other than seeds and `besides`, in which those trials differ that use them."""
    trials = list(trials)
    names = [name for name in TOLD_APART if name not in {*NOT_SHOWN, *besides}]
    return tuple(name for name in names if _differ([t.get(name) for t in trials if name not in t.unused]))


def _differ(values: Sequence[Any]) -> bool:
    """Say whether values are told apart in print; only those that are not equal need be printed for it."""
    return any(value != values[0] and cell_text(value) != cell_text(values[0]) for value in values)


def labels_of(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return what to label trials with: model, variant, and what else varies among them."""
    return ("model", "variant", *varying(trials, IN_VARIANT))


def label_texts(trial: Trial, labels: Sequence[str]) -> tuple[str, ...]:
    """Print a trial's labels."""
    return tuple(variant(trial) if name == "variant" else cell_text(trial.get(name)) for name in labels)
