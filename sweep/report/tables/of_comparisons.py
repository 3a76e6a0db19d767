"""The comparisons as tables: all of them in files, the printed ones kept to a readable number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sweep.report.answers import UNPARSED
from sweep.report.comparisons.fever import MIN_PAGES, Comparison, spread
from sweep.report.naming import ACCURACY, MACRO, NLL, SEEDS, label_texts, labels_of, variant
from sweep.report.notes import note_value
from sweep.report.references import mixed_code, mixed_versions
from sweep.report.study import Trial
from sweep.report.table import MISSING, Cell, Table, cell_text, interval_text, most_telling, number, p_text
from trainables.trial.identity import TOLD_APART

NOTE_FIELDS = ("num_shots", "weight_decay", "layer", "norm_and_gate", "seed")
METHOD = (
    "Differences are trial minus reference. Intervals: 95 % paired bootstrap, drawing whole evidence pages, "
    "over rows (evidence annotations). p: exact McNemar over distinct claims, Holm-corrected over all rows "
    "of this table's file. A row says better or worse only where the interval of the accuracy excludes 0, the "
    f"corrected p is below 0.05 and both point the same way; with fewer than {MIN_PAGES} pages it never does. "
    "Commonest answer: what the trial says most often, and how often; at 100 % its accuracy is that label's share."
)


def comparison_table(comparisons: Sequence[Comparison], slug: str, title: str) -> Table | None:
    """Print the comparisons; above `MAX_ROWS` those that differ come first, then the largest differences."""
    if not comparisons:
        return None
    order = sorted(comparisons, key=lambda c: (c.verdict.startswith("no"), -abs(c.accuracy_difference)))
    shown, left_out = most_telling(comparisons, order, slug)
    labels = labels_of([c.trial for c in comparisons])
    with_notes = any(note_value(c.trial) for c in comparisons)
    columns = [
        "accuracy",
        "difference",
        "95 % interval",
        "macro F1",
        "difference of F1",
        "interval of F1",
        "claims",
        "only trial right",
        "only reference right",
        "p",
        "p (Holm)",
        "commonest answer",
        *(["notes", "ours − notes"] if with_notes else []),
        "result",
    ]
    rows = tuple((label_texts(c.trial, labels), _cells(c, with_notes)) for c in shown)
    pairs = [(c.trial, c.reference) for c in comparisons]
    mixed = (*mixed_versions(pairs, "fever"), *mixed_code(pairs))
    ids = tuple(c.trial.id for c in shown)
    return Table(slug, title, labels, tuple(columns), rows, (METHOD, *mixed, *left_out), ids)


def comparison_records(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return every comparison with all its numbers, one dict per row."""
    labels = labels_of([c.trial for c in comparisons])
    found = []
    for c in comparisons:
        note = note_value(c.trial)
        row: dict[str, Any] = {"trial": c.trial.id, "reference": c.reference.id, "sweep": c.trial.sweep}
        row |= dict(zip(labels, label_texts(c.trial, labels), strict=True))
        row |= {
            "pages": c.pages, "claims": c.claims, "rows": c.rows,
            "accuracy": c.accuracy, "accuracy_difference": c.accuracy_difference,
            "accuracy_low": c.accuracy_interval[0], "accuracy_high": c.accuracy_interval[1],
            "f1_macro": c.f1_macro, "f1_macro_difference": c.f1_difference,
            "f1_macro_low": c.f1_interval[0], "f1_macro_high": c.f1_interval[1],
            "only_trial_right": c.gained, "only_reference_right": c.lost,
            "p": c.p, "p_holm": c.p_holm, "result": c.verdict,
            "commonest_answer": _letter(c.commonest), "commonest_share": c.commonest_share,
            "notes": note.accuracy if note else None,
            "difference_from_notes": c.accuracy - note.accuracy if note else None,
        }  # fmt: skip
        found.append(row)
    return found


def summary(comparisons: Sequence[Comparison]) -> str:
    """Count the verdicts in one sentence."""
    count = Counter(c.verdict.split(" (")[0] for c in comparisons)
    parts = [f"{count[name]:,} {name}" for name in ("better", "worse", "no difference found")]
    same = sum(c.commonest_share == 1 for c in comparisons)
    told = f" {same:,} of them give one and the same answer to every claim." if same else ""
    return f"of {len(comparisons):,} trials, {', '.join(parts)}.{told}"


def seeds_table(trials: Sequence[Trial]) -> Table | None:
    """Mean, standard deviation and t-interval over trials that differ only in seeds."""
    groups: dict[str, list[Trial]] = {}
    names = [n for n in TOLD_APART if n not in SEEDS]
    for trial in trials:
        if trial.status == "done":
            groups.setdefault(repr([trial.point.get(n) for n in names]), []).append(trial)
    several = {key: own for key, own in groups.items() if len(own) > 1}
    if not several:
        return None
    labels = labels_of([own[0] for own in several.values()])
    rows = []
    for own in several.values():
        cells = [Cell(float(len(own)), str(len(own)))]
        for metric in (NLL, ACCURACY, MACRO):
            values = [v for t in own if (v := t.metric(metric)) is not None]
            if len(values) < 2:
                cells += [Cell(None, MISSING), Cell(None, MISSING)]
                continue
            over = spread(values)
            cells.append(Cell(over.mean, f"{number(over.mean)} ± {number(over.sd)}", sd=over.sd))
            cells.append(Cell(f"[{over.low:.6g}, {over.high:.6g}]", interval_text((over.low, over.high), sign=False)))
        rows.append((label_texts(own[0], labels), tuple(cells)))
    columns = (
        "runs",
        "NLL",
        "NLL interval",
        "accuracy",
        "accuracy interval",
        "macro F1",
        "macro F1 interval",
    )
    legend = ("Mean ± standard deviation, and the 95 % t-interval of the mean.",)
    return Table("seeds", "Over seeds", labels, columns, tuple(rows), legend)


def _cells(c: Comparison, with_notes: bool) -> tuple[Cell, ...]:
    cells = [
        Cell(c.accuracy, number(c.accuracy)),
        Cell(c.accuracy_difference, number(c.accuracy_difference, sign=True)),
        Cell(None, interval_text(c.accuracy_interval)),
        Cell(c.f1_macro, number(c.f1_macro)),
        Cell(c.f1_difference, number(c.f1_difference, sign=True)),
        Cell(None, interval_text(c.f1_interval)),
        *(Cell(float(n), f"{n:,}") for n in (c.claims, c.gained, c.lost)),
        Cell(c.p, p_text(c.p)),
        Cell(c.p_holm, p_text(c.p_holm)),
        Cell(None, f"{_letter(c.commonest)} {c.commonest_share:.0%}"),
    ]
    if with_notes:
        note = note_value(c.trial)
        apart = c.accuracy - note.accuracy if note else None
        cells += [
            Cell(note.accuracy if note else None, number(note.accuracy if note else None)),
            Cell(apart, number(apart, sign=True)),
        ]
    return (*cells, Cell(c.verdict, c.verdict, best=c.verdict in ("better", "worse")))


def _letter(code: int) -> str:
    return "unparsed" if code == UNPARSED else f"({'abc'[code]})"


def beside_the_notes(trials: Sequence[Trial]) -> Table | None:
    """Our accuracy and macro F1 beside those of the study's notes where the same point was run at full scale."""
    rows = []
    for trial in sorted(trials, key=lambda t: (t.model, variant(t), t.get("num_shots"), t.get("seed"))):
        note = note_value(trial)
        if note is None or trial.status != "done":
            continue
        labels = (trial.model, variant(trial), *(cell_text(trial.get(n)) for n in NOTE_FIELDS), note.note)
        cells: list[Cell] = []
        for name, printed in ((ACCURACY, note.accuracy), (MACRO, note.f1_macro)):
            ours = trial.metric(name)
            apart = None if ours is None or printed is None else ours - printed
            cells += [
                Cell(ours, number(ours)),
                Cell(printed, number(printed)),
                Cell(apart, number(apart, sign=True)),
            ]
        rows.append((labels, tuple(cells)))
    if not rows:
        return None
    columns = ("accuracy", "notes", "difference", "macro F1", "notes macro F1", "macro F1 difference")
    labels = ("model", "variant", *NOTE_FIELDS, "note")
    legend = (f"{MISSING}: the note gives no such number.",)
    return Table("beside_the_notes", "Ours beside the study's notes'", labels, columns, tuple(rows), legend)


def trial_records(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return every trial with its fields and final metrics, one dict per row."""
    rows = []
    for t in trials:
        row: dict[str, Any] = {"trial": t.id, "sweep": t.sweep, "stage": t.stage, "status": t.status}
        row |= {n: _flat(t.get(n)) for n in TOLD_APART}
        row |= {f"counts/{n}": v for n, v in t.counts.items()}
        row |= _finite(t.metrics)
        rows.append(row)
    return rows


def _flat(value: Any) -> Any:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if value is not None}
