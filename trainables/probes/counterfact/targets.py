"""How answers to a CounterFact record are scored: by their texts alone, so from a finished trial as well."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from trainables.probes.words import spoken_words

METRICS = (
    "true_rate",
    "new_rate",
    "token_f1",
    "paraphrase_true_rate",
    "paraphrase_new_rate",
    "neighborhood_true_rate",
    "neighborhood_new_rate",
)
"""Names of the scores, without the `counterfact/` of flat metric names."""

GROUPS = ("with_page", "without_page")
"""Records apart: those whose subject's page is among the trial's documents, and the others."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def begins_with(answer: str, target: str) -> bool:
    """Tell whether the answer begins with the target's words: `Indiana` is not `India`, `"india's` is.

    Case, punctuation and white space do not matter. A target without any letter or digit is compared as it is.
    """
    wanted = spoken_words(target)
    if not wanted:
        return bool(target.strip()) and answer.lstrip().startswith(target.strip())
    return spoken_words(answer)[: len(wanted)] == wanted


def token_f1(answer: str, target: str) -> float:
    """Return the F1 of the answer's words against the target's.

    Words are normalised as in SQuAD (Rajpurkar et al. 2016): lower case, without punctuation and
    articles. When either side has no words left the score is 1 if both have none, else 0.
    """
    given, wanted = _words(answer), _words(target)
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def sample_scores(sample: Mapping[str, Any]) -> dict[str, float]:
    """Score one record's answers, each the mean over the answers of its kind.

    Args:
        sample: `target_true`, `target_new` and `answers`, maybe `paraphrase_answers` and `neighborhood_answers`.

    Returns:
        Those of `METRICS` for which there are answers.
    """
    true, new = sample["target_true"], sample["target_new"]
    scores = {"token_f1": fmean(token_f1(text, true) for text in sample["answers"])} if sample["answers"] else {}
    for kind in ("", "paraphrase_", "neighborhood_"):
        texts = sample.get(f"{kind}answers")
        if texts:
            scores[f"{kind}true_rate"] = fmean(begins_with(text, true) for text in texts)
            scores[f"{kind}new_rate"] = fmean(begins_with(text, new) for text in texts)
    return scores
