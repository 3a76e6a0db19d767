"""CounterFact answers of a trial against those of the pretrained model, record by record.

A record is the unit: its answers are averaged first, and intervals and p come from drawing, or flipping, whole
records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.report.comparisons.fever import RESAMPLES, holm_corrected, sign_found
from sweep.report.comparisons.paired import paired_differences
from sweep.report.naming import label_texts, labels_of
from sweep.report.references import is_baseline
from sweep.report.samples import samples_of
from sweep.report.study import Study, Trial
from sweep.report.table import Cell, Table, interval_text, most_telling, number, p_text
from trainables.probes.counterfact.targets import GROUPS, METRICS, sample_scores
from trainables.trial.fields import Part
from trainables.trial.identity import MATHS
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

MAX_COLUMNS = 500
"""Scores resampled at once: 8 MB for each array of 2,000 resamples."""
ALL = "all"
GROUP_NAMES = {ALL: "all", GROUPS[0]: "with a page among the documents", GROUPS[1]: "without"}

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Scored:
    """One record's answers, scored.

    Attributes:
        case: the record's number; None in files of earlier versions.
        text: prompt, targets and how many records with these came before: what it is known by where numbers are absent.
        group: of `GROUPS`, whether the subject's page was among the documents; None where the file does not say.
        scores: by name.
    """

    case: int | None
    text: Key
    group: str | None
    scores: Mapping[str, float]


@dataclass(frozen=True)
class RateComparison:
    """One score of one trial against the pretrained model's.

    Attributes:
        trial: the trial.
        base: the pretrained trial.
        score: one of `METRICS`.
        group: records compared: all, or those with or without a page among the trial's documents.
        records: records compared.
        value, reference: means over records.
        interval: 95 % interval of the difference.
        p: two-sided.
        p_holm: the same after Holm's correction.
    """

    trial: Trial
    base: Trial
    score: str
    group: str
    records: int
    value: float
    reference: float
    interval: tuple[float, float]
    p: float
    p_holm: float = 1.0

    @property
    def verdict(self) -> str:
        """`higher`, `lower` or `no difference found`."""
        return {1: "higher", -1: "lower", 0: "no difference found"}[sign_found(self.interval, self.p_holm)]


def counterfact_comparisons(study: Study, resamples: int = RESAMPLES) -> list[RateComparison]:
    """Compare every trial's CounterFact answers with the pretrained model's, where it was asked the same."""
    asked = [t for t in study.trials if t.status == "done" and "counterfact" in (t.get("probes") or ())]
    scores = {t.id: _scores(study, t) for t in asked}
    references = {_key(t): t for t in asked if is_baseline(t)}
    pairs: list[_Pairs] = []
    for trial in asked:
        reference = references.get(_key(trial))
        if reference is not None and not is_baseline(trial):
            pairs += _pairs(trial, reference, scores)
    found = _compare(pairs, resamples)
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
            (*label_texts(c.trial, labels), GROUP_NAMES[c.group], c.score.replace("_", " ")),
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
    ids = tuple(c.trial.id for c in shown)
    columns = ("records", "pretrained", "trial", "difference", "95 % interval", "p", "p (Holm)", "result")
    title = "Sampled answers against the pretrained model's"
    return Table(SLUG, title, (*labels, "records about subjects", "score"), columns, rows, (LEGEND, *left_out), ids)


def counterfact_records(comparisons: Sequence[RateComparison]) -> list[dict[str, Any]]:
    """Return every comparison with all its numbers, one dict per row."""
    labels = labels_of([c.trial for c in comparisons])
    return [
        {
            "trial": c.trial.id, "sweep": c.trial.sweep, **dict(zip(labels, label_texts(c.trial, labels), strict=True)),
            "score": c.score, "group": c.group, "records": c.records, "pretrained": c.reference, "value": c.value,
            "difference": c.value - c.reference, "low": c.interval[0], "high": c.interval[1],
            "p": c.p, "p_holm": c.p_holm, "result": c.verdict,
        }
        for c in comparisons
    ]  # fmt: skip


def _key(trial: Trial) -> str:
    return repr([trial.point.get(name) for name in (*SAME_FIELDS, MATHS)])


def _scores(study: Study, trial: Trial) -> list[Scored]:
    seen: Counter[Key] = Counter()
    found = []
    for sample in samples_of(study, trial):
        text = tuple(sample[name] for name in ("prompt", "target_true", "target_new"))
        group = GROUPS[0 if sample["page"] else 1] if "page" in sample else None
        found.append(Scored(sample.get("case_id"), (*text, seen[text]), group, sample_scores(sample)))
        seen[text] += 1
    return found


@dataclass(frozen=True)
class _Pairs:
    """One score of a trial and of its reference, `[records]` each."""

    trial: Trial
    base: Trial
    score: str
    group: str
    values: NDArray[np.float64]
    others: NDArray[np.float64]


def _pairs(trial: Trial, reference: Trial, scores: Mapping[str, Sequence[Scored]]) -> list[_Pairs]:
    """Set scores side by side, over the records that both sides were asked, where these are two or more."""
    own, base = scores[trial.id], scores[reference.id]
    numbered = all(scored.case is not None for scored in (*own, *base))

    def key(scored: Scored) -> Any:
        return scored.case if numbered else scored.text

    others = {key(scored): scored.scores for scored in base}
    groups = [group for group in GROUPS if any(scored.group == group for scored in own)]
    found = []
    for group in (ALL, *(groups if len(groups) > 1 else ())):
        chosen = [scored for scored in own if group in (ALL, scored.group)]
        for name in METRICS:
            both = [
                (scored.scores[name], other[name])
                for scored in chosen
                if name in scored.scores and name in (other := others.get(key(scored), {}))
            ]
            if len(both) > 1:
                found.append(_Pairs(trial, reference, name, group, *np.array(both).T))
    return found


def _compare(pairs: Sequence[_Pairs], resamples: int) -> list[RateComparison]:
    """Compare; those over as many records as one another are resampled together."""
    results: dict[int, tuple[tuple[float, float], float]] = {}
    sizes = [len(pair.values) for pair in pairs]
    for size in set(sizes):
        places = [i for i, other in enumerate(sizes) if other == size]
        for start in range(0, len(places), MAX_COLUMNS):
            part = places[start : start + MAX_COLUMNS]
            differences = np.stack([pairs[i].values - pairs[i].others for i in part], axis=1)
            low, high, p = paired_differences(differences, len(pairs), resamples)
            results |= {
                i: ((float(low[k]), float(high[k])), float(p[k])) for k, i in enumerate(part)
            }  # fmt: skip
    return [
        RateComparison(
            pair.trial, pair.base, pair.score, pair.group, len(pair.values),
            float(pair.values.mean()), float(pair.others.mean()), *results[i],
        )
        for i, pair in enumerate(pairs)
    ]  # fmt: skip
