"""What things are called in the report: metrics, and a trial in a few words."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.report.comparisons.references import is_structured
from sweep.report.study import Trial
from sweep.report.tables.pivots import varying
from sweep.report.tables.table import show

ACCURACY, MACRO, NLL, LEAKAGE = "fever/accuracy", "fever/f1_macro", "memory/nll", "memory/leakage"
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
    words = [*(["full update"] if method == "full_update" else []), str(trial.get("content"))]
    if is_structured(trial):
        mode = "hard" if trial.get("mode") == "hard" else f"alpha {show(trial.get('alpha'))}"
        words += [allocation_name(trial), mode]
    return " ".join(words)


def allocation_name(trial: Trial) -> str:
    """Name an entry set: the allocation, with SimSet's granularity and a given number of hash functions."""
    name, entries = str(trial.get("allocation")), trial.get("entries_per_group")
    if name.startswith("simset"):
        name = f"{name}-{trial.get('granularity')}"
    return name if entries is None else f"{name} n={entries}"


def labels_of(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return what to label trials with: model, variant, and what else varies among them."""
    return ("model", "variant", *varying(trials, IN_VARIANT))


def label_texts(trial: Trial, labels: Sequence[str]) -> tuple[str, ...]:
    """Print a trial's labels."""
    return tuple(variant(trial) if name == "variant" else show(trial.get(name)) for name in labels)
