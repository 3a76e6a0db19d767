"""Answers that differ from a reference's: a few in words for a trial's page in MLflow, all of them as a table.

Answers are kept with the words of their claims; in files of earlier formats without. The words are then read from the
data, where it lies on this machine and holds just the claims that were asked; else a claim is named by number and page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sweep.report.answers import LABELS, UNPARSED, Answers, Questions
from sweep.report.study import Trial
from sweep.report.table import to_csv
from sweep.tracking.run_content import ChangedAnswer
from trainables.errors import ConfigError, DataError

SHOWN = 3
"""Answers of each kind, newly right and newly wrong, in a description."""
TEXT_CHARS = 160
Words = Mapping[tuple[str, str], str]


def changed_answers(trial: Trial, own: Answers, base: Answers) -> tuple[ChangedAnswer, ...]:
    """Return claims that a trial has right and its reference wrong, and the other way round, `SHOWN` of each."""
    given = base.on(own.questions)
    if given is None:
        return ()
    questions, words = own.questions, claim_words(trial.data, own.questions)
    right, before = own.given == questions.labels, given == questions.labels
    found = []
    for gained, which in ((True, right & ~before), (False, before & ~right)):
        for i in np.flatnonzero(which & questions.first_of_claim)[:SHOWN]:
            truth, answered, now = (_label(codes[i]) for codes in (questions.labels, given, own.given))
            found.append(ChangedAnswer(_claim(questions, words, i), truth, answered, now, gained))
    return tuple(found)


def all_changed(trial: Trial, own: Answers, base: Answers) -> bytes:
    """Return every answer that differs from the reference's as CSV, one line per claim and page; empty without any."""
    given = base.on(own.questions)
    if given is None:
        return b""
    questions, words = own.questions, claim_words(trial.data, own.questions)
    rows = [
        {
            "claim_id": questions.claims[i],
            "page": questions.pages[i],
            "claim": words.get((questions.claims[i], questions.pages[i]), ""),
            "truth": _label(questions.labels[i]),
            "reference": _label(given[i]),
            "trial": _label(own.given[i]),
            "change": _change(own.given[i], given[i], questions.labels[i]),
        }
        for i in np.flatnonzero(own.given != given)
    ]
    rows.sort(key=lambda row: row["change"])
    return to_csv(rows).encode() if rows else b""


@cache
def claim_words(data: str, questions: Questions) -> Words:
    """Return the words of the claims asked, by id and page.

    Where they were not kept with the answers they are read from the data; none where it is not here or asks something
    else.
    """
    if questions.texts:
        return dict(zip(zip(questions.claims, questions.pages, strict=True), questions.texts, strict=True))
    from trainables.data.fever import group_by_page, read_rows

    try:
        table = _validation_claims(data)
        claims = group_by_page(read_rows(table)).pages if table else {}
    except (ConfigError, DataError, OSError):
        return {}  # moved or changed since it was asked: a claim is named by its number
    words: dict[tuple[str, str], str] = {}
    asked = zip(questions.claims, questions.pages, questions.labels, questions.rows, strict=True)
    for claim_id, page, label, rows in asked:
        same = next((claim for claim in claims.get(page, ()) if claim.id == claim_id), None)
        if same is None or same.label != LABELS[label] or same.rows != rows:
            return {}
        words[claim_id, page] = same.text
    return words


def _validation_claims(data: str) -> Path | None:
    """Return the table of the claims asked, where all sources lie on this machine: nothing is downloaded for it."""
    from trainables.data.obtain import is_ready
    from trainables.data.sources import OFFICIAL_NAMES, is_named, resolve_sources

    for name in data.split(","):
        if name in OFFICIAL_NAMES:
            if not is_ready(name):
                return None
        elif is_named(name) and name != "sample":
            return None
    return next((source.valid for source in resolve_sources(data) if source.valid), None)


def _claim(questions: Questions, words: Words, i: int) -> str:
    claim, page = questions.claims[i], questions.pages[i]
    text = words.get((claim, page), f"claim {claim} about {page}")
    return text if len(text) <= TEXT_CHARS else f"{text[: TEXT_CHARS - 1]}…"


def _label(code: NDArray[np.int8] | int) -> str:
    return "no answer" if code == UNPARSED else LABELS[int(code)].lower()


def _change(own: int, base: int, label: int) -> str:
    if own == label:
        return "newly right"
    return "newly wrong" if base == label else "wrong in another way"


def changed_samples(
    own: Sequence[Mapping[str, object]], base: Sequence[Mapping[str, object]]
) -> tuple[ChangedAnswer, ...]:
    """Return CounterFact prompts whose answers begin with the true target more or less often than the reference's.

    Args:
        own: records with prompt, targets and answers, as `samples_of` gives them.
        base: those of the reference.
    """
    from trainables.probes.counterfact.targets import sample_scores

    def keyed(samples: Sequence[Mapping[str, object]]) -> dict[tuple[object, ...], Mapping[str, object]]:
        return {tuple(s.get(name) for name in ("case_id", "prompt", "target_true", "target_new")): s for s in samples}

    others = keyed(base)
    found: dict[bool, list[ChangedAnswer]] = {True: [], False: []}
    for key, sample in keyed(own).items():
        rates = [sample_scores(each).get("true_rate") for each in (sample, others.get(key)) if each]
        if len(rates) < 2 or rates[0] is None or rates[1] is None or rates[0] == rates[1]:
            continue
        gained = rates[0] > rates[1]
        if len(found[gained]) < SHOWN:
            question, truth = str(sample["prompt"]), str(sample["target_true"])
            found[gained].append(ChangedAnswer(question, truth, _first(others[key]), _first(sample), gained))
    return (*found[True], *found[False])


def _first(sample: Mapping[str, object]) -> str:
    answers = sample.get("answers")
    text = " ".join(str(answers[0]).split()) if isinstance(answers, list) and answers else ""
    return text[:TEXT_CHARS]
