"""A text that is trained on or whose error is evaluated, as a token tree with the place where its loss begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from trainables.lm.token_tree import TokenTree

NO_DOCUMENT = -1
"""The document of a text that is about none of the trial's: a masked member uses every entry for it (ours)."""


@dataclass(frozen=True)
class TrainingText:
    """One text.

    Attributes:
        tree: its tokens, a chain.
        document: index of the document it belongs to, or `NO_DOCUMENT`.
        first_target: index of the first token that is predicted; those before it carry no loss.
    """

    tree: TokenTree
    document: int
    first_target: int = 1

    @property
    def num_targets(self) -> int:
        """Tokens that carry loss."""
        return len(self.tree) - self.first_target


def common_beginning(first: Sequence[object], second: Sequence[object]) -> int:
    """Return how many tokens or words two texts have in common before the first that differs."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(first, second, strict=False)))
