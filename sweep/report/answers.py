"""Per-claim predictions of many trials, kept small: the questions once, one small integer per answer.

Trials of one study ask mostly the same questions. A `Questions` object is therefore shared by all trials
whose claims, pages, labels and weights agree, and a trial keeps only what it answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.records.sweep_storage import SweepStorage
from sweep.report.study import Trial, read_answers_table

FEVER = "fever"
ROWS, WEIGHT = "rows", "weight"
"""What a claim counts, as the column is called in records up to the second format, and since."""
TEXT = "question"
READERS = 8
LABELS = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
_CODES = {name: code for code, label in enumerate(LABELS) for name in (label, "abc"[code], f"({'abc'[code]})")}
UNPARSED = -1
ACCURACY = "fever/accuracy"


@dataclass(frozen=True)
class Questions:
    """Claims asked, one entry per claim and page.

    Attributes:
        claims: claim ids, `[questions]`.
        pages: evidence page of each.
        labels: 0, 1, 2 for supports, refutes, not enough info.
        rows: evidence annotations of the claim on the page: its weight in accuracy and F1.
        texts: the claims' words; none in files from before these were kept with the answers.
    """

    claims: tuple[str, ...]
    pages: tuple[str, ...]
    labels: NDArray[np.int8]
    rows: NDArray[np.int64]
    texts: tuple[str, ...] = ()

    @cached_property
    def page_index(self) -> NDArray[np.int64]:
        """Index of each question's page among the pages asked, `[questions]`."""
        index = {page: i for i, page in enumerate(dict.fromkeys(self.pages))}
        return np.array([index[page] for page in self.pages], dtype=np.int64)

    @cached_property
    def first_of_claim(self) -> NDArray[np.bool_]:
        """Marks the first question of each distinct claim, `[questions]`; a claim may have several pages."""
        seen: set[str] = set()
        first = np.zeros(len(self.claims), dtype=bool)
        for i, claim in enumerate(self.claims):
            first[i] = claim not in seen
            seen.add(claim)
        return first

    @cached_property
    def position(self) -> Mapping[tuple[str, str], int]:
        """Index of a question by claim and page."""
        return {key: i for i, key in enumerate(zip(self.claims, self.pages, strict=True))}

    def __hash__(self) -> int:
        """Hash by object: equal questions are the same object (see `read_answers`)."""
        return id(self)

    def __eq__(self, other: object) -> bool:
        """Compare by object, likewise."""
        return self is other


@dataclass(frozen=True)
class Answers:
    """What one trial answered: codes of labels, -1 where unparsed, `[questions]`."""

    questions: Questions
    given: NDArray[np.int8]

    def on(self, questions: Questions) -> NDArray[np.int8] | None:
        """Return the answers in the order of other questions, or None where one of them was not asked."""
        if questions is self.questions:
            return self.given
        position = self.questions.position
        try:
            order = [position[key] for key in zip(questions.claims, questions.pages, strict=True)]
        except KeyError:
            return None
        found: NDArray[np.int8] = self.given[order]
        return found


def read_answers(
    storage: SweepStorage, trials: Iterable[Trial], left_out: MutableMapping[str, str] | None = None, label: str = FEVER
) -> dict[str, Answers]:
    """Read the predictions of finished trials, by trial id; a trial without a readable file is left out.

    Args:
        storage: of the trials.
        trials: all of a report; those that are not finished have no answers.
        left_out: gets trial id -> what is wrong, for each trial that was asked and has no file that can be read.
        label: of the asking: the trials' own, or one that was added (`fever:num_shots=5`).
    """
    finished = [trial for trial in trials if trial.status == "done"]
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(lambda trial: _read_table(storage, trial, label), finished))
    shared: dict[str, Questions] = {}
    answers = {}
    for trial, table in zip(finished, tables, strict=True):
        if isinstance(table, str):
            if left_out is not None and ACCURACY in trial.metrics:
                left_out[trial.id] = table
            continue
        if not table.num_rows:
            continue
        key = _digest(table)
        if key not in shared:
            shared[key] = _questions(table)
        answers[trial.id] = Answers(shared[key], _codes(table["parsed"]))
    return answers


def _read_table(storage: SweepStorage, trial: Trial, label: str) -> Any:
    """Return the table, or what is wrong with its file."""
    import pyarrow as pa

    problem = trial.answers_problem(label)
    if problem:
        return problem
    path = trial.answers[label]
    try:
        table = read_answers_table(storage, trial, label)
        names = [ROWS if name == WEIGHT else name for name in table.column_names]
        wanted = ["claim_id", "page", "label", ROWS, "parsed", *([TEXT] if TEXT in names else [])]
        table = table.rename_columns(names).select(wanted)
        labels = set(table["label"].to_pylist())
    except (OSError, KeyError) as error:
        return f"{path} is missing" if isinstance(error, FileNotFoundError) else f"{path} cannot be read"
    except (ValueError, pa.ArrowException):
        return f"{path} is broken"
    return table if labels <= _CODES.keys() else f"{path} has labels other than FEVER's"


def _codes(parsed: Any) -> NDArray[np.int8]:
    import pyarrow as pa
    import pyarrow.compute as pc

    place = pc.index_in(parsed.cast(pa.string()), value_set=pa.array(list(_CODES)))
    codes = np.array([*_CODES.values(), UNPARSED], dtype=np.int8)
    found: NDArray[np.int8] = codes[pc.fill_null(place, len(_CODES)).to_numpy()]
    return found


def _digest(table: Any) -> str:
    questions = table.select(["claim_id", "page", "label", "rows"]).replace_schema_metadata().combine_chunks()
    digest = hashlib.blake2b(digest_size=16)
    for batch in questions.to_batches():
        digest.update(batch.serialize())
    return digest.hexdigest()


def _questions(table: Any) -> Questions:
    return Questions(
        claims=tuple(str(value) for value in table["claim_id"].to_pylist()),
        pages=tuple(str(value) for value in table["page"].to_pylist()),
        labels=np.array([_CODES[value] for value in table["label"].to_pylist()], dtype=np.int8),
        rows=np.array(table["rows"].to_pylist(), dtype=np.int64),
        texts=tuple(map(str, table[TEXT].to_pylist())) if TEXT in table.column_names else (),
    )
