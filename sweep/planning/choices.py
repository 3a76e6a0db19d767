"""Which value an earlier stage decides on, from records: pure logic, no files.

A `ChoiceQuestion` is asked for every group of a stage that takes something from an earlier one ("the layer of
pythia-6.9b"). Its answer is a plain dict, a *choice*, kept in the sweep's `choices.json` under the question's
key and never silently changed. A candidate that failed for a reason that is its own (its data, its settings, its size)
loses; while one lacks a result for any other reason, nothing is decided.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from sweep.planning.points import Point
from sweep.space import Best
from trainables.errors import OWN_KINDS, SweepError
from trainables.trial.identity import STATED_DEFAULTS, digest
from trainables.trial.parts import REPEATED

FIRST_FIELDS = (
    "revision", "dtype", "detokenize", "method", "content", "template_loss", "num_documents", "page_order",
    "num_clusters", "segment_tokens", "max_segments", "layer", "depth", "memory_dim", "norm_and_gate", "mode",
    "allocation", "granularity", "entries_per_group", "mem_seed", "alpha", "epochs", "batch_size", "lr",
    "weight_decay", "warmup_steps", "grad_clip", "seed", "num_shots", "notes_labels", "claims_per_page",
    "eval_epochs", "probes", "counterfact_records", "num_answers", "answer_tokens", "temperature",
)  # fmt: skip
"""The fields when choices were first kept. A key states them all, and of a later field only a value that is not its
default, so that a key stays what it was."""
BFLOAT16_NLL_NOISE = 1.3e-3
"""How far a memorisation error is off at most in bfloat16, in nats per token, against float32 on the same points."""
LOWER_IS_BETTER = ("nll", "nll_per_byte", "nll_before", "loss", "unparsed", "leakage")


class NoCandidate(SweepError):
    """All candidates of a question failed or diverged: the stages that ask it cannot go on for its group."""

    kind = "choice"


class Undecided(SweepError):
    """A candidate failed for a reason that is not its own: a result of it might decide otherwise."""

    kind = "choice"


Choices = Mapping[str, Mapping[str, Any]]
"""Choices by the keys of their questions."""


@dataclass(frozen=True)
class ChoiceQuestion:
    """What is asked for one group of trials.

    Attributes:
        key: the same for the same question, whatever candidates are tried.
        best: what is taken, from which stage, by which metric.
        group: values of the axes that tell groups apart, as the user named them.
        candidates: trials of the earlier stage that compete: one for each value and, where it repeats them, each seed.
    """

    key: str
    best: Best
    group: Mapping[str, Any]
    candidates: tuple[Point, ...]

    @property
    def values(self) -> tuple[Any, ...]:
        """The candidates' different values of the field, in their order."""
        return tuple(self.by_value)

    @property
    def by_value(self) -> dict[Any, list[Point]]:
        """The candidates of each value of the field."""
        found: dict[Any, list[Point]] = {}
        for point in self.candidates:
            found.setdefault(getattr(point.spec, self.best.field), []).append(point)
        return found

    def __str__(self) -> str:
        """For people: `layer for model=pythia-6.9b`."""
        return f"{self.best.field} for " + ", ".join(f"{name}={value}" for name, value in self.group.items())


def make_question(best: Best, group: Mapping[str, Any], candidates: tuple[Point, ...]) -> ChoiceQuestion:
    """State a question; its key is a hash of what its candidates share, their seeds, and how they are judged."""
    stated = candidates[0].identity
    later = STATED_DEFAULTS.keys() - set(FIRST_FIELDS)
    new = {name for name in later if stated.get(name) == STATED_DEFAULTS[name]}
    common = {name: value for name, value in stated.items() if name != best.field and name not in new}
    for name in REPEATED:
        if name != best.field and len(seeds := {point.identity[name] for point in candidates}) > 1:
            common[name] = sorted(seeds)
    key = digest({"field": best.field, "by": best.by, "mode": best.mode, "common": common})
    return ChoiceQuestion(key, best, dict(group), candidates)


def metric_mode(metric: str) -> Literal["min", "max"]:
    """Say whether less (`min`) or more (`max`) of a metric is better, by its name."""
    name = metric.rpartition("/")[2]
    return "min" if name in LOWER_IS_BETTER or name.startswith("leakage_") else "max"


def decide(
    question: ChoiceQuestion, records: Mapping[str, Mapping[str, Any]], decided_at: str
) -> dict[str, Any] | None:
    """Answer a question from the candidates' records.

    The best finite metric wins, ties go to the lower value. Of a value that was tried with several seeds the mean
    counts. A candidate that failed, diverged or lacks the metric is left out, by name, and its value with it: a mean
    over fewer seeds is no match for the others'.

    Args:
        question: what is asked.
        records: by trial id; `status` and `metrics` are read.
        decided_at: the moment, for the choice.

    Returns:
        The choice: `key`, `stage`, `group`, `field`, `value`, `by`, `mode`, `metric`, `runners_up` (best
        first) and `left_out` (both lists of dicts), `candidates` (ids), `decided_at`, and `tied`, the values of
        runners-up that are closer than the numbers are exact; with several seeds also `metrics` and `ids` beside each
        `metric`. None while a candidate has no record.

    Raises:
        NoCandidate: all have one, and none can win.
        Undecided: one has failed for a reason that is not its own.
    """
    if any(point.id not in records for point in question.candidates):
        return None
    best = question.best
    _check_decidable(question, records)
    ranked, left_out = [], []
    for value, points in question.by_value.items():
        reasons = {point.id: reason for point in points if (reason := _unusable(records[point.id], best.by))}
        left_out += [{"value": value, "reason": reason, "id": trial} for trial, reason in reasons.items()]
        if not reasons:
            metrics = [float(records[point.id]["metrics"][best.by]) for point in points]
            entry: dict[str, Any] = {"value": value, "metric": fmean(metrics), "id": points[0].id}
            several = {"metrics": metrics, "ids": [point.id for point in points]} if len(points) > 1 else {}
            ranked.append(entry | several)
    if not ranked:
        told = ", ".join(f"{entry['value']}: {entry['reason']}" for entry in left_out)
        again = (
            "; --retry-failed runs failed ones again" if any(e["reason"].startswith("failed") for e in left_out) else ""
        )
        count = len(question.candidates)
        raise NoCandidate(f"{question}: none of {count} trials of {best.stage} can win ({told}){again}")
    sign = 1 if best.mode == "min" else -1
    ranked.sort(key=lambda entry: (sign * entry["metric"], entry["value"]))
    return {
        "key": question.key,
        "stage": best.stage,
        "group": dict(question.group),
        "field": best.field,
        "value": ranked[0]["value"],
        "by": best.by,
        "mode": best.mode,
        "metric": ranked[0]["metric"],
        **{name: ranked[0][name] for name in ("metrics", "ids") if name in ranked[0]},
        "runners_up": ranked[1:],
        "tied": tied(best.by, question.candidates[0].spec.dtype, ranked[0]["metric"], ranked[1:]),
        "left_out": left_out,
        "candidates": [point.id for point in question.candidates],
        "decided_at": decided_at,
    }


def _check_decidable(question: ChoiceQuestion, records: Mapping[str, Mapping[str, Any]]) -> None:
    waiting = []
    for value, points in question.by_value.items():
        for record in (records[point.id] for point in points):
            error = record.get("error") or {}
            if record["status"] == "failed" and error.get("class", "data") not in OWN_KINDS:
                waiting.append(f"{value}: {_reason(record)}")
    if waiting:
        raise Undecided(
            f"{question}: not decided while candidates of {question.best.stage} lack a result ({', '.join(waiting)}); "
            f"--retry-failed runs them again, --set {question.best.field}=... leaves them out"
        )


def _unusable(record: Mapping[str, Any], metric: str) -> str:
    """Return why a record cannot decide; empty where it can."""
    if record["status"] != "done":
        return _reason(record)
    value = record.get("metrics", {}).get(metric)
    return "" if value is not None and math.isfinite(value) else f"no {metric}"


def _reason(record: Mapping[str, Any]) -> str:
    """Return the status of a trial that cannot win, and of a failed one why."""
    error = record.get("error") or {}
    if record["status"] != "failed" or not error:
        return str(record["status"])
    return f"failed ({error.get('class')}: {' '.join(str(error.get('message')).split())[:160]})"


def awaits_retry(question: ChoiceQuestion, recorded: Mapping[str, Any], done: Collection[str]) -> bool:
    """Say whether a candidate that a recorded choice left out as failed or stopped is being run again."""
    candidates = {point.id for point in question.candidates}
    return any(out["id"] in candidates and out["id"] not in done for out in _failed(recorded))


def _failed(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the candidates that a choice was made without though they may have a result yet."""
    return [out for out in choice.get("left_out") or () if str(out.get("reason")).startswith(("failed", "stopped"))]


def tied(by: str, dtype: str, metric: float, runners_up: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the values of runners-up that are within the noise of the winner; the lower error still wins.

    Args:
        by: the metric that decides.
        dtype: of the frozen model's numbers.
        metric: the winner's.
        runners_up: `value` and `metric` of the others.
    """
    if dtype != "bfloat16" or by not in ("memory/nll", "train/nll"):
        return []
    return [other["value"] for other in runners_up if abs(other["metric"] - metric) < BFLOAT16_NLL_NOISE]


def tie_text(values: Sequence[Any]) -> str:
    """Say that a choice is a tie; empty where it is none."""
    if not values:
        return ""
    named = ", ".join(map(str, values))
    return f"a tie with {named}: closer than the {BFLOAT16_NLL_NOISE:g} that bfloat16 may be off"


def settled(question: ChoiceQuestion, choices: Mapping[str, Mapping[str, Any]]) -> Any | None:
    """Return the value that is recorded for a question, if it is among the candidates now asked for."""
    choice = choices.get(question.key)
    return choice["value"] if choice is not None and choice["value"] in question.values else None


def _ranked(choice: Mapping[str, Any]) -> set[str]:
    """Return the candidates that had a result."""
    return set(choice["candidates"]) - {out["id"] for out in choice["left_out"]}


def reopened(recorded: Mapping[str, Any], fresh: Mapping[str, Any]) -> bool:
    """Say whether a candidate that the recorded choice left out as failed or stopped has a result in the fresh one."""
    return any(out["id"] in _ranked(fresh) for out in _failed(recorded))


def reconcile(
    question: ChoiceQuestion, recorded: Mapping[str, Any] | None, fresh: dict[str, Any]
) -> tuple[dict[str, Any], str | None]:
    """Say which choice to use when a question is answered again.

    A recorded choice stays, whatever the records say by now, with two exceptions. Its value is not among the candidates
    any more (`--set layer=...`): then the fresh one is used for this run, and the recorded one is kept on file. A
    candidate that it left out as failed or stopped has a result now: then the fresh one takes its place, and holds it
    as `before`.

    Returns:
        The choice to use, and a warning where the two differ.
    """
    if recorded is None:
        return fresh, None
    if reopened(recorded, fresh):
        new = {**fresh, "before": dict(recorded)}
        back = ", ".join(str(out["value"]) for out in _failed(recorded) if out["id"] in _ranked(fresh))
        was = f"{recorded['value']} ({recorded['by']} {recorded['metric']:.4g})"
        return new, f"{question}: decided anew, {back} had no result and has one now; it was {was}"
    if recorded["value"] == fresh["value"]:
        return dict(recorded), None
    was = f"{recorded['value']} ({recorded['by']} {recorded['metric']:.4g}, {recorded.get('decided_at', 'once')})"
    now = f"{fresh['value']} ({fresh['metric']:.4g})"
    if recorded["value"] not in question.values:
        return fresh, f"{question}: {now} in this run; the recorded choice {was} is not among its candidates"
    return dict(recorded), (
        f"{question}: stays {was}; from all records of now it would be {now}; "
        "use another --name to let it be chosen anew"
    )


def chosen_line(choice: Mapping[str, Any]) -> str:
    """Return for people what was chosen, by what, what came next, and which candidates failed or were stopped."""
    following = "".join(f", next {c['value']} ({c['metric']:.4f})" for c in choice["runners_up"][:1])
    failed = "".join(f"; left out: {out['value']}, {out['reason']}" for out in _failed(choice))
    tie = f"; {text}" if (text := tie_text(choice.get("tied", ()))) else ""
    return f"{choice['value']} ({choice['by']} {choice['metric']:.4f}{following}{tie}){failed}"
