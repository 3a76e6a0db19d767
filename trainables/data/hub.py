"""FEVER from a repository of the Hugging Face Hub, its files listed, not guessed.

The repository `fever/fever` is a loading script, which no current library runs; the Hub's own conversion of it lies on
the branch `refs/convert/parquet` and stops at 5 GB, so its pages are not complete (docs/data.md). Whatever is there is
taken as found. What was found is put together in one folder of the data cache, in the form of any other data folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from trainables.data.archive import page_lines
from trainables.data.hub_client import NoSuchRevision, RepoFile, ask_hub, commit_of, files_of
from trainables.data.obtain import evidence_titles, official_pages, write_pages
from trainables.data.official import data_cache
from trainables.data.online import Unreachable, say
from trainables.data.ready import PAGES, Manifest, new_folder, one_at_a_time, read_manifest, write_manifest
from trainables.data.titles import normal_title
from trainables.errors import ConfigError, DataError
from trainables.node.storage import write_bytes

REPOSITORY = "fever/fever"
CONVERTED = "refs/convert/parquet"
TABLE_COLUMNS = ["id", "label", "claim", "evidence_wiki_url"]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"hub(?::([\w.-]+/[\w.-]+)(?:@([^@,\s]+))?)?")
_SHARD = r"(?:-\d+-of-\d+)?"
_SUFFIXES = (".parquet", ".jsonl")
_PAGES = re.compile(rf"(?:^|/)(?:partial-)?(?:wikipedia|wiki)[_-]pages(?:{_SHARD}\.|/)")


@dataclass(frozen=True)
class HubFiles:
    """The files of a repository that make FEVER up.

    Attributes:
        repo: OWNER/NAME.
        commit: at which they were listed.
        train: of the training claims.
        valid: of the validation claims (paper_dev).
        pages: of the pages, whole or in part.
    """

    repo: str
    commit: str
    train: tuple[RepoFile, ...]
    valid: tuple[RepoFile, ...]
    pages: tuple[RepoFile, ...]

    @property
    def key(self) -> str:
        """What identifies the content: the files' content ids, wherever they lie."""
        parts = [sorted(file.content_id for file in files) for files in (self.train, self.valid, self.pages)]
        return f"hub@{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"

    @property
    def name(self) -> str:
        """The source's name that stands for this commit, whatever the branch does later."""
        return f"hub:{self.repo}@{self.commit}"


def is_hub(name: str) -> bool:
    """Say whether a source is the hub: `hub`, `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`."""
    return _NAME.fullmatch(name) is not None


@lru_cache(maxsize=16)
def hub_files(name: str) -> HubFiles:
    """List a repository and find FEVER in it; a commit that was listed before is not listed again.

    Raises:
        ConfigError: the Hub cannot be reached or lacks the repository.
        DataError: the repository does not hold FEVER's claims and pages.
    """
    match = _NAME.fullmatch(name)
    assert match is not None, name
    repo, revision = match[1] or REPOSITORY, match[2]
    what = f"data={name!r}"
    if revision and _COMMIT.fullmatch(revision) and (known := _recall(repo, revision)):
        return known
    seen: list[str] = []
    for branch in [revision] if revision else ["main", CONVERTED]:
        try:
            commit = commit_of(what, repo, branch, "dataset")
        except Unreachable:
            known = _recall(repo, revision or "latest")
            if known is None:
                raise
            say(f"hub: the Hub cannot be reached; {repo} as it was last seen, at {known.commit[:8]}")
            return known
        except NoSuchRevision:
            if revision:
                raise
            continue  # a repository without a conversion
        found = _recall(repo, commit)
        if found is None:
            listed = files_of(what, repo, commit, "dataset")
            found = _recognise(repo, commit, listed)
            seen += [f"{branch}: {file.path}" for file in listed]
        if found.train and found.valid and found.pages:
            _remember(found, commit, revision or "latest")
            return found
    shown = ", ".join(seen[:12]) + (", …" if len(seen) > 12 else "")
    raise DataError(
        f"hub:{repo}: it holds no train, paper_dev and wiki_pages as Parquet or JSON lines (there are: "
        f"{shown or 'no files'}); name another copy (--data hub:OWNER/NAME), or --data fever"
    )


def ready_hub(name: str, allow_missing_pages: bool = False) -> Path:
    """Return the folder made of a repository's files, downloading them at first use.

    Args:
        name: as in `is_hub`.
        allow_missing_pages: go on without the pages that the repository lacks, rather than take them from the official
            archive.

    Raises:
        ConfigError: the Hub cannot be reached, or pages are missing and the official archive cannot be reached either.
        DataError: files that cannot be read.
    """
    files = hub_files(name)
    base = data_cache() / files.key.replace("@", "-")
    if read_manifest(base) is None:
        with one_at_a_time(base):
            if read_manifest(base) is None:
                _make(files, base)
    manifest = read_manifest(base)
    assert manifest is not None
    wanted, found = manifest.pages["wanted"], manifest.pages["found"]
    if found == wanted or allow_missing_pages:
        return base
    filled = base.with_name(f"{base.name}-completed")
    if read_manifest(filled) is None:
        with one_at_a_time(filled):
            if read_manifest(filled) is None:
                _complete(files, base, filled, manifest)
    return filled


def _make(files: HubFiles, folder: Path) -> None:
    size = sum(file.size for part in (files.train, files.valid, files.pages) for file in part)
    say(f"hub: {files.repo} at {files.commit[:8]}: {size / 1e6:,.1f} MB to download, once, into the Hub's cache")
    with new_folder(folder) as half:
        _join(_download(files, files.train), half / "train")
        valid = _join(_download(files, files.valid), half / "paper_dev")
        wanted = evidence_titles(valid)
        lines: dict[str, str] = {}
        for path in _download(files, files.pages):
            for title, line in _lines_of(path, wanted).items():
                lines.setdefault(title, line)
        write_pages(half / PAGES, lines)
        write_manifest(half, _manifest(files, len(wanted), len(lines)))


def _complete(files: HubFiles, base: Path, folder: Path, made: Manifest) -> None:
    """Copy a folder and add the pages that it lacks."""
    told = f"hub: {made.pages['found']:,} of {made.pages['wanted']:,} evidence pages have a text in {files.repo}"
    say(f"{told}; the others come from the official archive")
    valid = next(path for path in base.iterdir() if path.stem == "paper_dev")
    wanted = evidence_titles(valid)
    lines = page_lines(base / PAGES, wanted)
    try:
        lines |= official_pages(wanted - set(lines))
    except (ConfigError, DataError) as error:
        raise ConfigError(
            f"{told}, and the others cannot be taken from the official archive ({error}); go on without them with "
            "--set allow_missing_pages=true"
        ) from None
    with new_folder(folder) as half:
        for path in base.iterdir():
            if path.stem in ("train", "paper_dev"):
                shutil.copyfile(path, half / path.name)
        write_pages(half / PAGES, lines)
        write_manifest(half, _manifest(files, len(wanted), len(lines)))


def _manifest(files: HubFiles, wanted: int, found: int) -> Manifest:
    origin = {"repository": files.repo, "commit": files.commit}
    return Manifest({"hub": files.key}, {"hub": origin}, pages={"wanted": wanted, "found": found})


def _download(files: HubFiles, wanted: Iterable[RepoFile]) -> list[Path]:
    from huggingface_hub import hf_hub_download

    def get(path: str) -> str:
        return hf_hub_download(files.repo, path, repo_type="dataset", revision=files.commit)

    return [Path(ask_hub("hub", files.repo, lambda path=file.path: get(path))) for file in wanted]  # type: ignore[misc]


def _join(parts: list[Path], target: Path) -> Path:
    """Put the shards of a table together into one file beside `target`, of the shards' type."""
    path = target.with_suffix(parts[0].suffix)
    if path.suffix == ".jsonl":
        with open(path, "wb") as out:
            for part in parts:
                content = part.read_bytes()
                out.write(content if content.endswith(b"\n") else content + b"\n")
        return path
    import pyarrow
    import pyarrow.parquet

    try:
        tables = [pyarrow.parquet.read_table(part, columns=TABLE_COLUMNS) for part in parts]
        pyarrow.parquet.write_table(pyarrow.concat_tables(tables, promote_options="default"), path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{parts[0]}: cannot be read as FEVER's claims ({error}); use --data fever") from None
    return path


def _lines_of(path: Path, wanted: set[str]) -> dict[str, str]:
    if path.suffix == ".jsonl":
        return page_lines(path, wanted)
    import pyarrow
    import pyarrow.parquet

    found: dict[str, str] = {}
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = [name for name in ("id", "text", "lines") if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=names):
            titles = batch.column(names.index("id")).to_pylist()
            for row, title in enumerate(titles):
                if (plain := normal_title(title)) in wanted:
                    record = {name: batch.column(i)[row].as_py() for i, name in enumerate(names)}
                    found.setdefault(plain, json.dumps(record))
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as FEVER's pages ({error}); use --data fever") from None
    return found


def _recognise(repo: str, commit: str, listed: Iterable[RepoFile]) -> HubFiles:
    files = [file for file in sorted(listed, key=lambda file: file.path) if "v2.0/" not in file.path]
    pages = [file for file in files if _PAGES.search(file.path)]
    claims = [file for file in files if file not in pages]
    return HubFiles(repo, commit, _table(claims, "train"), _table(claims, "paper_dev"), _of_one_type(pages))


def _table(files: Iterable[RepoFile], name: str) -> tuple[RepoFile, ...]:
    """Return a table's files: `NAME/….parquet`, `NAME.parquet` or `NAME-00000-of-00001.parquet`, or JSON lines."""
    pattern = re.compile(rf"(?:^|/){name}(?:{_SHARD}\.|/[^/]+$)")
    return _of_one_type(file for file in files if pattern.search(file.path))


def _of_one_type(files: Iterable[RepoFile]) -> tuple[RepoFile, ...]:
    found = list(files)
    for suffix in _SUFFIXES:
        same = tuple(file for file in found if file.path.endswith(suffix))
        if same:
            return same
    return ()


def _memory(repo: str, revision: str) -> Path:
    return data_cache() / "hub-listings" / f"{repo}@{revision}.json".replace("/", "--")


def _recall(repo: str, revision: str) -> HubFiles | None:
    """Return what was found at a commit before, which never changes, or at a branch when it was last seen."""
    try:
        kept = json.loads(_memory(repo, revision).read_text(encoding="utf-8"))
        parts = {part: tuple(RepoFile(**file) for file in kept[part]) for part in ("train", "valid", "pages")}
        return HubFiles(repo, str(kept["commit"]), **parts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(found: HubFiles, *names: str) -> None:
    try:
        for name in names:
            write_bytes(str(_memory(found.repo, name)), json.dumps(asdict(found)).encode())
    except OSError:
        return  # a cache that cannot be written: it is listed again next time
