"""The tables of the notes, filled from whatever trials there are; a table without trials is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sweep.report.loading import Study, Trial
from sweep.report.notes import CONTENTS, note_value
from sweep.report.references import References, is_baseline, is_plain, is_structured
from sweep.report.tables import MISSING, Cell, Layout, Table, number, pivot, show, varying

ACCURACY, MACRO, NLL, LEAKAGE = "fever/accuracy", "fever/f1_macro", "memory/nll", "memory/leakage"
QUALITIES = ((ACCURACY, "FEVER accuracy", False), (MACRO, "FEVER macro F1", False))
TRAINED = ((NLL, "memorisation error (NLL per token)", True), *QUALITIES)
MAX_LEADERS = 15


def study_tables(study: Study, references: References) -> dict[str, list[Table]]:
    """Return the tables by section heading, sections without tables left out."""
    trials = study.trials
    sections = {
        "Few-shot examples, pretrained models": few_shot(trials),
        "What is memorised": memory_content(trials, references),
        "Structure": structure(trials, references),
        "Layers": layers(study, references),
        "Inductive loss: alpha and allocation": inductive(trials, references),
        "Size of the memory and clusters": sizes(trials),
        "CounterFact": counterfact(trials),
        "Best trials": leaders(trials),
        "Data": [table for table in (data_table(trials),) if table],
    }
    return {heading: tables for heading, tables in sections.items() if tables}


def _pivots(
    trials: Sequence[Trial], layout: Layout, slug: str, title: str, metrics: Sequence[tuple[str, str, bool]]
) -> list[Table]:
    """Lay the same trials out once per metric."""
    tables = []
    for metric, name, lower in metrics:
        chosen = replace(layout, metric=metric, lower_is_better=lower)
        table = pivot(trials, chosen, f"{slug}_{metric.split('/')[-1]}", f"{title}: {name}")
        if table and any(cell.value is not None for _, row in table.rows for cell in row):
            tables.append(table)
    return tables


def few_shot(trials: Sequence[Trial]) -> list[Table]:
    """Model x shots (note 000)."""
    own = [trial for trial in trials if is_baseline(trial)]
    layout = Layout(("model",), lambda t: t.get("num_shots"), ACCURACY, ignore=("num_shots",))
    return _pivots(own, layout, "few_shot", "Model x shots", QUALITIES)


def memory_content(trials: Sequence[Trial], references: References) -> list[Table]:
    """Model x what is memorised x weight decay, beside the pretrained baseline (note 000)."""
    own = [t for t in trials if is_plain(t) or t.get("method") == "full_update"]
    if {t.get("content") for t in own} <= {"document"}:
        return []
    layout = Layout(
        ("model", "method", "weight_decay"),
        _content,
        ACCURACY,
        references={"pretrained": references.baseline},
        ignore=("content", "template_loss"),
        order=lambda column: (CONTENTS.index(column.split(" ")[0]), column),
    )
    return _pivots(own, layout, "content", "Model x what is memorised", QUALITIES)


def structure(trials: Sequence[Trial], references: References) -> list[Table]:
    """Hard entry sets by allocation and granularity, beside pretrained and unstructured memory (note 001)."""
    own = [t for t in trials if is_structured(t) and t.get("mode") == "hard"]
    layout = Layout(
        ("model", "layer", "norm_and_gate"),
        allocation_name,
        NLL,
        references={"pretrained": references.baseline, "unstructured": references.plain},
        ignore=("allocation", "granularity", "entries_per_group"),
        group=2,
    )
    return [
        *_pivots(
            own,
            replace(layout, reference_metric=_nll_of_reference),
            "structure",
            "Hard entry sets",
            TRAINED[:1],
        ),
        *_pivots(own, layout, "structure", "Hard entry sets", QUALITIES),
    ]


def _nll_of_reference(trial: Trial, other: Trial) -> float | None:
    """Return what the documents cost before training, or after training a plain memory."""
    return trial.metric("memory/nll_before") if is_baseline(other) else other.metric(NLL)


def layers(study: Study, references: References) -> list[Table]:
    """Best layer per model, and model x layer (notes 001, 002)."""
    own = [t for t in study.trials if is_plain(t) and t.get("content") == "document"]
    if len({t.get("layer") for t in own}) < 2:
        return []
    layout = Layout(("model",), lambda t: t.get("layer"), NLL, ignore=("layer",))
    with_baseline = replace(layout, references={"pretrained": references.baseline})
    return [
        *([best] if (best := best_layers(own)) else []),
        *_pivots(own, layout, "layers", "Model x layer", TRAINED[:1]),
        *_pivots(own, with_baseline, "layers", "Model x layer", QUALITIES),
    ]


def best_layers(trials: Sequence[Trial]) -> Table | None:
    """Each model's layer with the lowest memorisation error, at its largest number of documents."""
    rows = []
    for model in dict.fromkeys(t.model for t in trials):
        own = [t for t in trials if t.model == model and t.metric(NLL) is not None]
        most = max((t.get("num_documents") for t in own), default=0)
        ranked = sorted(
            (t for t in own if t.get("num_documents") == most), key=lambda t: t.metric(NLL) or 0.0
        )
        if not ranked:
            continue
        best = ranked[0]
        depth = (best.get("layer") + 1) / best.num_blocks if best.num_blocks else None
        others = dict.fromkeys(t.get("layer") for t in ranked if t.get("layer") != best.get("layer"))
        cells = (
            Cell(float(best.get("layer")), show(best.get("layer"))),
            Cell(depth, MISSING if depth is None else f"{depth:.0%}"),
            *(Cell(best.metric(name), number(best.metric(name))) for name in (NLL, ACCURACY, MACRO)),
            Cell(", ".join(map(show, list(others)[:3])), ", ".join(map(show, list(others)[:3])) or MISSING),
        )
        rows.append(((model, show(most)), cells))
    columns = ("best layer", "depth", "NLL", "accuracy", "macro F1", "next best layers")
    legend = ("Best: lowest memorisation error after training. Layers count from 0.",)
    return Table("best_layer", "Best layer per model", ("model", "documents"), columns, tuple(rows), legend)


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
        slug, title = f"alpha_allocation_{documents}", f"Alpha x allocation, {documents} documents"
        leaked = replace(layout, reference_metric=leakage_of_plain)
        tables += _pivots(here, layout, slug, title, TRAINED)
        tables += _pivots(here, leaked, slug, title, [(LEAKAGE, "leakage (share of energy outside)", True)])
    note = "At alpha 0 the allocation does not matter: the column holds one trial, plain memorising."
    return [replace(table, legend=(*table.legend, note)) for table in tables]


def leakage_of_plain(trial: Trial, plain: Trial) -> float | None:
    """Return how much a plain memory leaks out of the trial's entry sets; known for whole-document sets only."""
    if trial.get("granularity") == "token":
        return None
    return plain.metric(f"{LEAKAGE}_{trial.get('allocation')}")


def sizes(trials: Sequence[Trial]) -> list[Table]:
    """Model x entries of the memory, and x number of clusters, where these were varied."""
    tables = []
    memories = [t for t in trials if t.get("method") == "memory"]
    for name, slug, title in (
        ("memory_dim", "memory_size", "Model x entries of the memory"),
        ("num_clusters", "clusters", "Model x clusters of documents"),
    ):
        if len({t.get(name) for t in memories if t.get(name) is not None}) < 2:
            continue
        layout = Layout(("model", "layer", "allocation"), partial(_field, name), NLL, ignore=(name,), group=2)
        tables += _pivots(memories, layout, slug, title, TRAINED[:2])
    return tables


def counterfact(trials: Sequence[Trial]) -> list[Table]:
    """Rates of true and counterfactual targets per trial (note 002)."""
    own = [t for t in trials if "counterfact" in (t.get("probes") or ())]
    names = list(dict.fromkeys(n for t in own for n in t.metrics if n.startswith("counterfact/")))
    if not names:
        return []
    table = _listing(
        own, names, "counterfact", "Sampled answers: share that begins with the target, and word F1"
    )
    return [table]


def leaders(trials: Sequence[Trial]) -> list[Table]:
    """The best trials by memorisation error and by accuracy, whatever they are."""
    tables = []
    for metric, name, lower in (TRAINED[0], TRAINED[1]):
        own = [t for t in trials if t.metric(metric) is not None and (metric != NLL or not is_baseline(t))]
        own.sort(key=lambda t: (t.metric(metric) or 0.0) * (1 if lower else -1))  # noqa: B023
        if len(own) > 1:
            columns = [
                n for n in (NLL, ACCURACY, MACRO, LEAKAGE) if any(t.metric(n) is not None for t in own)
            ]
            slug = f"best_{metric.split('/')[-1]}"
            tables.append(
                _listing(own[:MAX_LEADERS], columns, slug, f"Best {MAX_LEADERS} trials by {name}", own)
            )
    return tables


def data_table(trials: Sequence[Trial]) -> Table | None:
    """What the documents and rows were: N_full, N_top, N_trunc and the rows behind them."""
    names = list(dict.fromkeys(name for t in trials for name in t.counts))
    rows: dict[tuple[str, ...], tuple[Cell, ...]] = {}
    for trial in sorted(trials, key=lambda t: (t.data, t.get("num_documents"))):
        if trial.counts:
            cells = tuple(_count(trial.counts.get(name)) for name in names)
            rows.setdefault((trial.data, show(trial.get("num_documents")), *(c.text for c in cells)), cells)
    if not rows:
        return None
    labels = ("data", "num_documents")
    body = tuple((key[:2], cells) for key, cells in rows.items())
    return Table("data", "Pages and rows", labels, tuple(names), body)


def beside_the_notes(trials: Sequence[Trial]) -> Table | None:
    """Our accuracy and macro F1 beside the notes' where the same point was run at full scale."""
    rows = []
    for trial in trials:
        note = note_value(trial)
        if note is None or trial.status != "done":
            continue
        labels = (trial.model, variant(trial), show(trial.get("num_shots")), note.note)
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
    labels = ("model", "variant", "shots", "note")
    return Table(
        "beside_the_notes",
        "Ours beside the notes'",
        labels,
        columns,
        tuple(rows),
        (f"{MISSING}: the note gives no such number.",),
    )


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


def _field(name: str, trial: Trial) -> Any:
    return trial.get(name)


def _content(trial: Trial) -> str:
    answer = " (answer loss)" if trial.get("template_loss") == "answer" else ""
    return f"{trial.get('content')}{answer}"


def _listing(
    trials: Sequence[Trial], names: Sequence[str], slug: str, title: str, among: Sequence[Trial] = ()
) -> Table:
    """List trials one per row: what varies among them, then metrics."""
    labels = (
        "model",
        "variant",
        *varying(
            among or trials,
            ("model", "method", "content", "allocation", "granularity", "mode", "alpha", "probes"),
        ),
    )
    rows = []
    for trial in trials:
        texts = tuple(variant(trial) if n == "variant" else show(trial.get(n)) for n in labels)
        cells = tuple(Cell(trial.metric(n), number(trial.metric(n))) for n in names)
        rows.append((texts, cells))
    return Table(slug, title, labels, tuple(n.split("/")[-1] for n in names), tuple(rows))


def _count(value: Any) -> Cell:
    return Cell(None, MISSING) if value is None else Cell(float(value), f"{value:,}")
