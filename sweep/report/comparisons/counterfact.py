"""CounterFact answers of a trial against those of the pretrained model, record by record.

A record is the unit: its answers are averaged first, and intervals and p come from drawing, or flipping, whole
records (`scipy.stats.bootstrap` and `permutation_test`, both paired).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.report.comparisons.fever import LEVEL, RESAMPLES, holm_corrected
from sweep.report.naming import label_texts, labels_of
from sweep.report.references import is_baseline
from sweep.report.samples import samples_of
from sweep.report.study import Study, Trial
from sweep.report.table import Cell, Table, interval_text, most_telling, number, p_text
from trainables.probes.counterfact.targets import METRICS, sample_scores
from trainables.trial.fields import Part
from trainables.trial.parts import fields_of

SLUG = "counterfact_against_pretrained"
SAME_FIELDS = tuple(
    name
    for name in fields_of(Part.MODEL | Part.CORPUS | Part.COUNTERFACT)
    if name not in ("probes", "counterfact_records")  # compared are the records that both were asked
)
LEGEND = (
    "Differences are trial minus the pretrained model, over the records that both were asked. Intervals: 95 % "
    "paired bootstrap over records; p: paired permutation test over records, Holm-corrected over this table. A row "
    "says higher or lower only where the interval excludes 0 and the corrected p is below 0.05."
)

Scores = Mapping[str, Mapping[str, float]]
"""Prompt -> score by name."""


@dataclass(frozen=True)
class RateComparison:
    """One score of one trial against the pretrained model's.

    Attributes:
        trial: the trial.
        score: one of `METRICS`.
        records: records compared.
        value, reference: means over records.
        interval: 95 % interval of the difference.
        p: two-sided.
        p_holm: the same after Holm's correction.
    """

    trial: Trial
    score: str
    records: int
    value: float
    reference: float
    interval: tuple[float, float]
    p: float
    p_holm: float = 1.0

    @property
    def verdict(self) -> str:
        """`higher`, `lower` or `no difference found`."""
        low, high = self.interval
        if self.p_holm < 1 - LEVEL and (low > 0 or high < 0):
            return "higher" if low > 0 else "lower"
        return "no difference found"


def counterfact_comparisons(study: Study, resamples: int = RESAMPLES) -> list[RateComparison]:
    """Compare every trial's CounterFact answers with the pretrained model's, where it was asked the same."""
    asked = [t for t in study.trials if t.status == "done" and "counterfact" in (t.get("probes") or ())]
    scores = {t.id: _scores(study, t) for t in asked}
    references = {_key(t): t for t in asked if is_baseline(t)}
    found = []
    for trial in asked:
        reference = references.get(_key(trial))
        if reference is not None and not is_baseline(trial):
            found += _compare(trial, scores[trial.id], scores[reference.id], resamples)
    corrected = holm_corrected([c.p for c in found])
    return [replace(c, p_holm=p) for c, p in zip(found, corrected, strict=True)]


def counterfact_table(comparisons: Sequence[RateComparison]) -> Table | None:
    """Print the comparisons."""
    if not comparisons:
        return None
    order = sorted(comparisons, key=lambda c: (c.verdict.startswith("no"), -abs(c.value - c.reference)))
    shown, left_out = most_telling(comparisons, order, SLUG)
    labels = labels_of([c.trial for c in comparisons])
    rows = tuple(
        (
            (*label_texts(c.trial, labels), c.score.replace("_", " ")),
            (
                Cell(float(c.records), str(c.records)),
                Cell(c.reference, number(c.reference)),
                Cell(c.value, number(c.value)),
                Cell(c.value - c.reference, number(c.value - c.reference, sign=True)),
                Cell(f"[{c.interval[0]:.6g}, {c.interval[1]:.6g}]", interval_text(c.interval)),
                Cell(c.p, p_text(c.p)),
                Cell(c.p_holm, p_text(c.p_holm)),
                Cell(c.verdict, c.verdict, best=c.verdict in ("higher", "lower")),
            ),
        )
        for c in shown
    )
    columns = ("records", "pretrained", "trial", "difference", "95 % interval", "p", "p (Holm)", "result")
    title = "Sampled answers against the pretrained model's"
    return Table(SLUG, title, (*labels, "score"), columns, rows, (LEGEND, *left_out))


def counterfact_records(comparisons: Sequence[RateComparison]) -> list[dict[str, Any]]:
    """Return every comparison with all its numbers, one dict per row."""
    labels = labels_of([c.trial for c in comparisons])
    return [
        {
            "trial": c.trial.id, "sweep": c.trial.sweep, **dict(zip(labels, label_texts(c.trial, labels), strict=True)),
            "score": c.score, "records": c.records, "pretrained": c.reference, "value": c.value,
            "difference": c.value - c.reference, "low": c.interval[0], "high": c.interval[1],
            "p": c.p, "p_holm": c.p_holm, "result": c.verdict,
        }
        for c in comparisons
    ]  # fmt: skip


def _key(trial: Trial) -> str:
    return repr([trial.point.get(name) for name in SAME_FIELDS])


def _scores(study: Study, trial: Trial) -> Scores:
    return {sample["prompt"]: sample_scores(sample) for sample in samples_of(study, trial)}


def _compare(trial: Trial, own: Scores, base: Scores, resamples: int) -> list[RateComparison]:
    found = []
    for name in METRICS:
        both = [prompt for prompt in own if name in own[prompt] and name in base.get(prompt, {})]
        if len(both) < 2:
            continue
        values, others = (np.array([scores[prompt][name] for prompt in both]) for scores in (own, base))
        interval, p = paired_difference(values, others, resamples)
        found.append(RateComparison(trial, name, len(both), float(values.mean()), float(others.mean()), interval, p))
    return found


def paired_difference(
    values: NDArray[np.float64], others: NDArray[np.float64], resamples: int = RESAMPLES
) -> tuple[tuple[float, float], float]:
    """Return the 95 % interval and the two-sided p of the mean of `values - others`, `[units]` each, two or more."""
    from scipy.stats import bootstrap, permutation_test

    differences = values - others
    if not differences.any():
        return (0.0, 0.0), 1.0
    low, high = bootstrap(
        (differences,), np.mean, n_resamples=resamples, confidence_level=LEVEL, method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    tested = permutation_test(
        (values, others), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples",
        n_resamples=resamples, random_state=np.random.default_rng(0),
    )  # fmt: skip
    return (float(low), float(high)), float(tested.pvalue)
