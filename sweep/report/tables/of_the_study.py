"""The tables of the study's notes, filled from whatever trials there are; a table without trials is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sweep.records.study_questions import (
    CLUSTERS,
    CONTENT,
    COUNTERFACT,
    FEW_SHOT,
    INDUCTIVE,
    LAYERS,
    LEAKED,
    MEMORY_SIZE,
    STRUCTURE,
    Quality,
    StudyQuestion,
)
from sweep.report.naming import ACCURACY, LEAKAGE, MACRO, NLL, allocation_name
from sweep.report.notes import CONTENTS
from sweep.report.probe_rows import ASKED
from sweep.report.references import References, is_baseline, is_plain, is_structured
from sweep.report.study import Study, Trial
from sweep.report.table import MISSING, Cell, Table, cell_text, number
from sweep.report.tables.of_adapters import methods
from sweep.report.tables.of_all_trials import asked, code_table, data_table, leaders, questions_table
from sweep.report.tables.pivots import Layout, Measure, compared_over, listing, metric_named, pivot
from trainables.adapters.memory.setting import SetSetting
from trainables.probes.counterfact.targets import GROUPS
from trainables.trial.identity import STATED_DEFAULTS

COUNTERFACT_GROUPS = {
    GROUPS[0]: "about subjects with a page among the documents",
    GROUPS[1]: "about other subjects",
}


def study_tables(study: Study, references: References) -> dict[str, list[Table]]:
    """Return the tables by section heading, sections without tables left out."""
    trials = study.trials
    sections = {
        FEW_SHOT.section: few_shot(trials),
        CONTENT.section: memory_content(trials, references),
        "Adapters": methods(trials),
        STRUCTURE.section: structure(trials, references),
        LAYERS.section: layers(study, references),
        INDUCTIVE.section: inductive(trials, references),
        MEMORY_SIZE.section: sizes(trials),
        COUNTERFACT.section: counterfact(trials),
        **{probe.heading: asked(trials, probe) for probe in ASKED},
        "Best trials": leaders(trials),
        "Data": [table for table in (data_table(trials), questions_table(trials), code_table(trials)) if table],
    }
    return {heading: tables for heading, tables in sections.items() if tables}


def _pivots(
    trials: Sequence[Trial], layout: Layout, slug: str, title: str, qualities: Sequence[Quality]
) -> list[Table]:
    """Lay the same trials out once per quality."""
    tables = []
    for quality in qualities:
        metric = quality.metric
        asked = [t for t in trials if not metric.startswith("fever/") or "fever" in t.get("probes")]
        chosen = replace(layout, metric=metric, lower_is_better=quality.lower_is_better)
        table = pivot(asked, chosen, f"{slug}_{metric.split('/')[-1]}", f"{title}: {quality.name}")
        if table and any(cell.value is not None for _, row in table.rows for cell in row):
            tables.append(table)
    return tables


def few_shot(trials: Sequence[Trial]) -> list[Table]:
    """Model x shots (note 000)."""
    own = [trial for trial in trials if is_baseline(trial)]
    layout = Layout(("model",), lambda t: t.get("num_shots"), ACCURACY, ignore=FEW_SHOT.over)
    return _pivots(own, layout, FEW_SHOT.key, "Model x shots", FEW_SHOT.qualities)


def memory_content(trials: Sequence[Trial], references: References) -> list[Table]:
    """Model x what is memorised x weight decay, beside the pretrained baseline (note 000)."""
    memories = compared_over([t for t in trials if is_plain(t)], CONTENT.over)
    others = (t for t in trials if t.get("method") not in ("memory", "allocate") and not is_baseline(t))
    own = [*memories, *others]
    layout = Layout(
        ("model", "method", "weight_decay"),
        _content,
        ACCURACY,
        references={"pretrained": references.baseline},
        ignore=CONTENT.over,
        order=lambda column: (CONTENTS.index(column.split(" ")[0]), column),
    )
    return _pivots(own, layout, CONTENT.key, "Model x what is memorised", CONTENT.qualities)


def structure(trials: Sequence[Trial], references: References) -> list[Table]:
    """Hard entry sets by allocation and granularity, beside pretrained and unstructured memory (note 001)."""
    own = [t for t in trials if is_structured(t) and t.get("mode") == "hard"]
    layout = Layout(
        ("model", "layer", "norm_and_gate"),
        allocation_name,
        NLL,
        references={"pretrained": references.baseline, "unstructured": references.plain},
        ignore=STRUCTURE.over,
        group=2,
    )
    tables = []
    for quality in STRUCTURE.qualities:
        measured = replace(layout, reference_metric=_nll_of_reference if quality.metric == NLL else None)
        tables += _pivots(own, measured, STRUCTURE.key, "Hard entry sets", [quality])
    return tables


def _nll_of_reference(trial: Trial, other: Trial) -> float | None:
    """Return what the documents cost before training, or after training a plain memory."""
    return trial.metric("memory/nll_before") if is_baseline(other) else other.metric(NLL)


def layers(study: Study, references: References) -> list[Table]:
    """Best layer per model, and every layer with its error, accuracy and macro F1 (notes 001, 002)."""
    plain = [t for t in study.trials if is_plain(t) and t.get("content") == "document"]
    own = compared_over(plain, LAYERS.over)
    if not own:
        return []

    def pretrained(trial: Trial) -> float | None:
        other = references.baseline(trial)
        return other.metric(ACCURACY) if other else None

    measures = (*_measures(LAYERS), Measure("pretrained accuracy", pretrained))
    return [best_layers(own), listing(own, ("model", *LAYERS.over), measures, LAYERS.key, "Model x layer")]


def best_layers(trials: Sequence[Trial]) -> Table:
    """Each model's layer with the lowest memorisation error, at its largest number of documents."""
    rows = []
    for model in dict.fromkeys(t.model for t in trials):
        own = [t for t in trials if t.model == model and t.metric(NLL) is not None]
        most = max((t.get("num_documents") for t in own), default=0)
        ranked = sorted((t for t in own if t.get("num_documents") == most), key=lambda t: t.metric(NLL) or 0.0)
        if not ranked:
            continue
        best = ranked[0]
        depth = (best.get("layer") + 1) / best.num_blocks if best.num_blocks else None
        others = dict.fromkeys(t.get("layer") for t in ranked if t.get("layer") != best.get("layer"))
        runners_up = ", ".join(map(cell_text, list(others)[:3])) or MISSING
        cells = (
            Cell(float(best.get("layer")), cell_text(best.get("layer"))),
            Cell(depth, MISSING if depth is None else f"{depth:.0%}"),
            *(Cell(best.metric(name), number(best.metric(name))) for name in (NLL, ACCURACY, MACRO)),
            Cell(runners_up, runners_up),
        )
        rows.append(((model, cell_text(most)), cells))
    columns = ("best layer", "depth", "NLL", "accuracy", "macro F1", "next best layers")
    legend = ("Best: lowest memorisation error after training. Layers count from 0.",)
    labels = ("model", "num_documents")
    return Table("best_layer", "Best layer per model", labels, columns, tuple(rows), legend)


def inductive(trials: Sequence[Trial], references: References) -> list[Table]:
    """Alpha x allocation, one table per number of documents and metric (note 002)."""
    own = [t for t in trials if is_structured(t) and t.get("mode") == "inductive"]
    tables = []
    for documents in sorted({t.get("num_documents") for t in own}):
        here = [t for t in own if t.get("num_documents") == documents]
        layout = Layout(
            ("model", "layer", "allocation"),
            lambda t: t.get("alpha"),
            NLL,
            references={"0": references.plain},
            ignore=("alpha", "num_documents"),
            group=2,
        )
        slug, title = f"{INDUCTIVE.key}_{documents}", f"Alpha x allocation, {documents} documents"
        for quality in INDUCTIVE.qualities:
            measured = replace(layout, reference_metric=leakage_of_plain if quality is LEAKED else None)
            tables += _pivots(here, measured, slug, title, [quality])
    return [replace(table, legend=(*table.legend, *_notes_on_alpha_0(table, own, references))) for table in tables]


def _notes_on_alpha_0(table: Table, trials: Sequence[Trial], references: References) -> tuple[str, ...]:
    """Say what the column of alpha 0 holds, and where it has no figure that could be compared."""
    note = "At alpha 0 the allocation does not matter: the column holds one trial, plain memorising."
    if not table.slug.endswith("_leakage"):
        return (note,)
    note += " Its leakage is out of the very entry sets of the row: same groups, granularity, hash functions and seed."
    plain = [(t, p) for t in trials if (p := references.plain(t))]
    absent = sorted({set_name(t) for t, p in plain if leakage_of_plain(t, p) is None})
    if not absent:
        return (note,)
    return note, f"Plain memorising was not measured under {', '.join(absent)}, so nothing stands there."


def leakage_of_plain(trial: Trial, plain: Trial) -> float | None:
    """Return how much a plain memory leaks out of the trial's very entry sets; None where it was not measured so."""
    return plain.metric(f"{LEAKAGE}_{set_name(trial)}")


def set_name(trial: Trial) -> str:
    """Name the setting of a structured trial's entry set, as in the metrics of a plain one."""
    return SetSetting.of({**STATED_DEFAULTS, **trial.point}).name


def sizes(trials: Sequence[Trial]) -> list[Table]:
    """Model x entries of the memory, and x number of clusters, where these were varied."""
    memories = [t for t in trials if t.get("method") == "memory"]
    rows = ("model", "layer", "allocation")
    tables = []
    for question, column, title in (
        (MEMORY_SIZE, lambda t: t.get("memory_dim"), "Entries of the memory"),
        (CLUSTERS, clusters_of, "Clusters of documents"),
    ):
        layout = Layout(rows, column, NLL, ignore=question.over, group=2)
        own = compared_over(memories, question.over)
        tables += _pivots(own, layout, question.key, title, question.qualities)
    return tables


def clusters_of(trial: Trial) -> int | None:
    """Return the number of groups of documents, None for a trial without entry sets."""
    return (trial.get("num_clusters") or trial.get("num_documents")) if is_structured(trial) else None


def counterfact(trials: Sequence[Trial]) -> list[Table]:
    """Rates of true and counterfactual targets per trial (note 002)."""
    own = [t for t in trials if any(name.startswith("counterfact/") for name in t.metrics)]
    names = list(dict.fromkeys(n for t in own for n in t.metrics if n.startswith("counterfact/")))
    if not names:
        return []
    title = "Sampled answers: share that begins with the true or the new target, and word F1 with the true one"
    groups = {
        group: [name for name in names if name.startswith(f"counterfact/{group}_")] for group in COUNTERFACT_GROUPS
    }
    rest = [name for name in names if not any(name in members for members in groups.values())]
    tables = [_rates(own, rest, "counterfact", title)]
    if all(groups.values()):
        tables += [
            _rates(own, members, f"counterfact_{group}", f"The same, records {COUNTERFACT_GROUPS[group]}")
            for group, members in groups.items()
        ]
    versions = {t.probe_versions.get("counterfact", 1) for t in own}
    told = (
        (
            f"Trials of versions {' and '.join(map(str, sorted(versions)))} of the probe are mixed. Version 1 counts "
            "answers that go on within the target's last word (Indiana for India) and asks hard memories unmasked.",
        )
        if len(versions) > 1
        else ()
    )
    return [replace(table, legend=(*table.legend, *told)) for table in tables]


def _rates(trials: Sequence[Trial], names: Sequence[str], slug: str, title: str) -> Table:
    measures = [
        Measure(name.partition("/")[2], metric_named(name), False if "true" in name or "f1" in name else None)
        for name in sorted(names)
    ]
    return listing(trials, ("model", "method", "content"), measures, slug, title)


def _measures(question: StudyQuestion) -> list[Measure]:
    return [Measure(q.metric.partition("/")[2], metric_named(q.metric), q.lower_is_better) for q in question.qualities]


def _content(trial: Trial) -> str:
    answer = " (answer loss)" if trial.get("template_loss") == "answer" else ""
    return f"{trial.get('content')}{answer}"
