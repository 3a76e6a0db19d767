"""Two sweeps on what they share: trials of equal settings in pairs.

A field that has one value in one sweep and another one in the other is what is compared; trials are paired that are
equal in all other fields. A setting that only one of the sweeps has is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweep.records.study_questions import ERROR, LEAKED, MACRO_F1, RIGHT, TRUE_RATE, Quality
from sweep.report.answers import read_answers
from sweep.report.comparisons.fever import Comparison, compare_all, holm_corrected, sign_found
from sweep.report.comparisons.paired import paired_difference
from sweep.report.naming import label_texts, labels_of
from sweep.report.references import mixed_code, mixed_versions
from sweep.report.study import Study, Trial
from sweep.report.table import Cell, Table, cell_text, interval_text, most_telling, number, p_text
from trainables.errors import ConfigError
from trainables.trial.identity import TOLD_APART

QUALITIES = (ERROR, LEAKED, RIGHT, MACRO_F1, TRUE_RATE)
MIN_PAIRS = 6
"""With fewer pairs not even the same sign in all of them is evidence: 2 * 0.5**5 > 0.05 (sign test)."""
OVERALL = (
    "Means over pairs; the difference is B minus A. Intervals: 95 % paired bootstrap over pairs; p: paired permutation "
    f"test over pairs, Holm-corrected over these rows. With fewer than {MIN_PAIRS} pairs no row says better or worse. "
    "Pairs are settings; they may have questions and documents in common, and are then not independent."
)
EACH = (
    "The same claims answered by B and by A. Intervals: 95 % paired bootstrap over pages; p: exact McNemar over "
    "claims, Holm-corrected over all pairs. Better and worse are B's."
)


@dataclass(frozen=True)
class Overall:
    """One metric over all pairs: means of A and B, difference B minus A, its interval and p values."""

    quality: Quality
    pairs: int
    first: float
    second: float
    interval: tuple[float, float]
    p: float
    p_holm: float = 1.0

    @property
    def verdict(self) -> str:
        """Say in a word whether B is better."""
        sign = sign_found(self.interval, self.p_holm)
        if self.pairs < MIN_PAIRS or not sign:
            return "no difference found"
        return "better" if (sign > 0) != self.quality.lower_is_better else "worse"


@dataclass(frozen=True)
class TwoSweeps:
    """What comparing two sweeps came to.

    Attributes:
        names: of A and B.
        differ: fields in which they differ as a whole, with both values.
        pairs: trials of equal settings, A's and B's.
        alone: finished trials that only A, or only B, has.
        overall: metrics over all pairs.
        each: FEVER answers of every pair, B's against A's.
    """

    names: tuple[str, str]
    differ: Mapping[str, tuple[Any, Any]]
    pairs: Sequence[tuple[Trial, Trial]]
    alone: tuple[int, int]
    overall: Sequence[Overall]
    each: Sequence[Comparison]

    @property
    def sentences(self) -> list[str]:
        """Say what was compared, and what came of it."""
        first, second = self.names
        told = "; ".join(f"{name}: {cell_text(a)} in A, {cell_text(b)} in B" for name, (a, b) in self.differ.items())
        lines = [
            f"A: {first}. B: {second}.",
            f"They differ in {told}." if told else "They have the same settings: what differs is chance, code or data.",
            f"{len(self.pairs):,} pairs of equal settings; {self.alone[0]:,} trials of A and {self.alone[1]:,} of B "
            "have no partner.",
        ]
        if self.each:
            counts = {word: sum(c.verdict == word for c in self.each) for word in ("better", "worse")}
            lines.append(
                f"FEVER answers: B is better in {counts['better']:,} and worse in {counts['worse']:,} of "
                f"{len(self.each):,} pairs."
            )
        return [*lines, *mixed_code(self.pairs), *mixed_versions(self.pairs, "fever")]


def compare_sweeps(first: Study, second: Study, resamples: int) -> TwoSweeps:
    """Compare two studies of one sweep each.

    Raises:
        ConfigError: they share no setting, or nothing of theirs is finished.
    """
    names = tuple(study.storage.full(study.sweeps[0].name) for study in (first, second))
    done = [[t for t in study.trials if t.status == "done"] for study in (first, second)]
    for name, trials in zip(names, done, strict=True):
        if not trials:
            raise ConfigError(f"{name}: no finished trial to compare")
    differ = {name: values for name in TOLD_APART if (values := _differing(name, *done))}
    same = [name for name in TOLD_APART if name not in differ]
    partners = {_key(t, same): t for t in done[1]}
    # one trial may be in both sweeps: B's has another id here, as everything below tells trials by their ids
    pairs = [(t, replace(p, id=f"B {p.id}")) for t in done[0] if (p := partners.get(_key(t, same)))]
    if not pairs:
        raise ConfigError(f"{names[0]} and {names[1]} share no setting{_apart(same, *done)}")
    overall = [found for quality in QUALITIES if (found := _overall(quality, pairs, resamples))]
    corrected = holm_corrected([o.p for o in overall])
    answers = read_answers(first.storage, [a for a, _ in pairs]) | read_answers(second.storage, [b for _, b in pairs])
    partner = {b.id: a for a, b in pairs}
    each = compare_all([b for _, b in pairs], lambda t: partner[t.id], answers, resamples=resamples)
    return TwoSweeps(
        (names[0], names[1]),
        differ,
        pairs,
        (len(done[0]) - len(pairs), len(done[1]) - len(pairs)),
        [replace(o, p_holm=p) for o, p in zip(overall, corrected, strict=True)],
        each,
    )


def _value(trial: Trial, name: str) -> Any:
    """Return a field as it tells trials apart: models and data by what they contain, unused fields as nothing."""
    return trial.point.get(name) if name in ("model", "data") else trial.get(name)


def _key(trial: Trial, names: Sequence[str]) -> str:
    return repr([_value(trial, name) for name in names])


def _differing(name: str, first: Sequence[Trial], second: Sequence[Trial]) -> tuple[Any, Any] | None:
    """Return the one value that a field has in each sweep, where these are two different ones."""
    values = [{repr(v): t.get(name) for t in own if (v := _value(t, name)) is not None} for own in (first, second)]
    if any(len(own) != 1 for own in values) or values[0].keys() == values[1].keys():
        return None
    (a,), (b,) = (own.values() for own in values)
    return a, b


def _apart(names: Sequence[str], first: Sequence[Trial], second: Sequence[Trial]) -> str:
    """Name a field that keeps all trials apart."""
    for name in names:
        values = [{cell_text(t.get(name)) for t in own} for own in (first, second)]
        if not values[0] & values[1]:
            told = [", ".join(sorted(own)) for own in values]
            return f": {name} is {told[0]} in the one and {told[1]} in the other"
    return ""


def _overall(quality: Quality, pairs: Sequence[tuple[Trial, Trial]], resamples: int) -> Overall | None:
    both = [(a.metric(quality.metric), b.metric(quality.metric)) for a, b in pairs]
    values = np.array([pair for pair in both if None not in pair], dtype=np.float64)
    if len(values) < 2:
        return None
    interval, p = paired_difference(values[:, 1], values[:, 0], len(QUALITIES), resamples)
    return Overall(quality, len(values), float(values[:, 0].mean()), float(values[:, 1].mean()), interval, p)


def overall_table(found: TwoSweeps) -> Table:
    """Print the metrics over all pairs."""
    rows = tuple(
        (
            (o.quality.name,),
            (
                Cell(float(o.pairs), f"{o.pairs:,}"), Cell(o.first, number(o.first)), Cell(o.second, number(o.second)),
                Cell(o.second - o.first, number(o.second - o.first, sign=True)), Cell(None, interval_text(o.interval)),
                Cell(o.p, p_text(o.p)), Cell(o.p_holm, p_text(o.p_holm)),
                Cell(o.verdict, o.verdict, best=not o.verdict.startswith("no")),
            ),
        )
        for o in found.overall
    )  # fmt: skip
    columns = ("pairs", "A", "B", "difference", "95 % interval", "p", "p (Holm)", "result")
    return Table("overall", "Over all pairs", ("metric",), columns, rows, (OVERALL,))


def pairs_table(found: TwoSweeps) -> Table | None:
    """Print the FEVER answers of every pair; None without any."""
    if not found.each:
        return None
    order = sorted(found.each, key=lambda c: (c.verdict.startswith("no"), -abs(c.accuracy_difference)))
    shown, left_out = most_telling(found.each, order, "pairs")
    labels = labels_of([c.reference for c in found.each])
    rows = tuple(
        (
            label_texts(c.reference, labels),
            (
                Cell(c.accuracy - c.accuracy_difference, number(c.accuracy - c.accuracy_difference)),
                Cell(c.accuracy, number(c.accuracy)),
                Cell(c.accuracy_difference, number(c.accuracy_difference, sign=True)),
                Cell(None, interval_text(c.accuracy_interval)),
                Cell(c.p, p_text(c.p)),
                Cell(c.p_holm, p_text(c.p_holm)),
                Cell(c.verdict, c.verdict, best=c.verdict in ("better", "worse")),
            ),
        )
        for c in shown
    )
    columns = ("A", "B", "difference", "95 % interval", "p", "p (Holm)", "result")
    return Table("pairs", "FEVER accuracy, pair by pair", labels, columns, rows, (EACH, *left_out))


def as_records(found: TwoSweeps) -> dict[str, Any]:
    """Return all of it as plain JSON values."""
    return {
        "a": found.names[0], "b": found.names[1], "sentences": found.sentences,
        "differ": {name: list(values) for name, values in found.differ.items()},
        "pairs": len(found.pairs), "only_a": found.alone[0], "only_b": found.alone[1],
        "overall": [
            {"metric": o.quality.metric, "pairs": o.pairs, "a": o.first, "b": o.second,
             "difference": o.second - o.first, "low": o.interval[0], "high": o.interval[1],
             "p": o.p, "p_holm": o.p_holm, "result": o.verdict}
            for o in found.overall
        ],
        "each": [
            {"trial_a": c.reference.id, "trial_b": c.trial.id.removeprefix("B "), "pages": c.pages, "claims": c.claims,
             "accuracy_a": c.accuracy - c.accuracy_difference, "accuracy_b": c.accuracy,
             "difference": c.accuracy_difference, "low": _finite(c.accuracy_interval[0]),
             "high": _finite(c.accuracy_interval[1]), "p": c.p, "p_holm": c.p_holm, "result": c.verdict}
            for c in found.each
        ],
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if value == value else None
