"""Accuracy and F1 of FEVER answers, as the notes compute them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainables.data.documents import LABELS, LETTERS
from trainables.probes.fever.questions import FeverAnswer

UNPARSED = "unparsed"
_NAMES = {"SUPPORTS": "f1_supports", "REFUTES": "f1_refutes", "NOT ENOUGH INFO": "f1_nei"}


def fever_metrics(answers: Sequence[FeverAnswer]) -> dict[str, float]:
    """Summarise one member's answers; every claim weighs as many rows as it has evidence annotations.

    An unparsed answer is wrong: it is predicted as a fourth class. Macro F1 averages the three labels,
    whether or not they occur (which makes the accuracy and macro pairs of note 000 consistent); micro F1
    counts the fourth class too, so it equals the accuracy, as in the notes.

    Returns:
        `accuracy`, `f1_micro`, `f1_macro`, `f1_supports`, `f1_refutes`, `f1_nei` and `unparsed` (a
        share), all between 0 and 1; empty without answers.
    """
    if not answers:
        return {}
    label_of = {letter: label for label, letter in LETTERS.items()}
    hits, chosen, actual = Counter[str](), Counter[str](), Counter[str]()
    for answer in answers:
        predicted = label_of[answer.letter] if answer.letter else UNPARSED
        hits[answer.label] += answer.rows * (predicted == answer.label)
        chosen[predicted] += answer.rows
        actual[answer.label] += answer.rows
    by_label = [_f1(hits[label], chosen[label], actual[label]) for label in LABELS]
    total = actual.total()
    metrics = {
        "accuracy": sum(answer.rows for answer in answers if answer.correct) / total,
        "f1_micro": _f1(hits.total(), total, total),
        "f1_macro": sum(by_label) / len(by_label),
    }
    metrics |= {_NAMES[label]: score for label, score in zip(LABELS, by_label, strict=True)}
    metrics["unparsed"] = chosen[UNPARSED] / total
    return metrics


def _f1(hits: int, chosen: int, actual: int) -> float:
    """Return the harmonic mean of precision and recall; 0 where a label neither occurs nor is given.

    scikit-learn's `f1_score` gives the same to the last bit, after an import that takes a worker 0.5 s.
    """
    return 2 * hits / (chosen + actual) if chosen + actual else 0.0
