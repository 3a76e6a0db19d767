"""Every spelling of a failure finds its class."""

from __future__ import annotations

import errno

import pytest
import torch

from trainables.errors import ConfigError, DataError, Failure, failure_kind, kind_of_text
from trainables.node.storage import StorageError


def caused(outer: Exception, inner: Exception) -> Exception:
    try:
        raise outer from inner
    except type(outer) as error:
        return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("layer=9"), "config"),
        (DataError("x: missing"), "data"),
        (caused(ConfigError("model cannot be read"), OSError(errno.EIO, "I/O")), "config"),
        (StorageError("s3://b: cannot be written"), "io"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "memory"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "memory"),
        (RuntimeError("cudaErrorMemoryAllocation"), "memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (RuntimeError("std::bad_alloc"), "memory"),
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "device"),
        (RuntimeError("CUDA error: device-side assert triggered"), "device"),
        (RuntimeError("CUDA error: unspecified launch failure"), "device"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "device"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "device"),
        (RuntimeError("No CUDA GPUs are available"), "device"),
        (OSError(errno.ENOSPC, "No space left on device"), "io"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "io"),
        (OSError(errno.EROFS, "Read-only file system"), "io"),
        (OSError(errno.EIO, "Input/output error"), "io"),
        (OSError(errno.ESTALE, "Stale file handle"), "io"),
        (ConnectionError("reset"), "io"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "io"),
        (TimeoutError("timed out"), "io"),
        (RuntimeError("Generic S3 error: SlowDown: Please reduce your request rate. (SLOW_DOWN)"), "io"),
        (RuntimeError("Server returned non-2xx status code: 503 Service Unavailable"), "io"),
        (RuntimeError("Error performing PUT: error sending request: operation timed out"), "io"),
        (caused(RuntimeError("failed to save"), OSError(errno.ENOSPC, "No space left on device")), "io"),
        (caused(RuntimeError("the trunk failed"), MemoryError()), "memory"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "io"),
        (ZeroDivisionError("division by zero"), "bug"),
        (KeyError("timed out"), "bug"),
        (FileNotFoundError(errno.ENOENT, "no such file"), "bug"),
        (RuntimeError("The size of tensor a (503) must match the size of tensor b (64)"), "bug"),
        (ValueError("memory_dim must be a multiple of 8"), "bug"),
        (TypeError("out() got an unexpected argument"), "bug"),
    ],
    ids=str,
)
def test_an_error_finds_its_class(error: Exception, kind: str) -> None:
    assert failure_kind(error) == kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Worker exit type: NODE_OUT_OF_MEMORY Worker exit detail: killed, the node running low on memory", "memory"),
        ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.", "memory"),
        ("The actor died because of an error in its creation task: RuntimeError: CUDA error: busy", "device"),
        ("Worker exit type: SYSTEM_ERROR Worker exit detail: exits with a connection error code 2", "bug"),
    ],
)
def test_words_alone_find_their_class(text: str, kind: str) -> None:
    assert kind_of_text(text) == kind


def test_causes_are_alike_whatever_the_numbers_and_places() -> None:
    one = Failure("device", "CUDA error at 0x7ffe01: step 3 of /tmp/a/b")
    assert one.cause == Failure("device", "CUDA error at 0xab: step 31 of /data/c").cause
    assert one.cause != Failure("device", "CUDA error: something else").cause
    assert one.cause != Failure("bug", one.message).cause


def test_a_failure_travels_as_plain_data() -> None:
    try:
        raise RuntimeError("CUDA error:\n  an illegal memory access")
    except RuntimeError as error:
        failure = Failure.of(error, "GPU 1")
    assert Failure.from_dict(failure.to_dict()) == failure
    assert failure.message == "RuntimeError: CUDA error: an illegal memory access" and "Traceback" in failure.traceback
