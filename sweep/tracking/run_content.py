"""What a run in MLflow is made of: its metric values, its data set, what it was found to be, all that it holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class MetricValue:
    """One value of a metric; its time (milliseconds) never changes, so that sending it twice adds nothing."""

    name: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True)
class LoggedData:
    """The data that a trial read, as MLflow shows it: name, digest of the content, where it came from, page counts."""

    name: str
    digest: str
    source: str
    profile: str


@dataclass(frozen=True)
class ChangedAnswer:
    """A question that a trial answers otherwise than what it is compared with.

    Attributes:
        question: in words.
        truth: the right answer.
        before: the reference's answer.
        after: the trial's.
        gained: whether the trial is the one that is right, or more often so.
    """

    question: str
    truth: str
    before: str
    after: str
    gained: bool


@dataclass(frozen=True)
class ComparisonResult:
    """What comparing a trial with others came to.

    Attributes:
        values: metrics, such as `vs_pretrained/accuracy`.
        tags: words, such as `verdict`.
        note: a sentence for the description: how many answers changed, and from whose.
        changed: some of these answers.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    changed: Sequence[ChangedAnswer] = ()

    @property
    def mark(self) -> str:
        """Changes with any of the values and words; empty without any."""
        text = json.dumps([dict(self.values), dict(self.tags)], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest() if self.values or self.tags else ""


@dataclass(frozen=True)
class Added:
    """What a run shows that does not follow from its record alone; it may change, and is then sent again.

    Attributes:
        tags: the run's name among them.
        values: metrics.
        mark: the record's `complete_mark`, where it is known already.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    mark: str = ""


@dataclass(frozen=True)
class WholeRun:
    """All that a complete trial's run holds; its times are in milliseconds since the epoch."""

    name: str
    status: str
    started_ms: int
    ended_ms: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    values: Sequence[MetricValue]
    data: LoggedData
