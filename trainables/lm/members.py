"""Language models that can be asked: the side of a pack that probes see."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainables.lm.reference import WholeModel
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree


class NextTokens(Protocol):
    """K language models' greedy next tokens."""

    def __call__(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return the most likely next token at every node asked for.

        Args:
            trees: what to run; may be empty.
            documents: for every tree, the index of the trial's document that it is about, or `NO_DOCUMENT`.
            nodes: for every tree, the nodes to read; may be empty.

        Returns:
            `[K, nodes in all]` token ids, nodes in the order given, tree after tree.
        """


class ModelMembers(Protocol):
    """K language models around one frozen one, each with what was trained for it.

    What holds for each of the questions:
    - It changes nothing: not the parameters, not the random state, and asking twice gives the same.
    - Members do not touch each other: K of them answer as each would alone, up to rounding.
    - It takes no gradient.
    - It may raise `OutOfMemory` (or torch's own error of this kind), after which the members are as before.
    """

    @property
    def num_members(self) -> int:
        """K."""

    def next_tokens(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return the most likely next tokens, as `NextTokens` says: the fast way, one pass for all members."""

    def nll(self, texts: Sequence[TrainingText]) -> list[float]:
        """Return each member's mean NLL over the target tokens of some texts, in nats; NaN for one that diverged."""

    def text_nll(self, texts: Sequence[TrainingText]) -> NDArray[np.float64]:
        """Return each member's mean NLL over the target tokens of each text, in nats: `[K, texts]`, NaN as above."""

    def is_masked(self, member: int, document: int) -> bool:
        """Tell whether a member is confined to the entries of a document when it is asked about it (hard mode).

        False for `NO_DOCUMENT`.
        """

    def attached(self, member: int, document: int | None = None) -> AbstractContextManager[WholeModel]:
        """Return a context in which the whole model, of `transformers`, is that member: the plain way.

        For what needs logits of free text, or a model to hand to another library. Outside the context the model is as
        it was.

        Args:
            member: which one.
            document: of the trial's documents that which the texts are about; a member that is masked uses its
                entries only. None for free text, which belongs to no document: every entry is used (ours).
        """
