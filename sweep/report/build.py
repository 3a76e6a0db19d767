"""Make a report: read, compare, lay out, draw, write, and log it to MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sweep.planning.choices import BFLOAT16_NLL_NOISE, tied
from sweep.records.steering import read_steering
from sweep.records.study_questions import AGAINST_PLAIN, AGAINST_PRETRAINED, INDUCTIVE, LAYERS, Against
from sweep.report.answers import read_answers
from sweep.report.comparisons.by_unit import UnitComparisons, slug_of, unit_records, unit_table
from sweep.report.comparisons.counterfact import (
    SLUG,
    counterfact_comparisons,
    counterfact_records,
    counterfact_table,
)
from sweep.report.comparisons.fever import RESAMPLES, Comparison, compare_all, holm
from sweep.report.conclusions import LAYER, STRUCTURE, conclude
from sweep.report.evidence import Evidence
from sweep.report.figures import guidance
from sweep.report.figures.activations import activation_figure
from sweep.report.figures.alpha import alpha_figures
from sweep.report.figures.answers import answer_figures
from sweep.report.figures.drawing import Figure
from sweep.report.figures.layers import layer_figures
from sweep.report.figures.simset import Analysis, analyses, simset_figure, simset_table
from sweep.report.importance import importance_table
from sweep.report.kept import PAGE_FILE, REPORT_FOLDER
from sweep.report.naming import variant
from sweep.report.page_data import page_data
from sweep.report.probe_rows import ASKED, answer_rows, asked_trials, print_examples
from sweep.report.references import References
from sweep.report.render import Report, ReportAnswer, Section, write_report
from sweep.report.samples import COUNTERFACT, Samples, counterfact_samples, samples_of
from sweep.report.study import Study
from sweep.report.table import MISSING, Cell, Table, cell_text, number
from sweep.report.tables.of_askings import SECTION, asking_tables
from sweep.report.tables.of_comparisons import (
    beside_the_notes,
    comparison_records,
    comparison_table,
    seeds_table,
    summary,
    trial_records,
)
from sweep.report.tables.of_failures import failures
from sweep.report.tables.of_the_study import study_tables

MEMORIES = "Memories made by the allocations"
FIRST = {LAYER: LAYERS.section, STRUCTURE: INDUCTIVE.section}
"""Whose first figure stands on the first page instead."""


@dataclass(frozen=True)
class Options:
    """What may be chosen of a report.

    Attributes:
        target_nll: error for "epochs to a given NLL"; default a share of what plain memorising reaches.
        resamples: bootstrap samples.
    """

    target_nll: float | None = None
    resamples: int = RESAMPLES


def build_report(study: Study, options: Options = Options()) -> Report:  # noqa: B008 (immutable)
    """Make all parts of the report on what is recorded."""
    left_out: dict[str, str] = {}
    everyone, several = replace(study, trials=study.everyone), len(study.sweeps) > 1
    answers = read_answers(study.storage, study.everyone, left_out)
    references = References(study.everyone, answers)
    against_baseline = compare_all(study.trials, references.baseline, answers, resamples=options.resamples)
    against_plain = compare_all(study.trials, references.plain, answers, resamples=options.resamples)
    memories = analyses(study.storage, study.trials)
    figures = _figures(study, references, (against_baseline, against_plain), options, memories)
    shown = {key: figures[heading].pop(0) for key, heading in FIRST.items() if not several and figures[heading]}
    made = simset_table(memories)
    sections = [
        Section(heading, tables, figures.pop(heading, ()))
        for heading, tables in study_tables(study, references).items()
    ]
    words = guidance.words_table(study)
    tables_of_figures = ({MEMORIES: [made]} if made else {}) | ({guidance.HEADING: [words]} if words else {})
    sections += [
        Section(heading, tables_of_figures.get(heading, ()), drawn) for heading, drawn in figures.items() if drawn
    ]
    units = UnitComparisons(everyone, options.resamples)
    compared = {probe: units.of(probe) for probe in ASKED}
    rates = counterfact_comparisons(everyone, options.resamples)
    evidence = Evidence("", study.trials, references, answers, against_baseline, against_plain, rates, units.by_probe())
    before_after = {probe.heading: table for probe, found in compared.items() if (table := unit_table(probe, found))}
    sections = [replace(s, tables=[*s.tables, *filter(None, [before_after.get(s.heading)])]) for s in sections]
    sections = _with_choices(sections, study)
    later, rows_of_later = asking_tables(study, options.resamples, units)
    sections += [Section(SECTION, later)] if later else []
    ended, matters = failures(study.trials), importance_table(study.trials)
    sections += [Section("Which field matters", [matters])] if matters else []
    sections += [Section("Without a result", [ended])] if ended else []
    asked = [
        f"{sweep.name}: {wish.line}."
        for sweep in study.sweeps
        for wish in read_steering(study.storage, sweep.name).wishes
    ]
    sections += [Section("Asked of the sweeps while they ran", texts=asked)]
    tables = [
        *_by_sweep(study, against_baseline, AGAINST_PRETRAINED),
        *_by_sweep(study, against_plain, AGAINST_PLAIN),
    ]
    sections += _statistics(study, tables, counterfact_table(rates))
    data = {"trials": trial_records(study.trials), **rows_of_later}
    data |= {slug: comparison_records(found) for slug, _, found in tables}
    data[SLUG] = counterfact_records(rates)
    data |= {slug_of(probe): unit_records(found) for probe, found in compared.items()}
    of_sweeps = [evidence.of_sweep(study, sweep) for sweep in study.sweeps]
    names = ", ".join(sweep.name for sweep in study.sweeps)
    return Report(
        title=f"Report on {names}",
        summary=_summary(study),
        progress=_progress(study),
        sections=[section for section in sections if section.tables or section.figures or section.texts],
        warnings=[*study.unreadable, *_left_out(study, left_out)],
        answers=_answers(study, of_sweeps, shown),
        findings=[f"{title}: {summary(own)}" for _, title, own in tables],
        samples=[*counterfact_samples(study), *_examples(study)],
        data={slug: rows for slug, rows in data.items() if rows},
        page=page_data(study, references, answers, of_sweeps) if study.trials else None,
    )


def _answers(study: Study, evidence: Sequence[Evidence], shown: Mapping[str, Figure]) -> list[ReportAnswer]:
    """Answer the study's questions, sweep by sweep, with a figure each; those given are of a single sweep."""
    found = []
    for sweep, own in zip(study.sweeps, evidence, strict=True):
        several = len(study.sweeps) > 1
        drawn = answer_figures(own, f"_{sweep.name}" if several else "", {} if several else shown)
        found += [
            ReportAnswer(f"{sweep.name}: {c.question}" if several else c.question, c.sentences, drawn.get(c.key))
            for c in conclude(own)
        ]
    return found


def _examples(study: Study) -> list[Samples]:
    about = "Answers of the first trial of each model and kind."
    return [
        Samples(title, text, f"Examples of {probe.name}", about)
        for probe in ASKED
        for title, text in print_examples(study, probe)
    ]


def _left_out(study: Study, answers: Mapping[str, str]) -> list[str]:
    """Name the trials that are in no comparison, and so in no family of corrected p values, for want of answers."""
    found = [
        f"trial {trial.id} ({trial.sweep}, {variant(trial)}): {answers[trial.id]}: in no comparison of FEVER answers"
        for trial in study.trials
        if trial.id in answers
    ]
    for trial in study.trials:
        asked = trial.status == "done" and any(name.startswith("counterfact/") for name in trial.metrics)
        if asked and not samples_of(study, trial):
            path = trial.answers.get(COUNTERFACT, "its answers file")
            told = f"{path} is missing or broken: in no comparison of CounterFact answers"
            found.append(f"trial {trial.id} ({trial.sweep}, {variant(trial)}): {told}")
    for probe in ASKED:
        for trial in asked_trials(study, probe):
            if not answer_rows(study, trial, probe):
                path = trial.answers.get(probe.name, "its answers file")
                told = f"{path} is missing or broken: in no comparison of answers to {probe.name}"
                found.append(f"trial {trial.id} ({trial.sweep}, {variant(trial)}): {told}")
    again = "run their sweep again: they are asked again, and not trained again while their weights are stored"
    return [*found, again] if found else []


@contextmanager
def written(study: Study, report: Report, folder: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Write the report's folder: `report` in the sweep's folder, or in the storage's for several sweeps.

    Gives the local folder, which for an object store is a copy that is gone afterwards, and where the page lies.
    """
    target = "/".join([*([study.sweeps[0].name] if len(study.sweeps) == 1 else []), REPORT_FOLDER])
    if folder is not None or study.storage.is_local:
        folder = folder or Path(study.storage.full(target))
        yield folder, str(write_report(report, folder))
        return
    with tempfile.TemporaryDirectory() as scratch:
        write_report(report, Path(scratch))
        for path in sorted(Path(scratch).rglob("*")):
            if path.is_file():
                study.storage.write(f"{target}/{path.relative_to(scratch).as_posix()}", path.read_bytes())
        yield Path(scratch), study.storage.full(f"{target}/{PAGE_FILE}")


def _figures(
    study: Study,
    references: References,
    comparisons: tuple[Sequence[Comparison], Sequence[Comparison]],
    options: Options,
    memories: Sequence[Analysis],
) -> dict[str, list[Figure]]:
    """Draw the sections' figures; `comparisons` are those with the pretrained model and with plain memorising."""
    from_pretrained, from_plain = ({c.trial.id: c for c in found} for found in comparisons)
    made = [simset_figure(memories), activation_figure(study.storage, memories, references)]
    return {
        LAYERS.section: layer_figures(study.trials, references, from_pretrained),
        INDUCTIVE.section: list(alpha_figures(study.trials, references, from_plain, options.target_nll)),
        MEMORIES: [figure for figure in made if figure],
        guidance.HEADING: guidance.guidance_figures(study.storage, study.trials),
    }


def _by_sweep(
    study: Study, comparisons: Sequence[Comparison], against: Against
) -> list[tuple[str, str, list[Comparison]]]:
    """Return file name, heading and comparisons of each sweep's table; p values are corrected within each."""
    found, slug, title = [], against.slug, against.title
    several = len(study.sweeps) > 1
    for sweep in study.sweeps:
        own = holm([c for c in comparisons if sweep.asks_for(c.trial)])
        if own:
            name = sweep.name
            found.append((f"{slug}_{name}" if several else slug, f"{title}: {name}" if several else title, own))
    return found


def _statistics(
    study: Study,
    comparisons: Sequence[tuple[str, str, list[Comparison]]],
    rates: Table | None,
) -> list[Section]:
    tables = [comparison_table(own, slug, title) for slug, title, own in comparisons]
    tables += [rates, seeds_table(study.trials)]
    notes = beside_the_notes(study.trials)
    beside = ["No point of the study's notes was run at their scale (99 or 449 pages): nothing to set beside them."]
    return [
        Section("Statistics", [table for table in tables if table]),
        Section("Beside the study's notes", [notes] if notes else [], texts=[] if notes else beside),
    ]


def _with_choices(sections: list[Section], study: Study) -> list[Section]:
    table = choices_table(study)
    if table is None:
        return sections
    return [*sections, Section("Choices between stages", [table])]


def choices_table(study: Study) -> Table | None:
    """Print what stages took from earlier ones, and the runners-up."""
    rows, ties = [], False
    dtypes = {trial.id: str(trial.get("dtype")) for trial in study.trials}
    for sweep in study.sweeps:
        for choice in _choices(sweep.choices):
            near = _tied(choice, dtypes)
            ties, digits = ties or bool(near), 4 if near else 3
            group = ", ".join(f"{name}={cell_text(value)}" for name, value in (choice.get("group") or {}).items())
            others = [
                f"{cell_text(r['value'])} ({number(r['metric'], digits)}{', tie' if r['value'] in near else ''})"
                for place, r in enumerate(choice.get("runners_up") or ())
                if place < 3 or r["value"] in near
            ]
            by = f"{choice.get('mode', '')} {choice.get('by', '')}".strip()
            texts = (sweep.name, group, str(choice["field"]), by)
            cells = (
                Cell(cell_text(choice["value"]), cell_text(choice["value"])),
                Cell(choice.get("metric"), number(choice.get("metric"), digits)),
                Cell(", ".join(others), ", ".join(others) or MISSING),
            )
            rows.append((texts, cells))
    if not rows:
        return None
    labels, columns = ("sweep", "for", "field", "by"), ("chosen", "value", "runners-up")
    legend = (
        (f"Tie: closer to the chosen one than the {BFLOAT16_NLL_NOISE:g} that bfloat16 may be off.",) if ties else ()
    )
    return Table("choices", "What later stages took from earlier ones", labels, columns, tuple(rows), legend)


def _tied(choice: Mapping[str, Any], dtypes: Mapping[str, str]) -> list[Any]:
    """Return the values that tie with a choice, also of one made before choices said so."""
    if "tied" in choice or choice.get("metric") is None:
        return list(choice.get("tied") or ())
    dtype = next((dtypes[trial] for trial in choice.get("candidates") or () if trial in dtypes), "")
    return tied(str(choice.get("by")), dtype, float(choice["metric"]), choice.get("runners_up") or ())


def _choices(found: Any) -> list[dict[str, Any]]:
    entries = list(found.values()) if isinstance(found, dict) else found or []
    return [entry for entry in entries if isinstance(entry, dict) and "field" in entry and "value" in entry]


def _progress(study: Study) -> Table | None:
    rows = []
    for sweep in study.sweeps:
        for stage in sweep.stages:
            counts = (stage.planned, stage.done, stage.stopped, stage.diverged, stage.failed, stage.missing)
            rows.append(((sweep.name, stage.name), tuple(Cell(float(n), f"{n:,}") for n in counts)))
    columns = ("points", "done", "stopped", "diverged", "failed", "missing")
    return Table("progress", "Progress", ("sweep", "stage"), columns, tuple(rows)) if rows else None


def _summary(study: Study) -> str:
    done = sum(trial.status == "done" for trial in study.trials)
    parts = [f"{len(study.trials):,} trials recorded, {done:,} with a result."]
    parts.append(f"**{study.missing:,} planned points are missing.**" if study.missing else "No point is missing.")
    if any(trial.point.get("data", "").startswith("sample@") for trial in study.trials):
        parts.append("Trials on the generated sample world show that the software works, nothing about FEVER.")
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return " ".join([*parts, f"Made {made}."])
