"""Folders of data that are ready to use without a network, each with a manifest of what it holds and where from.

    manifest.json                        sources with their keys and origins; size and SHA-256 of every file
    train.jsonl, paper_dev.jsonl         FEVER's claims (`.parquet` from the hub)
    wiki-pages/evidence-pages.jsonl      the evidence pages of the validation claims, by title, as the archive has them
    counterfact.json                     CounterFact records

The cache keeps one for each data set; `python -m sweep.data prepare` makes one to carry along. A file that is not what
the manifest says is an error, never other data under the same name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainables.data.fetch import sha256_of
from trainables.errors import ConfigError, DataError

MANIFEST = "manifest.json"
PAGES = "wiki-pages/evidence-pages.jsonl"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a ready folder holds.

    Attributes:
        keys: data set or hub source by kind (`fever`, `counterfact`, `hub`) and its key.
        origins: where each came from: addresses with checksums, or repository and commit.
        files: path in the folder -> `{"size": …, "sha256": …}`.
        pages: `wanted` evidence pages, and how many of them were `found`.
    """

    keys: Mapping[str, str]
    origins: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pages: Mapping[str, int] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a folder, every file held against it; None where the folder has none.

    Raises:
        DataError: a manifest that cannot be read, or a file that is missing or has another content.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); make the folder again") from None
    if not isinstance(stated, dict) or "memory_sweep_data" not in stated:
        return None
    if stated["memory_sweep_data"] != FORMAT:
        raise DataError(f"{path}: of format {stated['memory_sweep_data']}, this version reads {FORMAT}")
    try:
        manifest = Manifest(stated["keys"], stated["origins"], stated["files"], stated["pages"])
        for name, told in manifest.files.items():
            _check(folder / name, int(told["size"]), str(told["sha256"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: not a manifest of this project ({error!r}); make the folder again") from None
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Describe the folder's files and write the manifest."""
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}
    stated = {"memory_sweep_data": FORMAT, **asdict(manifest), "files": files}
    (folder / MANIFEST).write_text(json.dumps(stated, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the name `folder` when the `with` block ends well.

    Raises:
        ConfigError: it cannot be written.
    """
    half = folder.with_name(f"{folder.name}.{uuid4().hex[:8]}.part")
    try:
        half.mkdir(parents=True)
        yield half
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        os.replace(half, folder)
    except OSError as error:
        raise ConfigError(_unwritable(folder, error)) from None
    finally:
        shutil.rmtree(half, ignore_errors=True)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock that belongs to a folder of the cache, its parents made; others on this machine wait.

    Raises:
        ConfigError: the cache cannot be written.
    """
    from filelock import FileLock

    lock = FileLock(f"{folder}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise ConfigError(_unwritable(folder, error)) from None
    try:
        yield
    finally:
        lock.release()


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"{folder}: cannot be written ({error.strerror or error}); choose another folder with --data-cache, or use one "
        "made by `python -m sweep.data prepare` (--data FOLDER)"
    )


def _check(path: Path, size: int, sha256: str) -> None:
    if not path.is_file():
        raise DataError(f"{path}: missing, though {MANIFEST} lists it; delete that {MANIFEST}'s folder and try again")
    if path.stat().st_size != size or sha256_of(path) != sha256:
        raise DataError(
            f"{path}: not what {MANIFEST} says of it (size or checksum differ); delete that {MANIFEST}'s folder "
            f"and make it again, or only {MANIFEST} to use the folder as data of your own"
        )
