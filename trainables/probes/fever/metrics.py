"""Accuracy and F1 of FEVER answers, as the notes compute them."""

from __future__ import annotations

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
    from sklearn.metrics import f1_score

    label_of = {letter: label for label, letter in LETTERS.items()}
    truth = [answer.label for answer in answers]
    predicted = [label_of[answer.letter] if answer.letter else UNPARSED for answer in answers]
    weights = [answer.rows for answer in answers]
    total = sum(weights)
    by_label = f1_score(truth, predicted, labels=list(LABELS), average=None, sample_weight=weights, zero_division=0)
    micro = f1_score(truth, predicted, average="micro", sample_weight=weights, zero_division=0)
    metrics = {
        "accuracy": sum(answer.rows for answer in answers if answer.correct) / total,
        "f1_micro": float(micro),
        "f1_macro": float(by_label.mean()),
    }
    metrics |= {_NAMES[label]: float(score) for label, score in zip(LABELS, by_label, strict=True)}
    metrics["unparsed"] = sum(answer.rows for answer in answers if answer.letter is None) / total
    return metrics
