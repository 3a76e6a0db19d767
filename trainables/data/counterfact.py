"""CounterFact records (Meng et al. 2022, "Locating and Editing Factual Associations in GPT")."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.data.corpus import subject_of
from trainables.data.jsonl import checked_text, require
from trainables.data.sources import resolve_sources
from trainables.data.tables import read_table
from trainables.errors import ConfigError, DataError

SUBJECT_PLACE = "{}"
PROMPT_LISTS = ("paraphrase_prompts", "neighborhood_prompts")
COLUMNS = ("case_id", "requested_rewrite")
_MOST_DIGITS = 19


@dataclass(frozen=True)
class CounterfactRecord:
    """One fact and its counterfactual.

    Attributes:
        case_id: the record's number.
        prompt: text to continue, with `{}` in the subject's place (see `question`).
        subject: what the fact is about.
        target_true: the right continuation.
        target_new: the counterfactual one.
        paraphrase_prompts: the same question in other words, the subject filled in.
        neighborhood_prompts: the question about other subjects with the same right answer.
    """

    case_id: int
    prompt: str
    subject: str
    target_true: str
    target_new: str
    paraphrase_prompts: tuple[str, ...] = ()
    neighborhood_prompts: tuple[str, ...] = ()

    @property
    def question(self) -> str:
        """The prompt with its subject filled in: what the model is asked to continue."""
        return self.prompt.replace(SUBJECT_PLACE, self.subject)


def load_counterfact(data: str) -> list[CounterfactRecord]:
    """Read the CounterFact records of all sources that `data` names, in file order.

    Raises:
        DataError: no source has any, or a file is broken or holds a record that cannot be asked.
    """
    sources = resolve_sources(data, allow_missing_pages=True)
    files = [source.counterfact for source in sources if source.counterfact is not None]
    if not files:
        names = ", ".join(source.name for source in sources)
        raise DataError(
            f"{names}: no CounterFact records; looked for counterfact.json there and one level below; add them with "
            "--data counterfact"
        )
    return [record for path in files for record in read_records(path)]


def facts_to_train(
    records: Sequence[CounterfactRecord], titles: Collection[str], count: int
) -> list[CounterfactRecord]:
    """Return the records whose prompts are trained on, so that the form of question is known before others are asked.

    None is about a document: what a trial memorises from its pages alone stays apart. The order is that of a hash of
    the subjects, so that it does not follow the file's order, by which the probe asks.

    Args:
        records: all there are.
        titles: of the trial's documents.
        count: how many.

    Raises:
        ConfigError: there are fewer.
    """
    known = {subject_of(title) for title in titles}
    apart = [record for record in records if subject_of(record.subject) not in known]
    if len(apart) < count:
        raise ConfigError(
            f"template_facts={count:,}: there are {len(apart):,} CounterFact records about subjects other than the "
            "documents; lower it"
        )
    return sorted(apart, key=lambda record: hashlib.blake2b(subject_of(record.subject).encode()).digest())[:count]


def facts_to_ask(
    records: Sequence[CounterfactRecord], titles: Collection[str], trained: int
) -> list[CounterfactRecord]:
    """Return the records that may be asked: those about a document first, none about a subject trained on.

    Args:
        records: all there are.
        titles: of the trial's documents.
        trained: how many are trained on (see `facts_to_train`).

    Raises:
        ConfigError: there are fewer than are to be trained on, or none is left.
    """
    known = {subject_of(title) for title in titles}
    taken = {subject_of(record.subject) for record in facts_to_train(records, titles, trained)} if trained else set()
    left = [record for record in records if subject_of(record.subject) not in taken]
    if records and not left:
        raise ConfigError(f"template_facts={trained:,}: no CounterFact record is left to be asked; lower it")
    return sorted(left, key=lambda record: subject_of(record.subject) not in known)


def read_records(path: Path) -> list[CounterfactRecord]:
    """Read the records of a table: a JSON list as in ROME's counterfact.json, or any other form.

    Raises:
        DataError: the file cannot be read, or holds a record that cannot be asked or two with one number.
    """
    records: dict[int, tuple[CounterfactRecord, str]] = {}
    for where, raw in read_table(path, COLUMNS, PROMPT_LISTS):
        record = _record(raw, where)
        known, place = records.setdefault(record.case_id, (record, where))
        if known != record:
            raise DataError(f"{where}: case_id {record.case_id} names another record at {place}")
    return [record for record, _ in records.values()]


def _record(raw: Mapping[str, Any], where: str) -> CounterfactRecord:
    rewrite = raw["requested_rewrite"]
    if not isinstance(rewrite, Mapping):
        raise DataError(f"{where}: field 'requested_rewrite' is {repr(rewrite)[:80]}; needed as in ROME's records")
    require(rewrite, ("prompt", "subject", "target_true", "target_new"), f"{where}: requested_rewrite")
    record = CounterfactRecord(
        case_id=_case_id(raw["case_id"], where),
        prompt=_filled(rewrite["prompt"], "prompt", where),
        subject=_filled(rewrite["subject"], "subject", where),
        target_true=_target(rewrite, "target_true", where),
        target_new=_target(rewrite, "target_new", where),
        paraphrase_prompts=_prompts(raw, "paraphrase_prompts", where),
        neighborhood_prompts=_prompts(raw, "neighborhood_prompts", where),
    )
    if SUBJECT_PLACE not in record.prompt:
        raise DataError(f"{where}: prompt {record.prompt!r} has no {SUBJECT_PLACE} in its subject's place")
    if record.target_true.strip().casefold() == record.target_new.strip().casefold():
        raise DataError(f"{where}: target_true and target_new are both {record.target_true!r}")
    return record


def _case_id(value: Any, where: str) -> int:
    is_whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1
    if isinstance(value, str) and value.isascii() and value.isdigit():
        is_whole = len(value) < _MOST_DIGITS
    if not is_whole or int(value) < 0:
        raise DataError(f"{where}: case_id {repr(value)[:40]}: must be a whole number of at least 0")
    return int(value)


def _filled(value: Any, what: str, where: str) -> str:
    text = checked_text(value, what, where)
    if not text.strip():
        raise DataError(f"{where}: {what} is empty; the record cannot be asked")
    return text


def _target(rewrite: Mapping[str, Any], name: str, where: str) -> str:
    target = rewrite[name]
    if not isinstance(target, Mapping) or "str" not in target:
        raise DataError(f"{where}: {name} is {repr(target)[:80]}; needed is {{'str': …}} as in ROME's records")
    return _filled(target["str"], name, where)


def _prompts(raw: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    prompts = raw.get(name)
    if prompts is None:
        return ()
    if not isinstance(prompts, list):
        raise DataError(f"{where}: {name} is {repr(prompts)[:80]}, not a list of texts")
    return tuple(_filled(prompt, f"{name}[{index}]", where) for index, prompt in enumerate(prompts))
