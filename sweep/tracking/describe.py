"""Descriptions in Markdown, as the UI shows them on a run's page: of a trial in words, of a sweep with its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sweep.records.askings import answers_below
from sweep.records.record import STATUSES, Record
from sweep.records.starts import start_text
from sweep.records.steering import origin_text
from sweep.records.study_questions import (
    AGAINST,
    AGAINST_PRETRAINED,
    ENDS,
    ERROR,
    LEAKED,
    MACRO_F1,
    RATES,
    RIGHT,
    TRUE_RATE,
    Quality,
)
from sweep.tracking.layout import seconds_spent
from sweep.tracking.run_content import ComparisonResult
from sweep.tracking.run_names import Naming
from trainables.adapters.registry import ADAPTERS

BEST_SHOWN = 10
GAP = "&emsp;"
MOST_FILES = 50
NOTE = "mlflow.note.content"
ANSWERS = "changed_answers.csv"
VERDICT, REAL = AGAINST_PRETRAINED.verdict, ("better", "worse")
_BEST = ((RIGHT, "Best answers"), (TRUE_RATE, "Best sampled answers"), (ERROR, "Best memorised"))
_RESULTS = (ERROR, LEAKED, RIGHT, MACRO_F1, TRUE_RATE)


def telling(records: Iterable[Record], findings: Mapping[str, ComparisonResult]) -> set[str]:
    """Return the trials whose changed answers become an artifact: the best ones, then those that truly differ.

    Not all of them: a file takes a request or two more than a run without it.
    """
    done = [record for record in records if record["status"] == "done"]
    best = [record["id"] for quality, _ in _BEST for record in _ranked(done, quality)[:BEST_SHOWN]]
    real = [r["id"] for r in _ranked(done, RIGHT) if (f := findings.get(r["id"])) and f.tags.get(VERDICT) in REAL]
    return set(list(dict.fromkeys([*best, *real]))[:MOST_FILES])


def describe_trial(
    record: Record,
    folder: str,
    finding: ComparisonResult | None,
    sweep_link: str,
    has_file: bool = False,
    run_link: Callable[[str], str | None] = lambda trial: None,
) -> str:
    """Say in words what a trial was, how it compares, and where its files are.

    Args:
        record: the trial's.
        folder: its folder, as a person would type it.
        finding: its comparison with others; None where there is none.
        sweep_link: address of the sweep's own run, relative to the UI's page.
        has_file: whether all changed answers are an artifact of the run.
        run_link: gives the address of another trial's run, None where it has none.
    """
    model = record["model"]
    earlier = start_text(record)
    start = None if earlier is None else f"{record.get('start', {}).get('trial', 'another')} ({earlier})"
    asked = answers_below(record)
    lines = [
        in_words(record["identity"], model["name"], model["num_blocks"], record["data"]["given"], start, asked),
        "",
    ]
    origin = origin_text(record.get("labels", {}), lambda trial: _linked(trial, run_link(trial)))
    lines += [origin, ""] if origin else []
    error = record.get("error") or {}
    if error:
        lines += [f"**{record['status']}**: {error.get('class')}: {error.get('message')}", ""]
    elif record["status"] != "done":
        lines += [f"**{record['status']}**", ""]
    if finding:
        lines += _compared(finding)
        lines += _changed(finding, has_file)
    lines += [f"- [the sweep {record['sweep']}]({sweep_link})", f"- folder: `{folder}`"]
    if record["status"] == "done":
        lines += [f"- every answer given to {label}: `{folder}/{path}`" for label, path in asked.items()]
    return "\n".join(lines)


def _linked(text: str, address: str | None) -> str:
    return f"[{text}]({address})" if address else f"`{text}`"


def _compared(finding: ComparisonResult) -> list[str]:
    """Say how a trial compares with each of its references."""
    lines = []
    for against in AGAINST:
        if against.verdict in finding.tags:
            difference = difference_text(finding, against.accuracy)
            lines += [f"Accuracy against {against.name}: {difference}, **{finding.tags[against.verdict]}**.", ""]
    for quality in RATES:
        verdict = finding.tags.get(AGAINST_PRETRAINED.verdict_on(quality))
        if verdict:
            difference = difference_text(finding, AGAINST_PRETRAINED.rate(quality))
            lines += [f"{quality.name} against the pretrained model: {difference}, **{verdict}**.", ""]
    return lines


def _changed(finding: ComparisonResult, has_file: bool) -> list[str]:
    """Show some of the answers that changed."""
    if not finding.changed:
        return [finding.note, ""] if finding.note else []
    lines = [finding.note, ""] if finding.note else []
    lines += ["| | question | right is | reference | this trial |", "| --- | --- | --- | --- | --- |"]
    for each in finding.changed:
        cells = (each.question, each.truth, each.before, each.after)
        lines.append(_row(["+" if each.gained else "−", *map(_cell, cells)]))
    return [*lines, "", *([f"All answers that changed: `{ANSWERS}` in the tab *Artifacts*.", ""] if has_file else [])]


def _row(cells: Iterable[object]) -> str:
    """Return a row of a Markdown table; MLflow's page leaves no room between columns."""
    return "| " + " | ".join(f"{cell}{GAP}" for cell in cells) + " |"


def _cell(text: str) -> str:
    """Return a text as it stands in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|") or "–"


def in_words(
    stated: Mapping[str, Any],
    model: str,
    num_blocks: int,
    data: str,
    start: str | None = None,
    labels: Iterable[str] = (),
) -> str:
    """Say what a trial is in a sentence.

    Args:
        stated: its identity.
        model: its model's name.
        num_blocks: of the model.
        data: as the user named it.
        start: what it started from, in words; None where it started anew.
        labels: of all that it has been asked; those that are not its own probes were asked of its stored weights.
    """
    shots = "1 shot" if stated["num_shots"] == 1 else f"{stated['num_shots']} shots"
    asked = f"{', '.join(stated['probes'])}, {shots}" if stated["probes"] else "nothing"
    later = ", ".join(label for label in labels if label not in stated["probes"])
    asked += f", and later {later}" if later else ""
    where = f"data {data}, {stated['num_documents']} documents; asked: {asked}; seed {stated['seed']}"
    if stated["method"] == "pretrained":
        return f"The pretrained model {model} as it comes; {where}."
    training = f"{stated['content']}, {stated['epochs']} epochs, learning rate {stated['lr']:g}"
    if start is not None:
        training += f", starting from the weights of {start}"
    if stated["method"] == "full_update":
        return f"All weights of {model} trained ({stated['method']}) on {training}; {where}."
    if stated["method"] != "memory":
        what = " ".join(ADAPTERS[stated["method"]].words(stated)) if stated["method"] in ADAPTERS else stated["method"]
        return f"{what} of {model}; trained on {training}; {where}."
    layer = f"layer {stated['layer']} of {num_blocks} (depth {(stated['layer'] + 1) / num_blocks:.2f})"
    if stated["mode"] == "hard":
        kind = f"allocation {stated['allocation']} as a hard mask"
    elif stated["allocation"] == "none":
        kind = "no structure (plain memorising)"
    else:
        kind = f"allocation {stated['allocation']}, inductive loss with alpha {stated['alpha']:g}"
    memory = f"A memory of {stated['memory_dim']} entries at {layer} of {model}"
    return f"{memory}; {kind}; trained on {training}; {where}."


def describe_sweep(
    plan: Mapping[str, Any],
    choices: Any,
    records: Sequence[Record],
    findings: Mapping[str, ComparisonResult],
    naming: Naming,
    links: Mapping[str, str],
    figures: Sequence[tuple[str, str]] = (),
    conclusions: Sequence[tuple[str, Sequence[str]]] = (),
) -> str:
    """Say what a sweep asked and what came out.

    Args:
        plan: its plan.json.
        choices: its choices.json, None without.
        records: of its trials.
        findings: comparisons of its trials by id.
        naming: how its trials are named.
        links: addresses by what they lead to, relative to the UI's page.
        figures: heading and address of pictures.
        conclusions: questions, and the sentences that answer them.
    """
    parts = [f"## {plan.get('title') or plan.get('space') or 'Sweep'}"]
    parts.append(" · ".join(f"[{what}]({address})" for what, address in links.items()))
    parts += [f"**{question}** {' '.join(map(_cell, sentences))}" for question, sentences in conclusions]
    parts.append(_counts(plan, records))
    chosen = _choices(choices)
    if chosen:
        parts += ["### What later stages took from earlier ones", chosen]
    done = [record for record in records if record["status"] == "done"]
    for quality, heading in _BEST:
        ranked = _ranked(done, quality)
        if ranked:
            parts += [f"### {heading}", _best(ranked[:BEST_SHOWN], findings, naming)]
    parts.append(_verdicts(done, findings))
    parts += [f"### {heading}\n\n![{heading}]({address})" for heading, address in figures]
    if any(str(record["data"]["given"]).startswith("sample") for record in records):
        parts.append("_The sample world is for trying and testing: no claim about real models follows._")
    return "\n\n".join(filter(None, parts))


def _counts(plan: Mapping[str, Any], records: Sequence[Record]) -> str:
    by_id = {record["id"]: record for record in records}
    lines = []
    if plan.get("arithmetic"):
        lines += [f"Grid: {plan['arithmetic']} points, {plan.get('unique_points')} of them different.", ""]
    lines += [f"| stage | points | {' | '.join(STATUSES)} | no result yet |", "|" + " --- |" * (len(STATUSES) + 3)]
    for stage in plan.get("stages") or ():
        ids = stage.get("ids") or ()
        found = Counter(by_id[i]["status"] for i in ids if i in by_id)
        points = max(int(stage.get("points") or 0), len(ids))
        numbers = [points, *(found[status] for status in STATUSES), points - sum(found.values())]
        lines.append(_row([stage["name"], *numbers]))
    hours = sum(map(seconds_spent, records)) / 3600
    return "\n".join([*lines, "", f"{len(records):,} trials recorded; {hours:,.2f} trial hours."])


def _choices(choices: Any) -> str:
    entries = list(choices.values()) if isinstance(choices, dict) else choices or []
    entries = [entry for entry in entries if isinstance(entry, dict) and "field" in entry and "value" in entry]
    if not entries:
        return ""
    lines = ["| for | chosen | by | value | runners-up |", "| --- | --- | --- | --- | --- |"]
    for entry in entries:
        group = ", ".join(f"{name} {value}" for name, value in (entry.get("group") or {}).items())
        others = ", ".join(f"{r['value']} ({_number(r.get('metric'))})" for r in (entry.get("runners_up") or ())[:3])
        by = f"{entry.get('mode', '')} {entry.get('by', '')}".strip()
        lines.append(_row([group, f"{entry['field']} {entry['value']}", by, _number(entry.get("metric")), others]))
    return "\n".join(lines)


def _best(records: Sequence[Record], findings: Mapping[str, ComparisonResult], naming: Naming) -> str:
    shown = [quality for quality in _RESULTS if any(_value(record, quality) is not None for record in records)]
    compared = any(AGAINST_PRETRAINED.accuracy in findings.get(r["id"], ComparisonResult()).values for r in records)
    heads = ["trial", *(quality.short for quality in shown)]
    heads += ["accuracy − pretrained [95 %]", "verdict"] if compared else []
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for record in records:
        cells = [naming.of_record(record), *(_number(_value(record, quality)) for quality in shown)]
        if compared:
            finding = findings.get(record["id"], ComparisonResult())
            cells += [difference_text(finding, AGAINST_PRETRAINED.accuracy), finding.tags.get("verdict", "–")]
        lines.append(_row(cells))
    return "\n".join(lines)


def _verdicts(done: Sequence[Record], findings: Mapping[str, ComparisonResult]) -> str:
    lines = []
    tags = [(against.verdict, f"against {against.name}") for against in AGAINST]
    tags += [(AGAINST_PRETRAINED.verdict_on(rate), f"{rate.name}, against {AGAINST_PRETRAINED.name}") for rate in RATES]
    for tag, what in tags:
        found = Counter(f.tags[tag] for r in done if (f := findings.get(r["id"])) and tag in f.tags)
        if found:
            told = ", ".join(f"{number} {verdict}" for verdict, number in found.most_common())
            lines.append(f"- {what}: {told}")
    if not lines:
        return (
            "### Is the difference real?\n\nNo trial could be compared: there is no `method=pretrained` trial and no "
            "plain memory with the same model, data, shots and seed."
        )
    how = (
        "\n\nEvery trial is compared with its reference on the same claims. *Better* and *worse* need both a 95 % "
        "interval (bootstrap over pages) that excludes 0 and McNemar's exact p below 0.05 after Holm's correction over "
        "the sweep."
    )
    return "### Is the difference real?\n\n" + "\n".join(lines) + how


def difference_text(finding: ComparisonResult, name: str) -> str:
    """Print a difference with its interval, by its metric's name."""
    values = [finding.values.get(name + end) for end in ENDS]
    if values[0] is None:
        return "–"
    difference, low, high = (f"{value:+.3f}" if value is not None else "?" for value in values)
    return f"{difference} [{low}, {high}]".replace("-", "−")


def _ranked(records: Sequence[Record], quality: Quality) -> list[Record]:
    """Return the records that have a quality, the best first."""
    measured = [(value, record) for record in records if (value := _value(record, quality)) is not None]
    measured.sort(key=lambda pair: pair[0] if quality.lower_is_better else -pair[0])
    return [record for _, record in measured]


def _value(record: Record, quality: Quality) -> float | None:
    value = record["metrics"].get(quality.metric)
    return None if value is None else float(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
