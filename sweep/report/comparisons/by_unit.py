"""Answers to any probe with a table of answers against those of the pretrained model, question by question.

What is drawn, or has its sign flipped, are groups of questions (those about one page), all of a group together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.report.comparisons.fever import RESAMPLES, holm_corrected, sign_found
from sweep.report.comparisons.paired import flip_p, grouped_difference
from sweep.report.naming import label_texts, labels_of
from sweep.report.probe_rows import ASKED, AskedProbe, Unit, answer_rows, asked_trials, later_askings
from sweep.report.references import is_baseline, mixed_versions
from sweep.report.study import Study, Trial
from sweep.report.table import Cell, Table, interval_text, most_telling, number, p_text
from trainables.probes.registry import PROBES
from trainables.trial.fields import Part
from trainables.trial.identity import MATHS
from trainables.trial.parts import fields_of

LEGEND = (
    "Differences are trial minus the pretrained model (after minus before), over the questions that both were asked. "
    "Intervals: 95 % paired bootstrap over pages; p: permutation test over pages, Holm-corrected over this table. "
    "A row says better or worse only where the interval excludes 0 and the corrected p is below 0.05."
)


@dataclass(frozen=True)
class UnitComparison:
    """One score of one trial against the pretrained model's.

    Attributes:
        trial: the trial.
        reference: the pretrained one.
        score: its name.
        units, groups: questions compared, and pages that they are about.
        before, after: means over questions, of the pretrained model and of the trial.
        interval: 95 % interval of the difference.
        p, p_holm: two-sided, and after Holm's correction.
        lower: whether less is better.
    """

    trial: Trial
    reference: Trial
    score: str
    units: int
    groups: int
    before: float
    after: float
    interval: tuple[float, float]
    p: float
    lower: bool
    p_holm: float = 1.0

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference found`."""
        sign = sign_found(self.interval, self.p_holm)
        return "no difference found" if not sign else "better" if (sign > 0) != self.lower else "worse"


def unit_comparisons(study: Study, probe: AskedProbe, resamples: int = RESAMPLES) -> list[UnitComparison]:
    """Compare every trial with the pretrained model, where both were asked the same."""
    asked = asked_trials(study, probe)
    baselines: dict[str, list[Trial]] = {}
    for trial in filter(is_baseline, asked):
        baselines.setdefault(_key(trial, probe.name), []).append(trial)
    units: dict[str, list[Unit]] = {}

    def units_of(trial: Trial) -> list[Unit]:
        if trial.id not in units:
            units[trial.id] = [probe.unit(row) for row in answer_rows(study, trial, probe)]
        return units[trial.id]

    found: list[_Paired] = []
    for trial in asked:
        others = [] if is_baseline(trial) else baselines.get(_key(trial, probe.name), [])
        if others:
            reference = max(others, key=lambda other: _shared(units_of(trial), units_of(other)))
            found += _compare(probe, trial, reference, units_of(trial), units_of(reference), resamples)
    ps = _p_values(found)
    corrected = holm_corrected(ps)
    return [replace(c.comparison, p=p, p_holm=holm) for c, p, holm in zip(found, ps, corrected, strict=True)]


class UnitComparisons:
    """What the trials of a study answered against the pretrained model; each asking is compared once.

    Args:
        study: its trials, those of other sweeps that serve as references included.
        resamples: drawn.
    """

    def __init__(self, study: Study, resamples: int = RESAMPLES) -> None:
        """Compare nothing yet."""
        self._study, self._resamples = study, resamples
        self._found: dict[AskedProbe, list[UnitComparison]] = {}

    def of(self, probe: AskedProbe) -> list[UnitComparison]:
        """Return the comparisons of one asking."""
        if probe not in self._found:
            self._found[probe] = unit_comparisons(self._study, probe, self._resamples)
        return self._found[probe]

    def by_probe(self) -> dict[str, list[UnitComparison]]:
        """Return those of the trials' own asking of each probe, or of the first other one that can be compared."""
        later = later_askings(self._study.trials)
        askings = {p.name: (p, *map(p.under, later.get(p.name, ()))) for p in ASKED}
        return {name: next(filter(None, map(self.of, asked)), []) for name, asked in askings.items()}


def unit_table(probe: AskedProbe, comparisons: Sequence[UnitComparison]) -> Table | None:
    """Print the comparisons of one probe."""
    if not comparisons:
        return None
    slug = slug_of(probe)
    order = sorted(comparisons, key=lambda c: (c.verdict.startswith("no"), -abs(c.after - c.before)))
    shown, left_out = most_telling(comparisons, order, slug)
    labels = labels_of([c.trial for c in comparisons])
    rows = tuple(
        (
            (*label_texts(c.trial, labels), c.score.replace("_", " ")),
            (
                Cell(float(c.units), f"{c.units:,}"),
                Cell(float(c.groups), f"{c.groups:,}"),
                Cell(c.before, number(c.before)),
                Cell(c.after, number(c.after)),
                Cell(c.after - c.before, number(c.after - c.before, sign=True)),
                Cell(f"[{c.interval[0]:.6g}, {c.interval[1]:.6g}]", interval_text(c.interval)),
                Cell(c.p, p_text(c.p)),
                Cell(c.p_holm, p_text(c.p_holm)),
                Cell(c.verdict, c.verdict, best=not c.verdict.startswith("no")),
            ),
        )
        for c in shown
    )
    ids = tuple(c.trial.id for c in shown)
    columns = ("questions", "pages", "before", "after", "difference", "95 % interval", "p", "p (Holm)", "result")
    mixed = mixed_versions([(c.trial, c.reference) for c in comparisons], probe.name)
    return Table(slug, "Before and after training", (*labels, "score"), columns, rows, (LEGEND, *left_out, *mixed), ids)


def unit_records(comparisons: Sequence[UnitComparison]) -> list[dict[str, Any]]:
    """Return every comparison with all its numbers, one dict per row."""
    labels = labels_of([c.trial for c in comparisons])
    return [
        {
            "trial": c.trial.id, "sweep": c.trial.sweep, **dict(zip(labels, label_texts(c.trial, labels), strict=True)),
            "score": c.score, "questions": c.units, "pages": c.groups, "before": c.before, "after": c.after,
            "difference": c.after - c.before, "low": c.interval[0], "high": c.interval[1],
            "p": c.p, "p_holm": c.p_holm, "result": c.verdict,
        }
        for c in comparisons
    ]  # fmt: skip


def slug_of(probe: AskedProbe) -> str:
    """Return the name of the comparisons' files."""
    return f"{probe.name}_against_pretrained"


def _key(trial: Trial, probe: str) -> str:
    names = (*fields_of(Part.MODEL | Part.CORPUS), *PROBES[probe].uses(), MATHS)
    return json.dumps([trial.point.get(name) for name in dict.fromkeys(names)], default=str)


def _shared(own: Sequence[Unit], other: Sequence[Unit]) -> int:
    return len({unit.key for unit in own} & {unit.key for unit in other})


@dataclass(frozen=True)
class _Paired:
    """A comparison without its p, and the differences that p is made of, summed over each group's questions."""

    comparison: UnitComparison
    differences: NDArray[np.float64]


def _compare(
    probe: AskedProbe, trial: Trial, reference: Trial, own: Sequence[Unit], base: Sequence[Unit], resamples: int
) -> list[_Paired]:
    before = {unit.key: unit.scores for unit in base}
    names = dict.fromkeys(name for unit in own for name in unit.scores)
    found = []
    for name in names:
        both: dict[str, list[tuple[float, float]]] = {}
        for unit in own:
            other = before.get(unit.key, {})
            if name in unit.scores and name in other:
                both.setdefault(unit.group, []).append((unit.scores[name], other[name]))
        if len(both) < 2:
            continue
        sums = np.array([np.sum(pairs, axis=0) for pairs in both.values()])
        sizes = np.array([len(pairs) for pairs in both.values()], dtype=np.float64)
        after, earlier = (float(value) for value in sums.sum(axis=0) / sizes.sum())
        differences = sums[:, 0] - sums[:, 1]
        interval = grouped_difference(differences, sizes, resamples)
        told = int(sizes.sum()), len(both), earlier, after, interval
        found.append(
            _Paired(UnitComparison(trial, reference, name, *told, p=1.0, lower=name in probe.lower), differences)
        )
    return found


def _p_values(found: Sequence[_Paired]) -> list[float]:
    """Return the p of each comparison; those over as many groups as one another share their draws."""
    p = np.ones(len(found))
    groups = np.array([len(pair.differences) for pair in found])
    for count in np.unique(groups):
        alike = groups == count
        columns = [pair.differences for pair, chosen in zip(found, alike, strict=True) if chosen]
        p[alike] = flip_p(np.stack(columns, axis=1), len(found))
    return [float(value) for value in p]
