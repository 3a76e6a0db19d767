"""Which documents use which entries, after training (note 002)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.records.sweep_storage import SweepStorage
from sweep.report.figures.drawing import MAP, Figure, finish, panels
from sweep.report.figures.resampled import alikeness
from sweep.report.figures.simset import MAX_ALLOCATIONS, Analysis, read_group_of_document
from sweep.report.naming import variant
from sweep.report.references import References
from sweep.report.study import Trial
from trainables.errors import DataError

ACTIVATIONS = "activations.npy"
MOST_CELLS = 160
"""Rows and columns of a picture at most; more are averaged."""
MOST_ALIKE = 256
"""Documents, evenly chosen, over which it is said how alike two are (ours: 1 GFLOP a picture with 4,096 entries)."""


@dataclass(frozen=True)
class EntryMap:
    """Documents by entries.

    Attributes:
        cells: `[documents, entries]`, neighbours averaged where there are many.
        told: how alike two documents are, for the label below.
    """

    cells: NDArray[np.float64]
    told: str = ""


def activation_figure(storage: SweepStorage, found: Sequence[Analysis], references: References) -> Figure | None:
    """Draw one panel per allocation, and its plain memory: documents by group, entries by their document.

    Args:
        storage: of the trials.
        found: from `simset.analyses`.
        references: give the plain memory of a trial.
    """
    drawn: list[tuple[str, EntryMap]] = []
    plain: dict[str, Trial] = {}
    for analysis in found:
        if len(drawn) == MAX_ALLOCATIONS:
            break
        picture = picture_of(storage, analysis.trial, read_group_of_document(storage, analysis.trial))
        if picture is not None:
            drawn.append((variant(analysis.trial), picture))
            other = references.plain(analysis.trial)
            plain |= {other.id: other} if other else {}
    for other in list(plain.values())[:1]:
        picture = picture_of(storage, other, None)
        drawn = [(f"{variant(other)}, plain", picture), *drawn] if picture is not None else drawn
    if not drawn:
        return None
    with pictures_drawn(drawn) as canvas:
        caption = (
            "Mean activation of an entry over a document's tokens, negative ones as 0, as a share of the document's "
            "largest: bright entries are used. Documents stand group by group, entries by the document that uses them "
            f"most; above {MOST_CELLS} rows or columns, neighbours are averaged. Below: the mean cosine "
            "between the rows of two different documents, with its 95 % interval (bootstrap over documents, "
            f"{MOST_ALIKE} of them at most). Each panel is one training."
        )
        return finish(canvas, "activations", "Which documents use which entries, after training", caption)


@contextmanager
def pictures_drawn(pictures: Sequence[tuple[str, EntryMap]]) -> Iterator[Any]:
    """Draw titled pictures of documents by entries side by side, and yield the canvas."""
    with panels(1, len(pictures), width=3.4, height=3.2, share_y=False) as (canvas, axes):
        for ax, (title, picture) in zip(axes.flat, pictures, strict=True):
            ax.imshow(picture.cells, aspect="auto", cmap=MAP, interpolation="nearest", vmin=0)
            ax.set(title=title, xlabel=f"entries{picture.told}", ylabel="documents", xticks=[], yticks=[])
            ax.grid(visible=False)
        yield canvas


def picture_of(storage: SweepStorage, trial: Trial, groups: Sequence[int] | None) -> EntryMap | None:
    """Return a trial's activations as shares of each document's largest, entries by document; None without a file.

    Args:
        storage: of the trial.
        trial: which.
        groups: of its documents, which then stand group by group.
    """
    try:
        read = np.load(io.BytesIO(storage.read(f"{trial.folder}/{ACTIVATIONS}")), allow_pickle=False)
    except (OSError, ValueError, EOFError, DataError):
        return None
    if read.ndim != 2 or not read.size:
        return None
    values: NDArray[np.float64] = np.clip(read.astype(np.float64), 0, None)
    values /= np.maximum(values.max(axis=1, keepdims=True), 1e-12)
    if groups is not None and len(groups) == len(values):
        values = values[np.argsort(groups, kind="stable")]
    values = values[:, np.argsort(values.argmax(axis=0), kind="stable")]
    return EntryMap(_averaged(_averaged(values).T).T, _alike(values[:: -(-len(values) // MOST_ALIKE)]))


def _alike(values: NDArray[np.float64]) -> str:
    """Say how alike two documents' activations are."""
    found = alikeness(values)
    if found is None:
        return ""
    mean, span = found
    return f"\ncosine of two documents: {mean:.2f}" + (f" [{span[0]:.2f}, {span[1]:.2f}]" if span else "")


def _averaged(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average neighbouring rows so that at most `MOST_CELLS` are left."""
    parts = np.array_split(values, min(len(values), MOST_CELLS))
    return np.stack([part.mean(axis=0) for part in parts])
