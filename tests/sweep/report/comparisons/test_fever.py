"""Comparisons on constructed cases whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import f1_score

from sweep.records.sweep_storage import SweepStorage
from sweep.report.answers import LABELS, Questions, read_answers
from sweep.report.comparisons.fever import (
    Comparison,
    bootstrap_differences,
    compare_all,
    holm,
    mcnemar_p,
    page_sums,
    scores,
    sign_found,
    spread,
)
from sweep.report.references import References
from sweep.report.study import load_study


def questions(pages: int, per_page: int, rows: int = 1) -> Questions:
    """Ask claims that are all supported."""
    count = pages * per_page
    return Questions(
        claims=tuple(f"c{i}" for i in range(count)),
        pages=tuple(f"p{i // per_page}" for i in range(count)),
        labels=np.zeros(count, dtype=np.int8),
        rows=np.full(count, rows, dtype=np.int64),
    )


def compare(fake, **trials):
    """Record a pretrained trial and others; return the comparisons by name."""
    ids = {}
    for index, (name, parsed) in enumerate(trials.items()):
        method = {"method": "pretrained"} if name == "base" else {"depth": 0.5, "lr": 0.001 * (index + 1)}
        ids[fake.add("s", "all", num_documents=10, parsed=parsed, **method)] = name
    study = load_study(SweepStorage(str(fake.root)))
    answers = read_answers(study.storage, study.trials)
    found = compare_all(study.trials, References(study.trials, answers).baseline, answers)
    return {ids[c.trial.id]: c for c in found}


def right_answers(fake, upto: int) -> list[str]:
    """Answer the first `upto` of 50 claims rightly and the others wrongly."""
    labels = np.random.default_rng(1).integers(0, 3, 50)
    return ["abc"[label] if i < upto else "abc"[(label + 1) % 3] for i, label in enumerate(labels)]


def test_mcnemar_is_the_binomial_test_on_discordant_pairs():
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(10, 0) == pytest.approx(2 * 0.5**10)
    assert mcnemar_p(9, 3) == pytest.approx(2 * binom.cdf(3, 12, 0.5))
    assert mcnemar_p(3, 9) == mcnemar_p(9, 3)


def test_scores_equal_scikit_learn_weighted_by_rows():
    rng = np.random.default_rng(3)
    asked = questions(7, 6)
    asked = Questions(asked.claims, asked.pages, rng.integers(0, 3, 42).astype(np.int8), rng.integers(1, 5, 42))
    given = rng.integers(-1, 3, (2, 42)).astype(np.int8)
    accuracy, f1 = scores(page_sums(asked, given).sum(axis=0))
    for k in range(2):
        right = given[k] == asked.labels
        assert accuracy[k] == pytest.approx((right * asked.rows).sum() / asked.rows.sum())
        expected = f1_score(
            asked.labels,
            given[k],
            labels=[0, 1, 2],
            average="macro",
            sample_weight=asked.rows,
            zero_division=0,
        )
        assert f1[k] == pytest.approx(expected)


def test_interval_of_identical_answers_is_zero():
    asked = questions(8, 3)
    given = np.zeros((2, 24), dtype=np.int8)
    low, high = bootstrap_differences(page_sums(asked, given))
    assert np.all(low == 0) and np.all(high == 0)


def test_interval_of_a_gain_that_is_the_same_on_every_page_has_no_width():
    asked = questions(8, 4)
    given = np.zeros((2, 32), dtype=np.int8)
    given[0, ::4] = 1
    low, high = bootstrap_differences(page_sums(asked, given))
    assert low[0, 0] == pytest.approx(0.25) and high[0, 0] == pytest.approx(0.25)


def test_interval_is_as_wide_as_the_normal_theory_of_page_means_says():
    rng = np.random.default_rng(0)
    pages, per_page = 400, 5
    asked = questions(pages, per_page)
    gains = rng.integers(0, per_page + 1, pages)
    given = np.ones((2, pages * per_page), dtype=np.int8)
    for page, gain in enumerate(gains):
        given[1, page * per_page : page * per_page + gain] = 0
    low, high = bootstrap_differences(page_sums(asked, given), 4000)
    expected = 1.96 * np.std(gains / per_page, ddof=1) / math.sqrt(pages)
    assert (high[0, 0] - low[0, 0]) / 2 == pytest.approx(expected, rel=0.06)


def test_claims_of_one_page_count_as_one_draw():
    """The same answers spread over many pages give a narrower interval than when they cluster."""
    given = np.zeros((2, 100), dtype=np.int8)
    given[0, :50] = 1
    clustered = np.ptp(np.array(bootstrap_differences(page_sums(questions(10, 10), given)))[:, 0, 0])
    spread_out = np.ptp(np.array(bootstrap_differences(page_sums(questions(100, 1), given)))[:, 0, 0])
    assert clustered > 2 * spread_out


def test_many_members_give_the_intervals_that_each_gives_alone():
    rng = np.random.default_rng(5)
    sums = page_sums(questions(30, 4), rng.integers(0, 3, (4, 120)).astype(np.int8))
    together = bootstrap_differences(sums)
    for k in (1, 2, 3):
        alone = bootstrap_differences(sums[:, [0, k]])
        assert np.allclose(alone[0][:, 0], together[0][:, k - 1])
        assert np.allclose(alone[1][:, 0], together[1][:, k - 1])


def test_verdicts_of_a_better_a_worse_and_an_equal_trial(fake):
    found = compare(
        fake, base=right_answers(fake, 25), better=right_answers(fake, 45),
        worse=right_answers(fake, 5), same=right_answers(fake, 25),
    )  # fmt: skip
    assert found["better"].verdict == "better"
    assert (found["better"].gained, found["better"].lost) == (20, 0)
    assert found["better"].p == pytest.approx(2 * 0.5**20)
    assert found["worse"].verdict == "worse"
    assert found["same"].verdict == "no difference found"
    assert found["same"].accuracy_difference == 0 and found["same"].p == 1


def test_a_small_gain_is_no_difference_found(fake):
    found = compare(fake, base=right_answers(fake, 25), slightly=right_answers(fake, 27))
    assert found["slightly"].gained == 2
    assert found["slightly"].verdict == "no difference found"


def test_accuracy_weighs_rows_while_mcnemar_counts_distinct_claims():
    """One claim on two pages is one pair; three annotations of a claim are three rows."""
    asked = Questions(
        claims=("c0", "c0", "c1"), pages=("p0", "p1", "p1"),
        labels=np.zeros(3, dtype=np.int8), rows=np.array([1, 1, 3]),
    )  # fmt: skip
    assert asked.first_of_claim.tolist() == [True, False, True]
    accuracy, _ = scores(page_sums(asked, np.array([[0, 1, 1]], dtype=np.int8)).sum(axis=0))
    assert accuracy[0] == pytest.approx(1 / 5)


def test_few_pages_never_claim_a_difference(fake):
    fake.claims_per_page = 100
    labels = np.random.default_rng(1).integers(0, 3, 200)
    right = ["abc"[label] for label in labels]
    fake.add("s", "all", num_documents=2, method="pretrained", parsed=[None] * 200)
    fake.add("s", "all", num_documents=2, depth=0.5, parsed=right)
    study = load_study(SweepStorage(str(fake.root)))
    answers = read_answers(study.storage, study.trials)
    (only,) = compare_all(study.trials, References(study.trials, answers).baseline, answers)
    assert only.p_holm < 1e-6
    assert only.verdict == "no difference found (fewer than 6 pages)"


def test_holm_multiplies_as_the_textbook_says():
    made = [comparison(p) for p in (0.01, 0.04, 0.03)]
    assert [c.p_holm for c in holm(made)] == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def comparison(p: float) -> Comparison:
    nothing = (0.0, 0.0)
    return Comparison(None, None, 9, 9, 9, 0, 0, 0, nothing, 0, nothing, 0, 0, p, 0, 1.0)  # type: ignore[arg-type]


def test_a_baseline_that_asked_more_claims_stands_in(fake):
    fake.add("s", "all", num_documents=20, method="pretrained", accuracy=0.4)
    fake.add("s", "all", num_documents=10, depth=0.5, accuracy=0.9, answer_seed=1)
    study = load_study(SweepStorage(str(fake.root)))
    answers = read_answers(study.storage, study.trials)
    small = next(t for t in study.trials if t.get("method") == "memory")
    # made-up claims of the first pages differ between the two sizes in label, so take the same questions
    assert answers[small.id].questions.claims == tuple(f"c{i}" for i in range(50))
    assert References(study.trials, answers).baseline(small) is not None
    assert References(study.trials, {}).baseline(small) is None


@pytest.mark.parametrize("field", [{"num_shots": 2}, {"seed": 1}, {"model": "sample-neox"}])
def test_a_baseline_with_other_prompts_or_model_does_not_count(fake, field):
    fake.add("s", "all", num_documents=10, method="pretrained", **field)
    fake.add("s", "all", num_documents=10, depth=0.5)
    study = load_study(SweepStorage(str(fake.root)))
    answers = read_answers(study.storage, study.trials)
    references = References(study.trials, answers)
    assert all(references.baseline(trial) is None for trial in study.trials)


def test_spread_over_seeds_is_the_t_interval():
    over = spread([0.4, 0.5, 0.6])
    assert (over.mean, over.sd, over.runs) == (pytest.approx(0.5), pytest.approx(0.1), 3)
    assert over.high - over.mean == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-5)
    assert math.isnan(spread([0.4]).low)
    assert spread([0.4, 0.4]).low == 0.4


def test_labels_are_those_of_the_data():
    from trainables.data.documents import LABELS as theirs

    assert theirs == LABELS


@pytest.mark.parametrize(
    ("interval", "p_holm", "sign"),
    [
        ((0.1, 0.2), 0.01, 1),
        ((-0.2, -0.1), 0.01, -1),
        ((0.1, 0.2), 0.2, 0),
        ((-0.1, 0.2), 0.01, 0),
        ((0.0, 0.2), 0.01, 0),
    ],
)
def test_a_difference_is_found_where_interval_and_p_agree(interval, p_holm, sign):
    assert sign_found(interval, p_holm) == sign
