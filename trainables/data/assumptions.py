"""Hold what servers and the data cache have against what is assumed here, so that a change is seen in a minute."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from trainables.data.fetch import CONNECT_S, READ_S, RemoteFile, fetch, sha256_of
from trainables.data.official import WIKI_PAGES, DataSet, data_cache, data_set
from trainables.data.online import BUSY_STATUSES, Unreachable, busy_answer, reason_of, require_online, try_online
from trainables.data.ready import one_at_a_time, read_manifest
from trainables.errors import SweepError

HUB_LAYOUT = {
    "train": r"v1\.0/train/\d{4}\.parquet",
    "paper_dev": r"v1\.0/paper_dev/\d{4}\.parquet",
    "pages": r"wiki_pages/partial-wikipedia_pages/\d{4}\.parquet",
}
"""Where the Hub's conversion of `fever/fever` is assumed to have its files (docs/data.md)."""


@dataclass(frozen=True)
class DataCheck:
    """One thing that was looked at.

    Attributes:
        what: was looked at.
        found: as text.
        right: whether it is what is assumed; None where nothing is assumed.
    """

    what: str
    found: str
    right: bool | None


def check_official(name: str, full: bool = False) -> Iterator[DataCheck]:
    """Compare an official data set with what is pinned; download its small files, and of the large one only its size.

    Args:
        name: `fever` or `counterfact`.
        full: download everything, checksums of large files included.

    Raises:
        Unreachable: the server cannot be reached.
    """
    found = data_set(name)
    folder = data_cache() / found.folder_name
    if full:
        from trainables.data.obtain import ready_data

        ready_data(name)
    manifest = read_manifest(folder)
    files = {}
    for file in found.files:
        if manifest is not None and file.name in manifest.files:
            files[file.name] = folder / file.name
            yield _checksum(file, files[file.name])
        elif file.name == WIKI_PAGES:
            yield _size(file)
        else:
            try:
                files[file.name] = _small_file(found, file)
            except Unreachable:
                raise
            except SweepError as error:
                yield DataCheck(file.url, str(error), False)
            else:
                yield _checksum(file, files[file.name])
    yield from _facts(found, files)
    if manifest is not None and manifest.pages:
        pages = manifest.pages
        yield DataCheck(
            f"{name}: evidence pages in {WIKI_PAGES}",
            f"{pages['found']:,} of {pages['wanted']:,}",
            pages["found"] == pages["wanted"],
        )


def check_hub(name: str) -> Iterator[DataCheck]:
    """List what a repository of the hub holds of FEVER; of the default one, compare it with the layout assumed.

    Raises:
        ConfigError: the Hub cannot be reached.
        DataError: FEVER is not recognised in it.
    """
    from trainables.data.hub import hub_files

    files = hub_files(name)
    yield DataCheck(f"{name}: commit", files.commit, None)
    for what, part in (("train", files.train), ("paper_dev", files.valid), ("pages", files.pages)):
        size = sum(file.size for file in part) / 1e6
        first, last = part[0].path, part[-1].path
        told = first if len(part) == 1 else f"{first} … {last} ({len(part)} files)"
        partial = " (a part of the pages: the others come from the official archive)" if "partial-" in first else ""
        assumed = all(re.fullmatch(HUB_LAYOUT[what], file.path) for file in part) if name == "hub" else None
        yield DataCheck(f"{name}: {what}", f"{told}, {size:,.1f} MB{partial}", assumed)


def check_folder(folder: Path) -> Iterator[DataCheck]:
    """Verify a folder made by `sweep.data prepare`, every checksum.

    Raises:
        DataError: a file is not what the manifest says.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        yield DataCheck(str(folder), "not made by `python -m sweep.data prepare`: no manifest.json", False)
        return
    yield DataCheck(f"{folder}: {len(manifest.files)} files", "checksums as in manifest.json", True)
    for kind, key in manifest.keys.items():
        yield DataCheck(f"{folder}: {kind}", key, data_set(kind).key in (None, key) if kind != "hub" else None)
        if kind == "fever":
            names = ("train.jsonl", "paper_dev.jsonl")
            yield from _facts(data_set(kind), {name: folder / name for name in names})
        elif kind == "counterfact":
            yield from _facts(data_set(kind), {"counterfact.json": folder / "counterfact.json"})


def _small_file(found: DataSet, file: RemoteFile) -> Path:
    downloads = data_cache() / "downloads" / found.folder_name
    with one_at_a_time(downloads):
        downloads.mkdir(parents=True, exist_ok=True)
        return fetch(file, downloads)


def _checksum(file: RemoteFile, path: Path) -> DataCheck:
    digest = sha256_of(path)
    told = f"{path.stat().st_size:,} bytes, SHA-256 {digest}"
    return DataCheck(file.url, told, None if file.sha256 is None else digest == file.sha256)


def _size(file: RemoteFile) -> DataCheck:
    require_online(file.url, file.name, "connect this machine")

    def ask() -> DataCheck:
        try:
            answer = requests.head(file.url, timeout=(CONNECT_S, READ_S), allow_redirects=True)
        except requests.RequestException as error:
            return DataCheck(file.url, f"cannot be asked for ({reason_of(error)})", False)
        if answer.status_code in BUSY_STATUSES:
            raise busy_answer(answer.status_code, answer.headers.get("Retry-After"))
        length = answer.headers.get("Content-Length", "")
        if not answer.ok or not length.isdigit():
            return DataCheck(file.url, f"answers {answer.status_code} {answer.reason}, no size", False)
        told = f"{int(length):,} bytes on the server (checksum: --full)"
        return DataCheck(file.url, told, None if file.size is None else int(length) == file.size)

    return try_online(file.name, ask)


def _facts(found: DataSet, files: dict[str, Path]) -> Iterator[DataCheck]:
    counts = _fever_counts(files) if found.name == "fever" else _counterfact_counts(files)
    for name, count in counts.items():
        known = found.facts.get(name)
        told = f"{count:,}" if known in (None, count) else f"{count:,} where {known:,} are known"
        yield DataCheck(f"{found.name}: {name}", told, None if known is None else count == known)


def _fever_counts(files: dict[str, Path]) -> dict[str, int]:
    from trainables.data.documents import LABELS
    from trainables.data.fever import group_by_page, read_rows

    counts: dict[str, int] = {}
    if "paper_dev.jsonl" in files:
        rows = list(read_rows(files["paper_dev.jsonl"]))
        labels: Any = Counter(label for _, label in {(row.claim_id, row.label) for row in rows})
        counts |= {"claims": sum(labels.values()), **{f"claims {label}": labels[label] for label in LABELS}}
        counts |= {"rows": len(rows), "pages": len(group_by_page(rows).pages)}
    if "train.jsonl" in files:
        counts["training rows"] = sum(1 for _ in read_rows(files["train.jsonl"]))
    return counts


def _counterfact_counts(files: dict[str, Path]) -> dict[str, int]:
    from trainables.data.counterfact import read_records

    return {"records": sum(len(read_records(path)) for path in files.values())} if files else {}
