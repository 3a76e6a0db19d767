"""The failure classes; the retry policy is keyed on them.

A message is one line: what is wrong, where, what to do. Only a bug ever shows a traceback.

    config, data    the trial's own: it would fail anywhere, so the failure is its result
    memory          a smaller pack is tried; the result of a trial that does not fit alone
    io              a disk, a storage or a network that does not answer
    device          a GPU, or the process's hold on it, is broken
    process         the process died, and nothing says why
    preemption      its node went away
    bug             anything else

All but the first three say something about a machine and nothing about the trial.
"""

from __future__ import annotations

import errno
import re
import socket
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

OWN_KINDS = frozenset({"config", "data", "memory"})
"""Failures that are results of their trials."""

_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|unable to allocate|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_ALLOC_FAILED|CUSOLVER_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation|hipErrorOutOfMemory"
    r"|std::bad_alloc|\bbad_alloc\b|NODE_OUT_OF_MEMORY|running low on memory|OutOfMemoryError",
    re.IGNORECASE,
)
_DEVICE = re.compile(
    r"CUDA error|CUDA driver error|cuda runtime error|CUDA-capable device|no CUDA GPUs are available"
    r"|illegal memory access|device-side assert|unspecified launch failure|uncorrectable ECC|cudaError\w+"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE|NCCL)_\w*(STATUS|ERROR)\w*|NCCL error|cuBLAS error|cuDNN error|NVML|HIP error",
    re.IGNORECASE,
)
_IO = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Input/output error|Stale file handle"
    r"|SLOW_?DOWN|ServiceUnavailable|Service Unavailable|InternalError|RequestTimeout|TooManyRequests"
    r"|\b(429|500|502|503|504)\b.{0,40}(Too Many|Slow|Unavailable|Gateway|Internal|Timeout)"
    r"|timed out|Connection (reset|refused|aborted)|ConnectionError|ConnectTimeout|ReadTimeout|error sending request"
    r"|Temporary failure in name resolution|database or disk is full",
    re.IGNORECASE,
)
_IO_ERRNOS = frozenset(
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EROFS EIO ESTALE ETIMEDOUT ENETUNREACH EHOSTUNREACH ENETDOWN EPIPE ENOTCONN "
    "EAGAIN EBUSY EMFILE ENFILE EFBIG EACCES EPERM ENXIO ENODEV EREMOTEIO".split()
    if hasattr(errno, name)
)
_IO_TYPES = re.compile(r"^(GenericError|.*(Timeout|Connection|Connect|Transport|Protocol)(Error|Exception)?)$")


class SweepError(Exception):
    """Root of all errors this project raises on purpose."""

    kind = "bug"


class ConfigError(SweepError):
    """The user's mistake: a field, its value, the rule it breaks and the remedy. Nothing is started."""

    kind = "config"


class DataError(SweepError):
    """A data or model file that is missing or broken; the message starts with `path:` or `path:line:`."""

    kind = "data"


class OutOfMemory(SweepError):
    """The device or the host ran out of memory even with the smallest micro-batch and a pack of one."""

    kind = "memory"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `", did you mean 'x'?"` for the closest known name, or an empty string."""
    found = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {found[0]!r}?" if found else ""


def failure_kind(error: BaseException) -> str:
    """Classify any exception; torch, Ray and clients of storages need not be imported for it.

    What was raised on the way counts too: a library's "failed to save" says little, the full disk behind it all.
    """
    if isinstance(error, SweepError):
        return error.kind
    for one in _chain(error):
        kind = _kind_of_one(one)
        if kind != "bug":
            return kind
    return "bug"


def kind_of_text(text: str) -> str:
    """Classify an error of which only the words are left: what Ray says of a process that is gone."""
    for kind, words in (("memory", _MEMORY), ("device", _DEVICE), ("io", _IO)):
        if words.search(text):
            return kind
    return "bug"


def _kind_of_one(error: BaseException) -> str:
    if isinstance(error, SweepError):
        return error.kind
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or getattr(error, "errno", None) == errno.ENOMEM:
        return "memory"
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror)):
        return "io"
    if isinstance(error, OSError) and error.errno in _IO_ERRNOS:
        return "io"
    found = kind_of_text(str(error)) if not isinstance(error, (KeyError, TypeError, AttributeError)) else "bug"
    if found == "bug" and _IO_TYPES.match(name) and not isinstance(error, (ValueError, TypeError)):
        return "io"
    return found


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, each once."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


@dataclass(frozen=True)
class Failure:
    """How a pack failed, as plain data that travels from a worker to the driver.

    Attributes:
        kind: its class.
        message: one line.
        traceback: of the exception, where there was one.
        host: name of the machine.
        device: `cpu`, or which GPU of the machine.
        node: Ray's id of the machine; empty in this process.
    """

    kind: str
    message: str
    traceback: str = ""
    host: str = ""
    device: str = ""
    node: str = ""

    @classmethod
    def of(cls, error: BaseException, device: str = "") -> Failure:
        """Describe an exception that has just been caught, on this machine."""
        kind = failure_kind(error)
        text = " ".join(str(error).split())
        message = text if isinstance(error, SweepError) else f"{type(error).__name__}: {text}"
        return cls(kind, message[:2000], "".join(traceback.format_exception(error)), socket.gethostname(), device)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Failure:
        """Undo `to_dict`."""
        return cls(**plain)

    def to_dict(self) -> dict[str, str]:
        """Return plain data."""
        return asdict(self)

    @property
    def cause(self) -> str:
        """What is the same for failures that are alike: the class and the words, without numbers and paths."""
        words = re.sub(r"0x[0-9a-f]+|/[^\s:'\"()]+|[0-9a-f]{12,}|\d+", "#", self.message)
        return f"{self.kind}: {words[:160]}"

    @property
    def result(self) -> dict[str, str]:
        """As a trial's result tells its error."""
        return {"class": self.kind, "message": self.message, "traceback": self.traceback}
