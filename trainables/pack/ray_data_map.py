"""What is made of many tables, made by Ray Data on all nodes of the cluster: the option `--spread-corpus`.

The worker that asks holds a CPU all the while, and so do the others: tasks that asked for one would wait for each other
for ever. They ask for memory instead, each for a CPU's share of its node's, so that a node runs no more of them at a
time than it has CPUs, whoever asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from ray.exceptions import RayTaskError

from trainables.errors import OWN_KINDS, SweepError, failure_kind
from trainables.node.map_batches import Make

WINDOW_BYTES = 1 << 28
"""Tables handed out at a time: they lie in this node's object store until what is made of them has been read (ours)."""
_PIECE = "piece"


class ClusterTrouble(SweepError):
    """Raised when the cluster could not compute something: the failure of a machine, never a trial's result."""

    kind = "process"

    @classmethod
    def of(cls, error: Exception) -> ClusterTrouble:
        """Describe what Ray raised; memory that was short on whatever node is no reason for smaller packs here."""
        raised = isinstance(error, RayTaskError)  # by what ran, not by the loss of it
        told = (getattr(error, "cause", None) if raised else None) or error
        text = f"{type(told).__name__}: {' '.join(str(told).split())}"
        found = cls(f"the cluster could not prepare the corpus: {text[:300]}")
        kind = failure_kind(told)
        if raised and kind not in OWN_KINDS:
            found.kind = kind
        return found


class RayDataMap:
    """Has tables mapped by tasks of Ray Data; see `trainables.node.map_batches.MapBatches` for the contract.

    A single table, and one that is left over, is mapped in this process: most corpora are one, and a start of Ray Data
    takes longer. A task whose process or node dies runs again, as often as that happens.
    """

    def __call__(self, make: Make, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield what `make` gives for all tables."""
        for window in _windows(iter(tables)):
            if len(window) == 1:
                yield from make(window[0])
            else:
                yield from _mapped(make, window)


def _windows(tables: Iterator[pa.Table]) -> Iterator[list[pa.Table]]:
    """Yield the tables, as many at a time as fit a window."""
    window: list[pa.Table] = []
    held = 0
    for table in tables:
        window.append(table)
        held += table.nbytes
        if held >= WINDOW_BYTES:
            yield window
            window, held = [], 0
    if window:
        yield window


def _mapped(make: Make, window: list[pa.Table]) -> Iterator[pa.Table]:
    """Yield what `make` gives for the tables of a window, which lie in the object store meanwhile."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    room = Room.of(ray.nodes())
    pieces = [table.append_column(_PIECE, _same(place, len(table))) for place, table in enumerate(window)]
    try:
        made = ray.data.from_blocks(pieces).map_batches(
            _numbered,
            fn_args=(make,),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.TaskPoolStrategy(size=min(room.tasks, len(pieces))),
            num_cpus=0,
            memory=room.task_bytes,
            scheduling_strategy="SPREAD",  # by default they would stay within the trial's placement group, on its node
            **room.told,
        )
        found = made.iter_batches(batch_size=None, batch_format="pyarrow")
        yield from _in_order(found, len(pieces))
    except SweepError:
        raise
    except Exception as error:
        raise ClusterTrouble.of(error) from error


def _same(number: int, count: int) -> pa.Array:
    return pa.array(np.full(count, number, dtype=np.int32))


def _numbered(table: pa.Table, make: Make) -> Iterator[pa.Table]:
    """Make something of a piece, in a task, and have it carry the piece's number."""
    number = table.column(_PIECE)[0].as_py()
    for made in make(table.drop_columns([_PIECE])):
        yield made.append_column(_PIECE, _same(number, len(made)))


def _in_order(tables: Iterable[pa.Table], count: int) -> Iterator[pa.Table]:
    """Yield the tables, without their numbers.

    Raises:
        ClusterTrouble: a piece is missing, or not in its place: a trial would be trained on other documents.
    """
    latest = -1
    for table in tables:
        numbers = table.column(_PIECE).to_numpy()
        if not set(np.diff(numbers, prepend=latest).tolist()) <= {0, 1}:
            raise ClusterTrouble(f"the cluster gave piece {numbers[0]} of a corpus after piece {latest}")
        latest = int(numbers[-1])
        yield table.drop_columns([_PIECE])
    if latest != count - 1:
        raise ClusterTrouble(f"the cluster gave {latest + 1} of {count} pieces of a corpus")


@dataclass(frozen=True)
class Room:
    """What the cluster has for tasks beside its trials.

    Attributes:
        tasks: at a time, one for each CPU.
        task_bytes: of memory that each asks for; None where no node says how much it has.
        left_out: ids of nodes that offer no CPU: a head that is kept free for what it does.
    """

    tasks: int
    task_bytes: int | None
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, nodes: Iterable[dict[str, Any]]) -> Room:
        """Read it off `ray.nodes()`."""
        alive = [node for node in nodes if node["Alive"]]
        cpus = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in alive}
        shares = [node["Resources"].get("memory", 0.0) / has for node in alive if (has := cpus[node["NodeID"]])]
        return cls(
            max(1, int(sum(cpus.values()))),
            int(min(shares, default=0.0)) or None,
            tuple(sorted(node for node, has in cpus.items() if not has)),
        )

    @property
    def told(self) -> dict[str, Any]:
        """Options of the tasks that keep them off the nodes left out."""
        return {"label_selector": {"ray.io/node-id": f"!in({', '.join(self.left_out)})"}} if self.left_out else {}
