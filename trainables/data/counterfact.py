"""CounterFact records (Meng et al. 2022, "Locating and Editing Factual Associations in GPT")."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.data.sources import resolve_sources
from trainables.errors import DataError

SUBJECT_PLACE = "{}"


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
        DataError: no source has any, the file is not JSON, or a record lacks a field.
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


def read_records(path: Path) -> list[CounterfactRecord]:
    """Read the records of a file.

    Raises:
        DataError: the file is not JSON, or a record lacks a field.
    """
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); fetch it again") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, list):
        raise DataError(f"{path}: a {type(content).__name__} where a list of records is needed")
    return [_record(raw, f"{path}: record {index}") for index, raw in enumerate(content)]


def _record(raw: Any, where: str) -> CounterfactRecord:
    try:
        rewrite = raw["requested_rewrite"]
        return CounterfactRecord(
            case_id=int(raw["case_id"]),
            prompt=rewrite["prompt"],
            subject=rewrite["subject"],
            target_true=rewrite["target_true"]["str"],
            target_new=rewrite["target_new"]["str"],
            paraphrase_prompts=tuple(raw.get("paraphrase_prompts", ())),
            neighborhood_prompts=tuple(raw.get("neighborhood_prompts", ())),
        )
    except KeyError as error:
        raise DataError(f"{where}: no field {error}; needed as in ROME's counterfact.json") from None
    except (TypeError, ValueError, AttributeError):
        raise DataError(f"{where}: not laid out as in ROME's counterfact.json") from None
