"""What trials were asked later, other than their own fields say, beside what they were asked first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sweep.report.answers import FEVER, read_answers
from sweep.report.comparisons.by_unit import UnitComparisons
from sweep.report.comparisons.fever import RESAMPLES, compare_all, spread
from sweep.report.evidence import Difference, of_fever
from sweep.report.naming import label_texts, labels_of
from sweep.report.probe_rows import ASKED, later_askings
from sweep.report.references import References, is_baseline
from sweep.report.study import Study, Trial
from sweep.report.table import MISSING, Cell, Table, most_telling, number

SECTION = "Asked later"
MAIN = {
    FEVER: "accuracy", "counterfact": "true_rate", "recall": "token_accuracy", "choices": "accuracy",
    "forgetting": "nll",
}  # fmt: skip
"""The metric of each probe by which askings are shown beside each other; of others all of them."""
COMPARED = (
    "Of the trials that have both an asking's answers and a pretrained model that was asked the same: means ± standard "
    "deviation over trials, and how many are better or worse than the pretrained model (95 % interval without 0, and p "
    "below 0.05 after Holm's correction over the trials of that asking)."
)


def asking_tables(
    study: Study, resamples: int = RESAMPLES, units: UnitComparisons | None = None
) -> tuple[list[Table], dict[str, list[dict[str, object]]]]:
    """Return the tables of all probes that were asked again, and the rows of their files, by slug.

    Args:
        study: the trials.
        resamples: bootstrap samples.
        units: the comparisons of the study, where the caller has them.
    """
    units = units or UnitComparisons(replace(study, trials=study.everyone), resamples)
    tables: list[Table] = []
    data: dict[str, list[dict[str, object]]] = {}
    for probe, labels in later_askings(study.trials).items():
        summary = _summary(study, probe, labels, resamples, units)
        each, rows = _each(study.trials, probe, labels)
        tables += [table for table in (summary, each) if table]
        if each:
            data[each.slug] = rows
    return tables, data


def _differences(study: Study, probe: str, label: str, resamples: int, units: UnitComparisons) -> list[Difference]:
    """Compare the answers to one asking with the pretrained model's to the same, by the probe's main metric."""
    if probe == FEVER:
        answers = read_answers(study.storage, study.everyone, label=label)
        references = References([t for t in study.everyone if t.id in answers], answers)
        return [of_fever(c) for c in compare_all(study.trials, references.baseline, answers, resamples=resamples)]
    known = next((asked for asked in ASKED if asked.name == probe), None)
    if known is None or probe not in MAIN:
        return []
    found = units.of(known.under(label))
    signs = {"better": 1, "worse": -1}
    return [
        Difference(c.trial, c.after - c.before, c.interval, c.p_holm, signs.get(c.verdict, 0))
        for c in found
        if c.score == MAIN[probe]
    ]


def _summary(study: Study, probe: str, labels: Sequence[str], resamples: int, units: UnitComparisons) -> Table | None:
    rows = []
    for label in labels:
        name = f"{label}/{MAIN.get(probe, '')}"
        values = {t.id: v for t in study.everyone if (v := t.metric(name)) is not None}
        plain = [values[t.id] for t in study.everyone if t.id in values and is_baseline(t)]
        trained = [values[t.id] for t in study.trials if t.id in values and not is_baseline(t)]
        found = _differences(study, probe, label, resamples, units)
        counts = [sum(d.verdict == sign for d in found) for sign in (1, -1, 0)]
        cells = (
            Cell(float(len(trained)), f"{len(trained):,}"), _mean(plain), _mean(trained),
            _mean([d.value for d in found], True),
            *(Cell(float(n), f"{n:,}") if found else Cell(None, MISSING) for n in counts),
        )  # fmt: skip
        rows.append(((label,), cells))
    if probe not in MAIN:
        return None
    metric = MAIN[probe].replace("_", " ")
    columns = ("trials", "pretrained", "trained", "difference", "better", "worse", "no difference found")
    title = f"{probe}: {metric}, asking by asking"
    return Table(f"askings_{probe}", title, ("asking",), columns, tuple(rows), (COMPARED,))


def _mean(values: Sequence[float], sign: bool = False) -> Cell:
    if not values:
        return Cell(None, MISSING)
    over = spread(values)
    text = number(over.mean, sign=sign) + (f" ± {number(over.sd)}" if over.runs > 1 else "")
    return Cell(over.mean, text, sd=over.sd if over.runs > 1 else None)


def _each(trials: Sequence[Trial], probe: str, labels: Sequence[str]) -> tuple[Table | None, list[dict[str, object]]]:
    """Set the askings of each trial side by side; those that change most between two askings come first."""
    metrics = [MAIN[probe]] if probe in MAIN else _metrics(trials, labels)
    names = [f"{label}/{metric}" for metric in metrics for label in labels]
    own = [t for t in trials if sum(t.metric(name) is not None for name in names) > 1]
    if not own:
        return None, []
    slug = f"askings_{probe}_by_trial"
    texts = labels_of(own)
    shown, left_out = most_telling(own, sorted(own, key=partial(_change, names)), slug)
    rows = tuple((label_texts(t, texts), tuple(Cell(v := t.metric(name), number(v)) for name in names)) for t in shown)
    columns = tuple(name if probe not in MAIN else name.rpartition("/")[0] for name in names)
    title = f"{probe}: the same trials under each asking"
    table = Table(slug, title, texts, columns, rows, left_out, tuple(t.id for t in shown))
    return table, [_row(t, texts, names) for t in own]


def _row(trial: Trial, texts: Sequence[str], names: Sequence[str]) -> dict[str, object]:
    row: dict[str, object] = {"trial": trial.id, "sweep": trial.sweep}
    row |= dict(zip(texts, label_texts(trial, texts), strict=True))
    return row | {name: trial.metric(name) for name in names}


def _change(names: Sequence[str], trial: Trial) -> float:
    values = [v for name in names if (v := trial.metric(name)) is not None]
    return min(values) - max(values)


def _metrics(trials: Sequence[Trial], labels: Sequence[str]) -> list[str]:
    found = (name for t in trials for name in t.metrics if name.rpartition("/")[0] in labels)
    return list(dict.fromkeys(name.rpartition("/")[2] for name in found))
