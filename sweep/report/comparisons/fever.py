"""Paired comparison of trials with what they are measured against.

Two units are kept apart. Accuracy and macro F1 are weighted by *rows* (evidence annotations), as the study's notes
count them, and their intervals come from a bootstrap that draws whole *pages*, because claims of one page
share their few-shot examples and their document. McNemar's test counts distinct *claims*, each once.

The bootstrap is `scipy.stats.bootstrap` (percentile intervals) over pages. Accuracy and F1 are functions of
sums over pages, so a resample is a vector of page counts, and all trials that share their questions are
resampled in one matrix product. The exact McNemar test and Holm's correction are statsmodels'.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sweep.report.answers import UNPARSED, Answers, Questions
from sweep.report.study import Trial

RESAMPLES = 2000
LEVEL = 0.95
MIN_PAGES = 6
"""With fewer pages not even a gain on every page is evidence: 2 * 0.5**5 > 0.05 (sign test)."""
BATCH_CELLS = 1_000_000
MAX_TRIALS = 64

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """One trial against its reference, on the trial's questions.

    Attributes:
        trial: the trial.
        reference: what it is compared with.
        pages: evidence pages.
        claims: distinct claims.
        rows: evidence annotations.
        accuracy, f1_macro: of the trial.
        accuracy_difference, f1_difference: trial minus reference.
        accuracy_interval, f1_interval: 95 % intervals of the differences.
        gained, lost: distinct claims that only the trial, or only the reference, has right.
        p: exact McNemar, two-sided.
        commonest: the answer that the trial gives most often, 0 to 2 for a to c, `UNPARSED` for none.
        commonest_share: its share of the rows.
        p_holm: the same after Holm's correction within the table.
    """

    trial: Trial
    reference: Trial
    pages: int
    claims: int
    rows: int
    accuracy: float
    f1_macro: float
    accuracy_difference: float
    accuracy_interval: tuple[float, float]
    f1_difference: float
    f1_interval: tuple[float, float]
    gained: int
    lost: int
    p: float
    commonest: int
    commonest_share: float
    p_holm: float = math.nan

    @property
    def verdict(self) -> str:
        """`better` or `worse` where interval and corrected p agree, else `no difference found`."""
        low, high = self.accuracy_interval
        if self.pages < MIN_PAGES:
            return f"no difference found (fewer than {MIN_PAGES} pages)"
        if self.p_holm < 1 - LEVEL:
            if low > 0 and self.gained > self.lost:
                return "better"
            if high < 0 and self.gained < self.lost:
                return "worse"
        return "no difference found"


def compare_all(
    trials: Sequence[Trial],
    reference_of: Callable[[Trial], Trial | None],
    answers: dict[str, Answers],
    *,
    resamples: int = RESAMPLES,
) -> list[Comparison]:
    """Compare every trial that has a reference and predictions; `p_holm` is corrected over all of them."""
    groups: dict[tuple[str, Questions], list[tuple[Trial, Trial]]] = {}
    for trial in trials:
        reference = reference_of(trial)
        if reference is not None and trial.id in answers and reference.id in answers:
            groups.setdefault((reference.id, answers[trial.id].questions), []).append((trial, reference))
    found: list[Comparison] = []
    for (reference_id, questions), pairs in groups.items():
        base = answers[reference_id].on(questions)
        for start in range(0, len(pairs), MAX_TRIALS) if base is not None else ():
            part = pairs[start : start + MAX_TRIALS]
            assert base is not None
            found += _compare(part, questions, base, answers, resamples)
    order = {trial.id: i for i, trial in enumerate(trials)}
    return holm(sorted(found, key=lambda c: order[c.trial.id]))


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Fill in `p_holm`: Holm's correction over all comparisons given."""
    corrected = holm_corrected([c.p for c in comparisons])
    return [replace(c, p_holm=p) for c, p in zip(comparisons, corrected, strict=True)]


def sign_found(interval: tuple[float, float], p_holm: float) -> int:
    """Return the sign of a difference that is found: interval without 0, corrected p below `1 - LEVEL`; else 0."""
    low, high = interval
    if p_holm >= 1 - LEVEL:
        return 0
    return 1 if low > 0 else -1 if high < 0 else 0


def holm_corrected(values: Sequence[float]) -> list[float]:
    """Return p values after Holm's correction over all of them."""
    from statsmodels.stats.multitest import multipletests

    if not values:
        return []
    gc.freeze()  # `multipletests` collects garbage at each call: 0.3 s, with all that a report has imported and read
    try:
        return [float(p) for p in multipletests(values, method="holm")[1]]
    finally:
        gc.unfreeze()


def _compare(
    pairs: Sequence[tuple[Trial, Trial]],
    questions: Questions,
    base: NDArray[np.int8],
    answers: dict[str, Answers],
    resamples: int,
) -> list[Comparison]:
    given = np.stack([answers[trial.id].given for trial, _ in pairs])
    sums = page_sums(questions, np.vstack([base[None], given]))
    low, high = bootstrap_differences(sums, resamples)
    accuracy, f1 = scores(sums.sum(axis=0))
    first = questions.first_of_claim
    base_right = (base == questions.labels)[first]
    found = []
    for k, (trial, reference) in enumerate(pairs):
        right = (given[k] == questions.labels)[first]
        gained, lost = int((right & ~base_right).sum()), int((base_right & ~right).sum())
        shares = np.bincount(given[k].astype(np.int64) - UNPARSED, questions.rows) / questions.rows.sum()
        found.append(
            Comparison(
                trial=trial,
                reference=reference,
                pages=len(sums),
                claims=int(first.sum()),
                rows=int(questions.rows.sum()),
                accuracy=float(accuracy[k + 1]),
                f1_macro=float(f1[k + 1]),
                accuracy_difference=float(accuracy[k + 1] - accuracy[0]),
                accuracy_interval=(float(low[0, k]), float(high[0, k])),
                f1_difference=float(f1[k + 1] - f1[0]),
                f1_interval=(float(low[1, k]), float(high[1, k])),
                gained=gained,
                lost=lost,
                p=mcnemar_p(gained, lost),
                commonest=int(shares.argmax()) + UNPARSED,
                commonest_share=float(shares.max()),
            )
        )
    return found


def page_sums(questions: Questions, given: NDArray[np.int8]) -> Floats:
    """Sum up per page what accuracy and F1 are made of, weighted by rows.

    Args:
        questions: the claims asked.
        given: answers `[members, questions]`.

    Returns:
        `[pages, members, 9]`: true positives, predicted and actual rows of each of the three labels.
    """
    pages = int(questions.page_index.max()) + 1
    out = np.zeros((pages, len(given), 9))
    for label in range(3):
        actual = questions.labels == label
        for k, answer in enumerate(given):
            chosen = answer == label
            for part, mask in ((0, actual & chosen), (3, chosen), (6, actual)):
                weights = np.where(mask, questions.rows, 0)
                out[:, k, part + label] = np.bincount(questions.page_index, weights, minlength=pages)
    return out


def scores(sums: Floats) -> tuple[Floats, Floats]:
    """Return accuracy and macro F1 from summed counts `[..., 9]`; a label that never occurs has F1 0."""
    hits, chosen, actual = sums[..., 0:3], sums[..., 3:6], sums[..., 6:9]
    rows = actual.sum(axis=-1)
    accuracy = hits.sum(axis=-1) / np.where(rows > 0, rows, 1.0)
    both = chosen + actual
    return accuracy, (2 * hits / np.where(both > 0, both, 1.0)).mean(axis=-1)


def bootstrap_differences(sums: Floats, resamples: int = RESAMPLES) -> tuple[Floats, Floats]:
    """Bound the differences in accuracy and macro F1 of members 1, 2, … from member 0, drawing whole pages.

    Args:
        sums: as `page_sums` gives them, the reference first.
        resamples: bootstrap samples; the draw is seeded, so that a report is reproducible.

    Returns:
        Lower and upper bounds of the 95 % percentile interval, each `[2, members - 1]` (accuracy, macro F1).
    """
    from scipy.stats import bootstrap

    pages, members, parts = sums.shape
    flat = np.moveaxis(sums, 2, 1).reshape(pages, parts * members)  # members last: numpy is slow on short last axes
    if pages == 1:
        nothing = np.full((2, members - 1), math.nan)
        return nothing, nothing

    def differences(drawn: NDArray[np.int64], axis: int = -1) -> Floats:
        drawn = np.atleast_2d(drawn)
        count = len(drawn)
        offsets = np.arange(count)[:, None] * pages
        times = np.bincount((drawn + offsets).ravel(), minlength=count * pages).reshape(count, pages)
        drawn_sums = (times.astype(np.float64) @ flat).reshape(count, parts, members)
        accuracy, f1 = scores(np.moveaxis(drawn_sums, 1, 2))
        both = np.stack([accuracy[:, 1:] - accuracy[:, :1], f1[:, 1:] - f1[:, :1]])
        moved: Floats = np.moveaxis(both, 1, 2)
        return moved

    result = bootstrap(
        (np.arange(pages),), differences, n_resamples=resamples, vectorized=True, axis=-1,
        method="percentile", confidence_level=LEVEL, batch=max(1, BATCH_CELLS // max(pages, members * parts)),
        random_state=np.random.default_rng(0),
    )  # fmt: skip
    low, high = result.confidence_interval
    return np.asarray(low), np.asarray(high)


def mcnemar_p(gained: int, lost: int) -> float:
    """Return McNemar's exact two-sided p from the two discordant counts; 1 where both are 0."""
    from statsmodels.stats.contingency_tables import mcnemar

    if gained + lost == 0:
        return 1.0
    return float(mcnemar([[0, gained], [lost, 0]], exact=True).pvalue)


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and 95 % t-interval of the mean over runs that differ only in seeds."""

    mean: float
    sd: float
    low: float
    high: float
    runs: int


def spread(values: Sequence[float]) -> Spread:
    """Summarise runs; with a single one the deviation and interval are NaN."""
    from scipy.stats import sem, t

    mean = float(np.mean(values))
    if len(values) < 2:
        return Spread(mean, math.nan, math.nan, math.nan, len(values))
    sd = float(np.std(values, ddof=1))
    if sd == 0:
        return Spread(mean, 0.0, mean, mean, len(values))
    low, high = t.interval(LEVEL, len(values) - 1, loc=mean, scale=sem(values))
    return Spread(mean, sd, float(low), float(high), len(values))
