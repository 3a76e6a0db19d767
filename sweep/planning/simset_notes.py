"""What a plan's numbers of hash functions let SimSet show, said before anything is made.

n, the hash functions of a group, is memory_dim over groups by default. With few of them, overlaps of entry sets say
little about the similarity of texts, and a grid over allocations hardly tests the method.
"""

from __future__ import annotations

from dataclasses import dataclass

from sweep.planning.plan import Plan
from trainables.adapters.memory.expectation import ENOUGH, entries_for, typical_expectation


@dataclass(frozen=True)
class SimsetNote:
    """One kind of entry set that a plan makes.

    Attributes:
        allocation: `simset1` to `simset3`.
        groups: of documents.
        memory_dim: entries of the memory.
        entries: n.
        standard_error: of the overlap of two sets, for pages as similar as FEVER's.
        expected_correlation: of overlap with Jaccard, likewise.
        entries_needed: the fewest n that are enough; None where no n is.
    """

    allocation: str
    groups: int
    memory_dim: int
    entries: int
    standard_error: float
    expected_correlation: float
    entries_needed: int | None

    @property
    def is_enough(self) -> bool:
        """Whether overlaps show similarity, or there are too few pairs of groups for that to matter."""
        return self.groups < 3 or self.expected_correlation >= ENOUGH


def simset_notes(plan: Plan) -> list[SimsetNote]:
    """Return a note for every kind of set by document in a plan, the fewest hash functions first."""
    kinds = set()
    for stage in plan.stages:
        for spec in (point.spec for point in stage.points):
            if spec.method in SETS_OF and spec.allocation.startswith("simset") and spec.granularity == "dim":
                entries = spec.entries_per_group or max(1, round(spec.memory_dim / spec.groups))
                kinds.add((entries, spec.groups, spec.memory_dim, spec.allocation))
    notes = []
    for entries, groups, memory_dim, allocation in sorted(kinds):
        width = int(allocation[-1])
        error, correlation = typical_expectation(width, entries, memory_dim)
        needed = entries_for(width, memory_dim)
        notes.append(SimsetNote(allocation, groups, memory_dim, entries, error, correlation, needed))
    return notes


SETS_OF = ("memory", "allocate")
"""Methods that have entry sets."""


def simset_lines(plan: Plan) -> list[str]:
    """Return the notes in words, one line for each n, and a warning where n is too small."""
    notes = simset_notes(plan)
    lines = []
    for key in dict.fromkeys((note.entries, note.groups, note.memory_dim) for note in notes):
        entries, groups, memory_dim = key
        own = [note for note in notes if (note.entries, note.groups, note.memory_dim) == key]
        told = ", ".join(f"{n.allocation} {n.expected_correlation:.2f} ± {n.standard_error:.3f}" for n in own)
        lines.append(f"n = {entries:,} ({groups:,} groups, {memory_dim:,} entries): {told}")
    if lines:
        lines.insert(
            0,
            "by n, the hash functions of a group: expected correlation of shared entries with Jaccard, ± standard "
            "error of a share, for pages as similar as FEVER's",
        )
    for name in sorted({note.allocation for note in notes if not note.is_enough}):
        poor = [note for note in notes if note.allocation == name and not note.is_enough]
        fewest = ", ".join(f"{n:,}" for n in sorted({note.entries for note in poor}))
        needed = poor[0].entries_needed
        remedy = f"it takes about {needed:,} (entries_per_group)" if needed else f"so is any of {poor[0].memory_dim:,}"
        lines.append(f"WARNING: {name}: n = {fewest} is too small to show similarity (below {ENOUGH:g}); {remedy}")
    return lines
