"""Words of answers, and how two texts agree by them: plain functions of texts."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def spoken_words(text: str) -> list[str]:
    """Return the words of a text: runs of letters and digits, with the marks that belong to letters, in one case."""
    even = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in even).split()


def rouge_l(written: Sequence[str], wanted: Sequence[str]) -> float:
    """Return ROUGE-L (Lin 2004): F1 of the longest common subsequence of words.

    On text of Latin letters without accents it is `rougeL` of Google's `rouge-score` without stemming, which knows no
    other letters.
    """
    if not written or not wanted:
        return float(not written and not wanted)
    common = _longest_common(written, wanted)
    return 2 * common / (len(written) + len(wanted))


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for one in first:
        corner = 0
        for place, other in enumerate(second, start=1):
            corner, row[place] = row[place], corner + 1 if one == other else max(row[place], row[place - 1])
    return row[-1]
