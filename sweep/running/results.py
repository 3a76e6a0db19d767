"""What a run of a sweep gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sweep.records.frame import load_results
from sweep.records.record import Record
from sweep.records.sweep_storage import SweepStorage

if TYPE_CHECKING:
    import pandas as pd

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


@dataclass(frozen=True)
class Results:
    """A sweep after a run of it.

    Attributes:
        name: of the sweep.
        exit_code: 0 when every trial has a result (a diverged one counts), 1 when some failed or are missing, 130 when
            it was interrupted.
        counts: the sweep's trials by status: `done`, `stopped`, `diverged`, `failed`, and `missing` without a record.
        num_run: trials that were to be trained; 0 when every one had been.
        num_asked: trials that were to be asked only, their weights being stored.
        stopped: why the run ended early; empty if it did not.
        choices: what earlier stages decided: `field`, `value`, `metric`, `group`, `runners_up`, … by question key.
        failures: one line for each kind of failure, with its count.
        notes: what a person was told on the way, a line each.
        paths: full paths of the sweep's `folder`, and in it `plan`, `choices`, `results` (a Parquet table), and
            `report` (its page) where that was asked for.
        conclusions: what the statistics say, where a report was asked for: sentences by the question they answer.
        report_trouble: why no report was written; empty where it was, or was not asked for.
        tracking_uri: MLflow's address.
        tracking_trouble: why MLflow lacks something that `python -m sweep.publish` can complete; empty if it does not.
        on_sample_world: whether trials ran on the generated models, which say nothing about real ones.
        seconds: that the run took.
        storage: the storage.
    """

    name: str
    exit_code: int
    counts: Mapping[str, int]
    num_run: int
    num_asked: int
    stopped: str
    choices: Mapping[str, Mapping[str, Any]]
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    paths: Mapping[str, str]
    tracking_uri: str = field(repr=False)
    tracking_trouble: str
    on_sample_world: bool
    seconds: float
    storage: SweepStorage = field(repr=False)
    conclusions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    report_trouble: str = ""

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row for each trial of the sweep that has a record; see `load_results`."""
        return load_results(self.paths["folder"])

    @cached_property
    def records(self) -> list[Record]:
        """The same trials' records, in the rows' order: all that is known of each, curves and versions included."""
        return [self.storage.read_record(folder).record() for folder in self.rows["folder"]]
