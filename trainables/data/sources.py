"""Find the files that a trial's `data` names.

`data` joins sources by commas. A source is `sample` (the generated world), `hub` (FEVER on the Hugging Face
hub) or a folder, in which files are recognised by name, there or one level below:

    train.{jsonl,csv,parquet}, paper_dev.{jsonl,csv,parquet}     FEVER claims, per claim or in table form
    wiki-pages/*.jsonl                                          FEVER's Wikipedia pages
    wiki_docs.jsonl                                             further articles, without claims
    counterfact.json                                            CounterFact records
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainables.data.fingerprint import fingerprint_files
from trainables.data.sample.facts import SAMPLE_VERSION
from trainables.errors import ConfigError, DataError, nearest

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
HUB_KEY = "hub@fever-v1.0"


@dataclass(frozen=True)
class SourceFiles:
    """The files of one source; None or empty where it has none of a kind.

    Attributes:
        name: the source as the user named it.
        is_hub: FEVER claims and pages come from the hub instead of files.
        train: FEVER training claims.
        valid: FEVER validation claims (paper_dev).
        wiki_pages: FEVER's page files, sorted.
        wiki_docs: articles without claims.
        counterfact: CounterFact records.
    """

    name: str
    is_hub: bool = False
    train: Path | None = None
    valid: Path | None = None
    wiki_pages: tuple[Path, ...] = ()
    wiki_docs: Path | None = None
    counterfact: Path | None = None

    @property
    def has_claims(self) -> bool:
        """Whether FEVER claims come from here."""
        return self.is_hub or self.train is not None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of this source."""
        single = (self.train, self.valid, self.wiki_docs, self.counterfact)
        return (*(path for path in single if path is not None), *self.wiki_pages)


def resolve_sources(data: str) -> tuple[SourceFiles, ...]:
    """Find the files of every source, generating the sample world where it is asked for.

    Raises:
        ConfigError: a source without a name, two sources of FEVER claims, or two files for the same thing.
        DataError: a folder that is missing, or holds nothing of use or only one half of FEVER's claims.
    """
    sources = tuple(_resolve(name, data) for name in _names(data))
    with_claims = [source.name for source in sources if source.has_claims]
    if len(with_claims) > 1:
        raise ConfigError(f"data={data!r}: FEVER claims in {' and '.join(with_claims)}; name just one")
    return sources


def data_key(data: str) -> str:
    """Fingerprint the content behind `data`, wherever it lies: part of a trial's identity.

    Returns:
        One key per source, joined by commas: `sample@v1`, `hub@fever-v1.0`, `files@` and 16 hex digits.

    Raises:
        ConfigError: as `resolve_sources`.
        DataError: as `resolve_sources`.
    """
    keys = []
    for name in _names(data):
        if name == "sample":
            keys.append(f"sample@v{SAMPLE_VERSION}")
        elif name == "hub":
            keys.append(HUB_KEY)
        else:
            keys.append(f"files@{fingerprint_files(_resolve(name, data).files)[:16]}")
    return ",".join(keys)


def _names(data: str) -> list[str]:
    names = [name.strip() for name in data.split(",")]
    if not all(names):
        raise ConfigError(f"data={data!r}: an empty source; name sample, hub or folders, joined by commas")
    return names


def _resolve(name: str, data: str) -> SourceFiles:
    if name == "hub":
        return SourceFiles(name, is_hub=True)
    if name == "sample":
        from trainables.data.sample.world import ensure_sample_data

        return _scan(name, ensure_sample_data())
    folder = Path(name).expanduser()
    if not folder.is_dir():
        hint = nearest(name, ("sample", "hub"))
        raise DataError(f"{folder}: no such folder (data={data!r}); name sample, hub or a folder{hint}")
    return _scan(name, folder)


def _scan(name: str, folder: Path) -> SourceFiles:
    """Recognise a folder's files, there or one level below."""
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    levels = ([folder], below)
    source = SourceFiles(
        name=name,
        train=_only(levels, [f"train{suffix}" for suffix in TABLE_SUFFIXES]),
        valid=_only(levels, [f"paper_dev{suffix}" for suffix in TABLE_SUFFIXES]),
        wiki_pages=_wiki_pages(levels),
        wiki_docs=_only(levels, ["wiki_docs.jsonl"]),
        counterfact=_only(levels, ["counterfact.json"]),
    )
    if not source.files:
        raise DataError(
            f"{folder}: no data found; looked for train.jsonl with paper_dev.jsonl (or .csv, .parquet), "
            "wiki-pages/*.jsonl, wiki_docs.jsonl, counterfact.json, there and one level below"
        )
    if (source.train is None) != (source.valid is None):
        missing, found = ("train", source.valid) if source.train is None else ("paper_dev", source.train)
        raise DataError(
            f"{folder}: {found} has no {missing} beside it; looked for {missing}.jsonl, .csv and .parquet, "
            "there and one level below"
        )
    return source


def _only(levels: Iterable[list[Path]], names: list[str]) -> Path | None:
    """Return the one file of these names on the first level that has any."""
    for folders in levels:
        found = [folder / name for folder in folders for name in names if (folder / name).is_file()]
        if len(found) > 1:
            raise ConfigError(f"data: {found[0]} and {found[1]} serve the same purpose; keep one of them")
        if found:
            return found[0]
    return None


def _wiki_pages(levels: Iterable[list[Path]]) -> tuple[Path, ...]:
    """Return the page files of the first `wiki-pages` folder that has any."""
    for folders in levels:
        for folder in folders:
            pages = folder if folder.name == "wiki-pages" else folder / "wiki-pages"
            found = sorted(path for path in pages.glob("*.jsonl") if not path.name.startswith("."))
            if found:
                return tuple(found)
    return ()
