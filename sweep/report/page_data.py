"""What the page holds of every trial, for its table and the trials' own sections, packed into one text.

Everything lies in the page itself, so that it stays one file that can be mailed, attached to a run and read offline: as
JSON, deflated, in base64, which the browser unpacks in a moment. Of a trial's answers only those that differ from its
reference's are kept, as a string with a dot for every equal one.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.records.starts import START
from sweep.records.steering import origin_text
from sweep.report.answers import UNPARSED, Answers, Questions
from sweep.report.changed import changed_samples, claim_words
from sweep.report.comparisons.fever import Comparison
from sweep.report.evidence import Difference, Evidence, differences_from_pretrained
from sweep.report.figures.simset import ANALYSIS
from sweep.report.naming import ACCURACY, LEAKAGE, MACRO, NLL, SEEDS, allocation_name, varying
from sweep.report.references import References, is_structured
from sweep.report.samples import COUNTERFACT, samples_of
from sweep.report.study import Study, Trial, read_extra
from sweep.report.table import cell_text
from sweep.tracking.describe import in_words
from trainables.node.addresses import shown
from trainables.trial.fields import Part
from trainables.trial.identity import STATED_DEFAULTS, TOLD_APART
from trainables.trial.parts import fields_of

METRICS = {
    NLL: "NLL",
    LEAKAGE: "leakage",
    ACCURACY: "accuracy",
    MACRO: "macro F1",
    "counterfact/true_rate": "true target",
}
CURVES = ("train/nll", "train/loss", "train/leakage", NLL, ACCURACY)
LETTERS = "abc"
SAME, NONE = ".", "-"
"""An answer like the reference's, and none that could be parsed."""
DIGITS = 5
TOO_MANY = "too many"
MAX_ANSWERS_BYTES = 1_500_000
"""Deflated answers in the page at most. 2,400 trials of 3,045 claims that change every tenth answer take 1.0 MB."""


def page_data(
    study: Study, references: References, answers: Mapping[str, Answers], evidence: Sequence[Evidence]
) -> dict[str, Any]:
    """Return what `packed` packs.

    Args:
        study: the trials.
        references: of them.
        answers: to FEVER, by trial id.
        evidence: of each sweep.
    """
    found: dict[str, Difference] = {}
    what = ""
    plain: dict[str, Comparison] = {}
    for own in evidence:
        name, differences = differences_from_pretrained(own)
        what = what or name
        found |= {d.trial.id: d for d in differences}
        plain |= {c.trial.id: c for c in own.against_plain}
    trials = study.trials
    seeds = [name for name in SEEDS if len({t.get(name) for t in trials} - {None}) > 1]
    labels = [*dict.fromkeys(("model", *varying(trials), *seeds))]
    shown = [name for name in METRICS if any(t.metric(name) is not None for t in trials)]
    columns = [_column("trial", "id"), _column("verdict"), *(_column(name.replace("_", " ")) for name in labels)]
    columns += [_column("status"), *(_column(METRICS[name], "number") for name in shown)]
    columns += [_column(name, "number", sign) for name, sign in (("difference", 1), ("low", 1), ("high", 1), ("p", 0))]
    columns += [_column("against plain", "number", 1), _column("verdict on plain")] if plain else []
    several = len(study.sweeps) > 1
    columns += [_column("sweep")] if several else []
    rows = []
    for t in trials:
        d, c = found.get(t.id), plain.get(t.id)
        row: list[Any] = [t.id, {1: "better", -1: "worse", 0: "no difference found"}[d.verdict] if d else ""]
        row += [_value(t, name) for name in labels]
        row += [t.status, *(_number(t.metric(name)) for name in shown)]
        row += [_number(v) for v in ((d.value, *d.interval, d.p) if d else (None,) * 4)]
        row += [_number(c.accuracy_difference) if c else None, c.verdict if c else ""] if plain else []
        rows.append([*row, t.sweep] if several else row)
    allocations: dict[str, tuple[int, Any]] = {}
    pool = _Pool(answers)
    pages = [_page(study, t, references, pool, allocations, plain.get(t.id)) for t in trials]
    _keep_within(
        pages, [abs(found[t.id].value) + 10 * abs(found[t.id].verdict) if t.id in found else 0 for t in trials]
    )
    parts = dict.fromkeys(name for page in pages for name in page)
    by_part = {
        name: [page.get(name) for page in pages] for name in parts
    }  # alike side by side: half the size, deflated
    return {
        "what": what, "columns": columns, "rows": rows, "pages": by_part, "questions": pool.questions,
        "groups": pool.groups, "bases": pool.bases, "allocations": [told for _, told in allocations.values()],
    }  # fmt: skip


def packed(data: Mapping[str, Any]) -> str:
    """Return data as deflated JSON in base64."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _column(name: str, kind: str = "text", sign: int = 0) -> dict[str, Any]:
    return {"name": name, "kind": kind} | ({"sign": 1} if sign else {})


def _value(trial: Trial, name: str) -> Any:
    value = trial.get(name)
    return (
        value
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        else cell_text(value)
    )


def _number(value: float | None) -> float | None:
    """Round to a few significant digits."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def _page(
    study: Study,
    trial: Trial,
    references: References,
    pool: _Pool,
    allocations: dict[str, tuple[int, Any]],
    against_plain: Comparison | None,
) -> dict[str, Any]:
    stated = {**STATED_DEFAULTS, **trial.point}
    page: dict[str, Any] = {
        "words": in_words(stated, trial.model, trial.num_blocks, trial.data, trial.point.get(START), trial.answers),
        "folder": shown(study.storage.full(trial.folder)),
        "fields": {n: cell_text(trial.get(n)) for n in TOLD_APART if trial.get(n) is not None},
        "metrics": {n: _number(v) for n, v in trial.metrics.items() if v is not None},
        "curves": {n: _curve(trial.curves[n]) for n in CURVES if len(trial.curves.get(n, ())) > 1},
    }
    if origin := origin_text(trial.labels):
        page["origin"], page["parent"] = origin, trial.labels.get("cloned_from")
    if trial.error:
        page["error"] = trial.error
    if against_plain:
        page["plain"] = {
            "difference": _number(against_plain.accuracy_difference),
            "interval": [_number(v) for v in against_plain.accuracy_interval],
            "p": _number(against_plain.p_holm), "verdict": against_plain.verdict, "trial": against_plain.reference.id,
        }  # fmt: skip
    base = references.baseline(trial) or references.plain(trial)
    if base:
        page["base"] = base.id
        changed = pool.changed(trial, base)
        if changed:
            page["changed"] = changed
        page["samples"] = _samples(study, trial, base)
    if is_structured(trial) and trial.status == "done":
        place = _allocation(study, trial, allocations)
        if place is not None:
            page["allocation"] = place
    return {name: value for name, value in page.items() if value not in (None, {}, [])}


def _curve(points: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    return [[_number(p[0]) for p in points], [_number(p[1]) for p in points]]


def _samples(study: Study, trial: Trial, base: Trial) -> list[list[Any]]:
    """Return some CounterFact prompts whose answers changed."""
    if COUNTERFACT not in trial.answers or COUNTERFACT not in base.answers:
        return []
    found = changed_samples(samples_of(study, trial), samples_of(study, base))
    return [[c.question, c.truth, c.before, c.after, int(c.gained)] for c in found]


def _allocation(study: Study, trial: Trial, known: dict[str, tuple[int, Any]]) -> int | None:
    """Return the place of a trial's allocation among those told; trials of one setting and corpus share it."""
    names = dict.fromkeys((*fields_of(Part.CORPUS | Part.ENTRY_SETS), "memory_dim", "model"))
    key = repr([trial.point.get(name) for name in names if name not in ("alpha", "mode")])
    if key not in known:
        read = read_extra(study.storage, trial, ANALYSIS)
        report = read.get("allocation") if isinstance(read, dict) else None
        if not isinstance(report, dict):
            return None
        entries, load = (np.asarray(report.get(name) or [0]) for name in ("entries", "load"))
        known[key] = len(known), {
            "name": allocation_name(trial), "groups": report.get("groups"), "memory_dim": report.get("memory_dim"),
            "entries": _histogram(entries), "load": _histogram(load), "correlation": _number(report.get("correlation")),
            "expected_correlation": _number(report.get("expected_correlation")),
            "unshared": _number(report.get("unshared")),
        }  # fmt: skip
    return known[key][0]


def _histogram(values: NDArray[Any]) -> dict[str, Any]:
    counts, edges = np.histogram(values, bins=min(16, max(1, int(values.max() - values.min()) + 1)))
    return {
        "mean": _number(float(values.mean())), "least": int(values.min()), "most": int(values.max()),
        "counts": counts.tolist(), "from": _number(float(edges[0])), "to": _number(float(edges[-1])),
    }  # fmt: skip


class _Pool:
    """The questions of all trials, each once, and who answered what."""

    def __init__(self, answers: Mapping[str, Answers]) -> None:
        self._answers = answers
        self.questions: list[list[Any]] = []
        self.groups: list[list[int]] = []
        self.bases: dict[str, str] = {}
        self._places: dict[tuple[str, str, int], int] = {}
        self._known: dict[Questions, int] = {}

    def changed(self, trial: Trial, base: Trial) -> dict[str, Any] | None:
        """Return a trial's answers where they differ from its reference's; None without any."""
        own, other = self._answers.get(trial.id), self._answers.get(base.id)
        given = other.on(own.questions) if own and other else None
        if own is None or given is None or not (own.given != given).any():
            return None
        group = self._group(trial, own.questions)
        key = f"{base.id} {group}"
        if key not in self.bases:
            self.bases[key] = _letters(given)
        letters = _letters(own.given)
        delta = "".join(SAME if now == before else now for now, before in zip(letters, self.bases[key], strict=True))
        return {"group": group, "answers": delta.rstrip(SAME)}

    def _group(self, trial: Trial, questions: Questions) -> int:
        if questions not in self._known:
            words = claim_words(trial.data, questions)
            places = []
            asked = zip(questions.claims, questions.pages, questions.labels, strict=True)
            for claim, page, label in asked:
                key = (claim, page, int(label))
                if key not in self._places:
                    self._places[key] = len(self.questions)
                    text = words.get((claim, page), f"claim {claim}")
                    self.questions.append([text, page.replace("_", " "), LETTERS[label]])
                places.append(self._places[key])
            self._known[questions] = len(self.groups)
            self.groups.append(places)
        return self._known[questions]


def _letters(codes: NDArray[np.int8]) -> str:
    return "".join(NONE if code == UNPARSED else LETTERS[code] for code in codes)


def _keep_within(pages: Sequence[dict[str, Any]], weights: Sequence[float]) -> None:
    """Leave answers out of the page, those of the least telling trials first, where they would make it too large."""
    left = MAX_ANSWERS_BYTES
    for place in sorted(range(len(pages)), key=lambda i: -weights[i]):
        changed = pages[place].get("changed")
        if changed:
            left -= len(zlib.compress(changed["answers"].encode()))
            if left < 0:
                pages[place]["changed"] = TOO_MANY
