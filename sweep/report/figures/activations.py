"""Which documents use which entries, after training (note 002)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.records.store import Store
from sweep.report.figures.drawing import MAP, Figure, finish, panels
from sweep.report.figures.simset import MAX_ALLOCATIONS, Analysis, read_group_of_document
from sweep.report.naming import variant
from sweep.report.references import References
from sweep.report.study import Trial
from trainables.errors import DataError

ACTIVATIONS = "activations.npy"
MOST_CELLS = 160
"""Rows and columns of a picture at most; more are averaged."""


def activation_figure(store: Store, found: Sequence[Analysis], references: References) -> Figure | None:
    """Draw one panel per allocation, and its plain memory: documents by group, entries by their document.

    Args:
        store: of the trials.
        found: from `simset.analyses`.
        references: give the plain memory of a trial.
    """
    drawn: list[tuple[str, NDArray[np.float64]]] = []
    plain: dict[str, Trial] = {}
    for analysis in found:
        if len(drawn) == MAX_ALLOCATIONS:
            break
        picture = picture_of(store, analysis.trial, read_group_of_document(store, analysis.trial))
        if picture is not None:
            drawn.append((variant(analysis.trial), picture))
            other = references.plain(analysis.trial)
            plain |= {other.id: other} if other else {}
    for other in list(plain.values())[:1]:
        picture = picture_of(store, other, None)
        drawn = [(f"{variant(other)}, plain", picture), *drawn] if picture is not None else drawn
    if not drawn:
        return None
    with pictures_drawn(drawn) as canvas:
        caption = (
            "Mean activation of an entry over a document's tokens, negative ones as 0, as a share of the document's "
            "largest: bright entries are used. Documents stand group by group, entries by the document that uses them "
            f"most; above {MOST_CELLS} rows or columns, neighbours are averaged."
        )
        return finish(canvas, "activations", "Which documents use which entries, after training", caption)


@contextmanager
def pictures_drawn(pictures: Sequence[tuple[str, NDArray[np.float64]]]) -> Iterator[Any]:
    """Draw titled pictures of documents by entries side by side, and yield the canvas."""
    with panels(1, len(pictures), width=3.4, height=3.2, share_y=False) as (canvas, axes):
        for ax, (title, picture) in zip(axes.flat, pictures, strict=True):
            ax.imshow(picture, aspect="auto", cmap=MAP, interpolation="nearest", vmin=0)
            ax.set(title=title, xlabel="entries", ylabel="documents", xticks=[], yticks=[])
            ax.grid(visible=False)
        yield canvas


def picture_of(store: Store, trial: Trial, groups: Sequence[int] | None) -> NDArray[np.float64] | None:
    """Return a trial's activations as shares of each document's largest, entries by document; None without a file.

    Args:
        store: of the trial.
        trial: which.
        groups: of its documents, which then stand group by group.
    """
    try:
        read = np.load(io.BytesIO(store.read(f"{trial.folder}/{ACTIVATIONS}")), allow_pickle=False)
    except (OSError, ValueError, EOFError, DataError):
        return None
    if read.ndim != 2 or not read.size:
        return None
    values: NDArray[np.float64] = np.clip(read.astype(np.float64), 0, None)
    values /= np.maximum(values.max(axis=1, keepdims=True), 1e-12)
    if groups is not None and len(groups) == len(values):
        values = values[np.argsort(groups, kind="stable")]
    values = values[:, np.argsort(values.argmax(axis=0), kind="stable")]
    picture: NDArray[np.float64] = _averaged(_averaged(values).T).T
    return picture


def _averaged(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average neighbouring rows so that at most `MOST_CELLS` are left."""
    parts = np.array_split(values, min(len(values), MOST_CELLS))
    return np.stack([part.mean(axis=0) for part in parts])
