from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data.documents import LABELS, LETTERS
from trainables.probes.fever.metrics import fever_metrics
from trainables.probes.fever.questions import FeverAnswer

ANSWERS = st.lists(
    st.builds(
        FeverAnswer,
        claim_id=st.just("1"),
        page=st.just("Tetris"),
        label=st.sampled_from(LABELS),
        rows=st.integers(1, 5),
        text=st.just(""),
        letter=st.sampled_from(["a", "b", "c", None]),
    ),
    min_size=1,
    max_size=30,
)


def answer(label: str, letter: str | None, rows: int = 1) -> FeverAnswer:
    return FeverAnswer("1", "Tetris", label, rows, "", letter)


def f1(answers: list[FeverAnswer], label: str, letter: str) -> float:
    """F1 of one label by its definition."""
    true_positive = sum(a.rows for a in answers if a.label == label and a.letter == letter)
    given_or_wanted = sum(a.rows for a in answers if a.label == label) + sum(
        a.rows for a in answers if a.letter == letter
    )
    return 2 * true_positive / given_or_wanted if given_or_wanted else 0.0


@settings(deadline=None, max_examples=40)
@given(ANSWERS)
def test_scores_follow_their_definitions(answers: list[FeverAnswer]) -> None:
    metrics = fever_metrics(answers)
    rows = sum(a.rows for a in answers)
    by_label = [f1(answers, label, letter) for label, letter in zip(LABELS, "abc", strict=True)]
    assert [metrics[name] for name in ("f1_supports", "f1_refutes", "f1_nei")] == pytest.approx(by_label)
    assert metrics["f1_macro"] == pytest.approx(sum(by_label) / 3)
    assert metrics["accuracy"] == pytest.approx(sum(a.rows for a in answers if a.correct) / rows)
    assert metrics["unparsed"] == pytest.approx(sum(a.rows for a in answers if a.letter is None) / rows)


@settings(deadline=None, max_examples=40)
@given(ANSWERS)
def test_micro_f1_equals_accuracy_as_in_the_notes(answers: list[FeverAnswer]) -> None:
    metrics = fever_metrics(answers)
    assert metrics["f1_micro"] == pytest.approx(metrics["accuracy"])


@settings(deadline=None, max_examples=40)
@given(ANSWERS)
def test_rows_weigh_like_repeated_answers(answers: list[FeverAnswer]) -> None:
    repeated = [answer(a.label, a.letter) for a in answers for _ in range(a.rows)]
    assert fever_metrics(answers) == pytest.approx(fever_metrics(repeated))


def test_one_letter_for_all_gives_the_notes_pair_of_accuracy_and_macro() -> None:
    """Note 000: pythia 12b, 1-shot, accuracy .366 and macro F1 .197."""
    truth = ["SUPPORTS"] * 366 + ["REFUTES"] * 634
    metrics = fever_metrics([answer(label, "a") for label in truth])
    assert metrics["accuracy"] == pytest.approx(0.366)
    assert 0.178 < metrics["f1_macro"] < 0.197


def test_all_unparsed_is_all_wrong() -> None:
    metrics = fever_metrics([answer(label, None) for label in LABELS])
    assert metrics == {**dict.fromkeys(metrics, 0.0), "unparsed": 1.0}


def test_no_answers_have_no_metrics() -> None:
    assert fever_metrics([]) == {}


@settings(deadline=None, max_examples=40)
@given(ANSWERS)
def test_scores_are_those_of_scikit_learn_to_the_last_bit(answers: list[FeverAnswer]) -> None:
    from sklearn.metrics import f1_score

    names = {letter: label for label, letter in LETTERS.items()}
    truth, given_labels = [a.label for a in answers], [names[a.letter] if a.letter else "none" for a in answers]
    told = {"sample_weight": [a.rows for a in answers], "zero_division": 0}
    by_label = f1_score(truth, given_labels, labels=list(LABELS), average=None, **told)
    metrics = fever_metrics(answers)
    assert [metrics[name] for name in ("f1_supports", "f1_refutes", "f1_nei")] == by_label.tolist()
    assert metrics["f1_macro"] == by_label.mean()
    assert metrics["f1_micro"] == f1_score(truth, given_labels, average="micro", **told)
