"""Tables that are the same whatever was studied: the best trials, what was asked, data, versions of the code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sweep.report.naming import ACCURACY, LEAKAGE, MACRO, NLL, NLL_PER_BYTE, label_texts, labels_of
from sweep.report.probe_rows import AskedProbe
from sweep.report.references import is_baseline
from sweep.report.study import Trial
from sweep.report.table import MISSING, Cell, Table, cell_text, number
from sweep.report.tables.pivots import Measure, listing, metric_named

MAX_LEADERS = 15
QUESTION_COUNTS = {
    "claims_asked": "claims",
    "claims_among_their_examples": "claims left out of their own examples",
    "counterfact_with_page": "records with a page among the documents",
    "counterfact_without_page": "records without",
    "recall_asked": "documents recalled",
    "heldout_documents": "documents held out",
    "heldout_claims": "claims about them",
    "questions_asked": "questions with choices",
    "lm_eval_tasks": "tasks of lm-evaluation-harness",
}


def asked(trials: Sequence[Trial], probe: AskedProbe) -> list[Table]:
    """Every metric of a probe per trial, the pretrained model among them."""
    own = [t for t in trials if any(name.startswith(f"{probe.name}/") for name in t.metrics)]
    names = dict.fromkeys(name for t in own for name in t.metrics if name.startswith(f"{probe.name}/"))
    if not names:
        return []
    short = {name: name.partition("/")[2] for name in names}
    measures = [Measure(short[name], metric_named(name), short[name] in probe.lower) for name in names]
    return [listing(own, ("model", "method", "content"), measures, probe.name, probe.title)]


def code_table(trials: Sequence[Trial]) -> Table | None:
    """What the trials were recorded with: versions of the code and of the probes, and how many of each."""
    counts = Counter(
        (
            t.code or "unknown",
            ", ".join(f"{name} {version}" for name, version in sorted(t.probe_versions.items())) or MISSING,
            cell_text(t.get("maths")),
        )
        for t in trials
    )
    if len(counts) < 2:
        return None
    rows = tuple((key, (Cell(float(count), f"{count:,}"),)) for key, count in counts.most_common())
    legend = (
        "Several versions are mixed in this report. Maths: trials whose numbers changed on purpose have other ids and "
        "are never taken for one another.",
    )
    return Table("versions", "Recorded by", ("code", "probes", "maths"), ("trials",), rows, legend)


def questions_table(trials: Sequence[Trial]) -> Table | None:
    """What was asked: how many claims and records, and what gave way or had no page."""
    names = [name for name in QUESTION_COUNTS if any(name in t.counts for t in trials)]
    labels = ("data", "num_documents", "num_shots", "seed")
    rows: dict[tuple[str, ...], tuple[Cell, ...]] = {}
    for trial in sorted(trials, key=lambda t: (t.data, t.get("num_documents"))):
        if any(name in trial.counts for name in names):
            cells = tuple(_count(trial.counts.get(name)) for name in names)
            rows.setdefault((*(cell_text(trial.get(name)) for name in labels), *(c.text for c in cells)), cells)
    if not rows:
        return None
    body = tuple((key[: len(labels)], cells) for key, cells in rows.items())
    columns = tuple(QUESTION_COUNTS[name] for name in names)
    return Table("questions", "Questions asked", labels, columns, body)


def leaders(trials: Sequence[Trial]) -> list[Table]:
    """The best trials by memorisation error and by accuracy, whatever they are.

    Errors per token are ranked among trials of one model, since tokenizers cut a text into tokens of their own; those
    of several models are ranked per byte of text.
    """
    models = list(dict.fromkeys(t.model for t in trials if t.metric(NLL) is not None and not is_baseline(t)))
    ranked = []
    for model in models:
        several = len(models) > 1
        own = [t for t in trials if t.model == model and not is_baseline(t)]
        slug, title = (f"best_nll_{model}", f"Best trials of {model}") if several else ("best_nll", "Best trials")
        ranked.append((own, NLL, True, slug, f"{title} by memorisation error (NLL per token)"))
    if len(models) > 1:
        others = [t for t in trials if not is_baseline(t)]
        title = "Best trials of all models by memorisation error (NLL per byte of text)"
        ranked.append((others, NLL_PER_BYTE, True, "best_nll_per_byte", title))
    ranked.append((list(trials), ACCURACY, False, "best_accuracy", "Best trials by FEVER accuracy"))
    tables = []
    for own, metric, lower, slug, title in ranked:
        found = [(v, t) for t in own if (v := t.metric(metric)) is not None]
        order = [t for _, t in sorted(found, key=lambda pair: pair[0] if lower else -pair[0])]  # noqa: B023
        if len(order) > 1:
            columns = (NLL, NLL_PER_BYTE, ACCURACY, MACRO, LEAKAGE)
            tables.append(trial_table(order, MAX_LEADERS, columns, re.sub(r"[^\w.-]+", "_", slug), title))
    return tables


def trial_table(trials: Sequence[Trial], most: int, metrics: Sequence[str], slug: str, title: str) -> Table:
    """List the first trials one per row: what varies among all of them, then metrics."""
    labels = labels_of(trials)
    rows = [
        (label_texts(trial, labels), tuple(Cell(trial.metric(n), number(trial.metric(n))) for n in metrics))
        for trial in trials[:most]
    ]
    ids = tuple(trial.id for trial in trials[:most])
    return Table(slug, title, labels, tuple(n.split("/")[-1] for n in metrics), tuple(rows), trials=ids)


def data_table(trials: Sequence[Trial]) -> Table | None:
    """What the documents and rows were: N_full, N_top, N_trunc and the rows behind them."""
    names = [name for name in dict.fromkeys(n for t in trials for n in t.counts) if name not in QUESTION_COUNTS]
    rows: dict[tuple[str, ...], tuple[Cell, ...]] = {}
    for trial in sorted(trials, key=lambda t: (t.data, t.get("num_documents"))):
        if trial.counts:
            cells = tuple(_count(trial.counts.get(name)) for name in names)
            rows.setdefault((trial.data, cell_text(trial.get("num_documents")), *(c.text for c in cells)), cells)
    if not rows:
        return None
    labels = ("data", "num_documents")
    body = tuple((key[:2], cells) for key, cells in rows.items())
    return Table("data", "Pages and rows", labels, tuple(names), body)


def _count(value: Any) -> Cell:
    return Cell(None, MISSING) if value is None else Cell(float(value), f"{value:,}")
