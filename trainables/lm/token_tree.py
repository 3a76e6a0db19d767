"""Token trees: many texts that share beginnings, as one row of a batch.

A node is one token; it attends to itself and its ancestors, and its position is its depth. A plain text is
the tree without branches (a chain). Prompts about one page share their few-shot prefix: a tree holds it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class TokenTree:
    """A trie of tokens in an order in which parents come first.

    Attributes:
        tokens: token id of every node.
        parents: index of every node's parent, -1 for a root; `parents[i] < i`.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the order, on which everything else relies.

        Raises:
            ValueError: no node, lists of different lengths, or a parent that does not come before its child.
        """
        if not self.tokens or len(self.tokens) != len(self.parents):
            counts = f"{len(self.tokens)} tokens, {len(self.parents)} parents"
            raise ValueError(f"a tree needs tokens, and one parent for each: {counts}")
        if any(not -1 <= parent < node for node, parent in enumerate(self.parents)):
            raise ValueError("a parent must come before its children in the tree")

    @classmethod
    def chain(cls, tokens: Sequence[int]) -> TokenTree:
        """Return a plain text as a tree."""
        return cls(tuple(tokens), tuple(range(-1, len(tokens) - 1)))

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.tokens)

    @cached_property
    def is_chain(self) -> bool:
        """Whether the tree is a plain text: every node follows the one before it."""
        return self.parents == tuple(range(-1, len(self) - 1))

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """Depth of every node, 0 at a root: `[nodes]`, int64."""
        if self.is_chain:
            return np.arange(len(self), dtype=np.int64)
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return np.array(depths, dtype=np.int64)

    @cached_property
    def intervals(self) -> NDArray[np.int64]:
        """Entry and exit times of a depth-first walk: `[2, nodes]`, int64.

        Node j is i or an ancestor of i exactly when `entry[j] <= entry[i] < exit[j]`, so an attention mask is
        two comparisons, made on the device.
        """
        size = len(self)
        if self.is_chain:
            return np.stack([np.arange(size), np.full(size, size)])
        below = [1] * size
        for node in range(size - 1, -1, -1):
            if self.parents[node] >= 0:
                below[self.parents[node]] += below[node]
        entry, free, free_root = [0] * size, [0] * size, 0
        for node, parent in enumerate(self.parents):
            if parent < 0:
                entry[node], free_root = free_root, free_root + below[node]
            else:
                entry[node] = free[parent]
                free[parent] += below[node]
            free[node] = entry[node] + 1
        times = np.array([entry, below], dtype=np.int64)
        times[1] += times[0]
        return times

    def path(self, node: int) -> list[int]:
        """Return the nodes from the root down to `node`, both included."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]

    @cached_property
    def _digest(self) -> str:
        hasher = hashlib.sha256(np.array([self.tokens, self.parents], dtype="<i8").tobytes())
        return hasher.hexdigest()[:32]

    def digest(self) -> str:
        """Return what identifies the content: 32 hexadecimal digits."""
        return self._digest


def build_trees(sequences: Sequence[Sequence[int]], max_tokens: int) -> tuple[list[TokenTree], list[tuple[int, int]]]:
    """Merge sequences into trees of at most `max_tokens` nodes, beginnings shared.

    Sequences are taken in the order given: one that does not fit opens the next tree (a tree costs attention
    quadratic in its size, so it is split and the prefix repeated). A sequence longer than `max_tokens` gets a
    tree of its own.

    Args:
        sequences: token ids, none of them empty; those that share a beginning best stand together.
        max_tokens: largest number of nodes of a tree.

    Returns:
        The trees, and for every sequence the `(tree, node)` of its last token; `trees[tree].path(node)` has
        the nodes of all its tokens.

    Raises:
        ValueError: an empty sequence.
    """
    trees: list[TokenTree] = []
    ends: list[tuple[int, int]] = []
    tokens: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    for sequence in sequences:
        if not sequence:
            raise ValueError("an empty sequence has no node in a tree")
        if tokens and len(tokens) + len(sequence) - _shared(children, sequence) > max_tokens:
            trees.append(TokenTree(tuple(tokens), tuple(parents)))
            tokens, parents, children = [], [], {}
        node = -1
        for token in sequence:
            child = children.get((node, token))
            if child is None:
                child = children[node, token] = len(tokens)
                tokens.append(int(token))
                parents.append(node)
            node = child
        ends.append((len(trees), node))
    if tokens:
        trees.append(TokenTree(tuple(tokens), tuple(parents)))
    return trees, ends


def _shared(children: dict[tuple[int, int], int], sequence: Sequence[int]) -> int:
    """Count the leading tokens of `sequence` that the trie already holds."""
    node = -1
    for count, token in enumerate(sequence):
        found = children.get((node, token))
        if found is None:
            return count
        node = found
    return len(sequence)


@dataclass(frozen=True)
class Batch:
    """Trees as tensors, padded on the right.

    Attributes:
        tokens: `[batch, seq]`, int64; padding is token 0.
        positions: `[batch, seq]`, int64; where all trees are chains padding counts on, so that texts have positions
            0, 1, 2, ..., else it is 0.
        attention_mask: None when all trees are chains (causal attention is enough: no token sees the padding
            to its right), else bool `[batch, 1, seq, seq]`, True where row attends to column; padding sees
            itself.
        lengths: `[batch]`, int64: nodes of each tree.
    """

    tokens: Tensor
    positions: Tensor
    attention_mask: Tensor | None
    lengths: Tensor


def collate(trees: Sequence[TokenTree], device: torch.device | str = "cpu") -> Batch:
    """Pad trees into one batch on `device`.

    Raises:
        ValueError: no trees.
    """
    if not trees:
        raise ValueError("cannot make a batch of no trees")
    lengths = [len(tree) for tree in trees]
    size = max(lengths)
    tokens = np.zeros((len(trees), size), dtype=np.int64)
    chains = all(tree.is_chain for tree in trees)
    positions = np.tile(np.arange(size, dtype=np.int64), (len(trees), 1))
    for row, tree in enumerate(trees):
        tokens[row, : len(tree)] = tree.tokens
        positions[row, : len(tree)] = tree.positions
        if not chains:
            positions[row, len(tree) :] = 0  # counting on, they might leave the positions that a model has
    return Batch(
        tokens=torch.from_numpy(tokens).to(device),
        positions=torch.from_numpy(positions).to(device),
        attention_mask=None if chains else _tree_mask(trees, size, device),
        lengths=torch.tensor(lengths, device=device),
    )


def _tree_mask(trees: Sequence[TokenTree], size: int, device: torch.device | str) -> Tensor:
    """Return who attends to whom, bool `[batch, 1, size, size]`; a pad enters and leaves alone."""
    times = np.empty((2, len(trees), size), dtype=np.int64)
    times[0] = np.arange(size)
    times[1] = times[0] + 1
    for row, tree in enumerate(trees):
        times[:, row, : len(tree)] = tree.intervals
    walk = torch.from_numpy(times).to(device)
    entry, leave = walk[0], walk[1]
    row_entry = entry[:, :, None]
    return ((entry[:, None, :] <= row_entry) & (row_entry < leave[:, None, :])).unsqueeze(1)
