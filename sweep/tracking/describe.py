"""Descriptions in Markdown, as the UI shows them on a run's page: of a trial in words, of a sweep with its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sweep.records.askings import answers_below
from sweep.records.record import STATUSES, Record
from sweep.tracking.layout import Finding, seconds_spent
from sweep.tracking.naming import Naming
from sweep.tracking.views import ACCURACY, ERROR, LEAKAGE, MACRO

BEST_SHOWN = 10
_COLUMNS = {ERROR: "NLL", LEAKAGE: "leakage", ACCURACY: "accuracy", MACRO: "macro F1"}


def describe_trial(record: Record, folder: str, finding: Finding | None, sweep_link: str) -> str:
    """Say in words what a trial was, how it compares, and where its files are.

    Args:
        record: the trial's.
        folder: its folder, as a person would type it.
        finding: its comparison with others; None where there is none.
        sweep_link: address of the sweep's own run, relative to the UI's page.
    """
    lines = [_in_words(record), ""]
    error = record.get("error") or {}
    if error:
        lines += [f"**{record['status']}**: {error.get('class')}: {error.get('message')}", ""]
    elif record["status"] != "done":
        lines += [f"**{record['status']}**", ""]
    if finding and finding.tags.get("verdict"):
        lines += [f"Against the pretrained model: **{finding.tags['verdict']}**. {finding.note}", ""]
    if finding and finding.tags.get("verdict_vs_plain"):
        lines += [f"Against plain memorising: **{finding.tags['verdict_vs_plain']}**.", ""]
    lines += [f"- [the sweep {record['sweep']}]({sweep_link})", f"- folder: `{folder}`"]
    if record["status"] == "done":
        below = answers_below(record)
        lines += [f"- every answer given to {label}: `{folder}/{path}`" for label, path in below.items()]
    return "\n".join(lines)


def _in_words(record: Record) -> str:
    stated, model = record["identity"], record["model"]
    shots = "1 shot" if stated["num_shots"] == 1 else f"{stated['num_shots']} shots"
    asked = f"{', '.join(stated['probes'])}, {shots}" if stated["probes"] else "nothing"
    where = (
        f"data {record['data']['given']}, {stated['num_documents']} documents; asked: {asked}; seed {stated['seed']}"
    )
    if stated["method"] == "pretrained":
        return f"The pretrained model {model['name']} as it comes; {where}."
    training = f"{stated['content']}, {stated['epochs']} epochs, learning rate {stated['lr']:g}"
    if stated["method"] != "memory":
        return f"All weights of {model['name']} trained ({stated['method']}) on {training}; {where}."
    layer = (
        f"layer {stated['layer']} of {model['num_blocks']} (depth {(stated['layer'] + 1) / model['num_blocks']:.2f})"
    )
    if stated["mode"] == "hard":
        kind = f"allocation {stated['allocation']} as a hard mask"
    elif stated["allocation"] == "none":
        kind = "no structure (plain memorising)"
    else:
        kind = f"allocation {stated['allocation']}, inductive loss with alpha {stated['alpha']:g}"
    memory = f"A memory of {stated['memory_dim']} entries at {layer} of {model['name']}"
    return f"{memory}; {kind}; trained on {training}; {where}."


def describe_sweep(
    plan: Mapping[str, Any],
    choices: Any,
    records: Sequence[Record],
    findings: Mapping[str, Finding],
    naming: Naming,
    links: Mapping[str, str],
    figures: Sequence[tuple[str, str]] = (),
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
    """
    parts = [f"## {plan.get('title') or plan.get('space') or 'Sweep'}"]
    parts.append(" · ".join(f"[{what}]({address})" for what, address in links.items()))
    parts.append(_counts(plan, records))
    chosen = _choices(choices)
    if chosen:
        parts += ["### What later stages took from earlier ones", chosen]
    done = [record for record in records if record["status"] == "done"]
    for metric, heading, sign in ((ACCURACY, "Best answers", -1), (ERROR, "Best memorised", 1)):
        ranked = sorted(
            (r for r in done if _value(r, metric) is not None), key=lambda r: sign * (_value(r, metric) or 0)
        )
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
        lines.append(f"| {stage['name']} | " + " | ".join(map(str, numbers)) + " |")
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
        lines.append(
            f"| {group} | {entry['field']} {entry['value']} | {by} | {_number(entry.get('metric'))} | {others} |"
        )
    return "\n".join(lines)


def _best(records: Sequence[Record], findings: Mapping[str, Finding], naming: Naming) -> str:
    metrics = [metric for metric in _COLUMNS if any(_value(record, metric) is not None for record in records)]
    compared = any("vs_pretrained/accuracy" in findings.get(r["id"], Finding()).values for r in records)
    heads = ["trial", *(_COLUMNS[metric] for metric in metrics)]
    heads += ["accuracy − pretrained [95 %]", "verdict"] if compared else []
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for record in records:
        cells = [naming.of_record(record), *(_number(_value(record, metric)) for metric in metrics)]
        if compared:
            finding = findings.get(record["id"], Finding())
            cells += [difference_text(finding, "vs_pretrained"), finding.tags.get("verdict", "–")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _verdicts(done: Sequence[Record], findings: Mapping[str, Finding]) -> str:
    lines = []
    for tag, against in (("verdict", "the pretrained model"), ("verdict_vs_plain", "plain memorising (alpha 0)")):
        found = Counter(f.tags[tag] for r in done if (f := findings.get(r["id"])) and tag in f.tags)
        if found:
            told = ", ".join(f"{number} {verdict}" for verdict, number in found.most_common())
            lines.append(f"- against {against}: {told}")
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


def difference_text(finding: Finding, against: str) -> str:
    """Print a difference in accuracy with its interval."""
    names = (f"{against}/accuracy", f"{against}/accuracy_low", f"{against}/accuracy_high")
    values = [finding.values.get(name) for name in names]
    if values[0] is None:
        return "–"
    difference, low, high = (f"{value:+.3f}" if value is not None else "?" for value in values)
    return f"{difference} [{low}, {high}]".replace("-", "−")


def _value(record: Record, metric: str) -> float | None:
    value = record["metrics"].get(metric)
    return None if value is None else float(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
