"""Answers as lm-evaluation-harness writes its samples (0.4), for whatever reads those: a line of JSON for each answer.

    STORAGE/NAME/samples/<trial>/samples_<asking or task>_<date>.jsonl

The library's fields are there: `doc_id`, `doc`, `target`, `arguments`, `resps`, `filtered_resps`, `filter`, `metrics`
with a value each, and three hashes. Of our own probes `doc` is the row of the answers, and `arguments` holds what was
asked without the examples before it, which are not kept. What lm-evaluation-harness asked is its own sample again.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sweep.report.samples import samples_of
from sweep.report.study import Study, Trial, read_answers_table
from trainables.probes.counterfact.targets import sample_scores

SAMPLES = "samples"
Row = Mapping[str, Any]
LETTERS = {"a": "SUPPORTS", "b": "REFUTES", "c": "NOT ENOUGH INFO"}


def store_samples(study: Study, folder: Path | None = None) -> tuple[int, str]:
    """Write the files of every finished trial, in place of those of before.

    Args:
        study: the trials.
        folder: where; None for `samples` in the sweep's folder, or in the storage's for several sweeps.

    Returns:
        How many files, and where they lie.
    """
    target = "/".join([*([study.sweeps[0].name] if len(study.sweeps) == 1 else []), SAMPLES])
    if folder is not None or study.storage.is_local:
        folder = folder or Path(study.storage.full(target))
        return write_samples(study, folder), str(folder)
    with tempfile.TemporaryDirectory() as scratch:
        count = write_samples(study, Path(scratch))
        for path in sorted(Path(scratch).rglob("*.jsonl")):
            study.storage.write(f"{target}/{path.relative_to(scratch).as_posix()}", path.read_bytes())
    return count, study.storage.full(target)


def write_samples(study: Study, folder: Path) -> int:
    """Write the files into a local folder; return how many."""
    date = (
        datetime.now(timezone.utc).replace(tzinfo=None).isoformat().replace(":", "-")
    )  # as the library's names have it
    count = 0
    for trial in study.trials:
        tasks: dict[str, list[dict[str, Any]]] = {}
        for label in trial.answers if trial.status == "done" else ():
            for task, line in _lines(study, trial, label):
                tasks.setdefault(re.sub(r"\W", "_", task), []).append(line)
        for task, lines in tasks.items():
            own = folder / trial.id
            own.mkdir(parents=True, exist_ok=True)
            for old in own.glob(f"samples_{task}_[0-9]*.jsonl"):
                old.unlink()
            text = "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines)
            (own / f"samples_{task}_{date}.jsonl").write_text(text, encoding="utf-8")
            count += 1
    return count


def _lines(study: Study, trial: Trial, label: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the task that a line is of, and the line."""
    import pyarrow as pa

    probe = label.partition(":")[0]
    told = _SAMPLES.get(probe)
    if told is None:
        return
    if label == "counterfact":
        rows: Sequence[Row] = samples_of(study, trial)  # also those of earlier formats
    elif trial.answers_problem(label) or not trial.answers[label].endswith(".parquet"):
        return
    else:
        try:
            rows = read_answers_table(study.storage, trial, label).to_pylist()
        except (OSError, ValueError, pa.ArrowException):
            return
    for place, row in enumerate(rows):
        yield str(row["task"]) if probe == "lm_eval" else label, told(place, row)


def _texts(value: Any) -> Any:
    """Turn what lies in lists into texts, as the library does before it writes: a column has one type then."""
    return [_texts(each) for each in value] if isinstance(value, (list, tuple)) else str(value)


def _sample(
    place: int, row: Row, asked: str, target: Any, given: list[Any], kept: list[Any], scores: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one line.

    Args:
        place: of the answer among those of the asking.
        row: as it is kept.
        asked: the question.
        target: the truth.
        given: answers as they were given.
        kept: the same as they count.
        scores: by metric.
    """
    doc = dict(row)
    return {
        "doc_id": place,
        "doc": doc,
        "target": str(target),
        "arguments": {"gen_args_0": {"arg_0": asked}},
        "resps": _texts([given]),
        "filtered_resps": _texts(kept),
        "filter": "none",
        "metrics": list(scores),
        "doc_hash": _hash(json.dumps(doc, indent=2, default=str, ensure_ascii=False)),
        "prompt_hash": _hash(asked),
        "target_hash": _hash(str(target)),
        **scores,
    }


def _fever(place: int, row: Row) -> dict[str, Any]:
    asked = str(row.get("question") or f"claim {row['claim_id']}")
    kept = LETTERS.get(str(row["parsed"]), row["parsed"] or "")
    return _sample(place, row, asked, row["label"], [row["answer"]], [kept], {"acc": float(bool(row["correct"]))})


def _choices(place: int, row: Row) -> dict[str, Any]:
    scores = {"acc": float(bool(row["correct"]))}
    if row.get("correct_norm") is not None:
        scores["acc_norm"] = float(bool(row["correct_norm"]))
    kept = row["parsed"] or ""
    return _sample(place, row, row["question"], row["label"], [row["answer"]], [kept], scores)


def _recall(place: int, row: Row) -> dict[str, Any]:
    tokens = row["tokens"] or 1
    scores = {"rouge_l": row["rouge_l"], "token_accuracy": row["tokens_right"] / tokens}
    return _sample(place, row, row["prompt"], row["expected"], [row["written"]], [row["written"]], scores)


def _counterfact(place: int, row: Row) -> dict[str, Any]:
    given = list(row["answers"])
    return _sample(place, row, row["prompt"], row["target_true"], given, given, dict(sample_scores(row)))


def _forgetting(place: int, row: Row) -> dict[str, Any]:
    if row["kind"] == "claim":
        scores = {"acc": float(bool(row["correct"]))}
        return _sample(place, row, row["text"], row["label"], [row["answer"]], [row["parsed"] or ""], scores)
    return _sample(place, row, "", row["text"], [row["nll"]], [row["nll"]], {"nll": row["nll"]})


def _lm_eval(place: int, row: Row) -> dict[str, Any]:
    sample: dict[str, Any] = json.loads(row["sample"])
    arguments = {
        f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(own)}
        for i, own in enumerate(sample.get("arguments", ()))
    }
    told = {name: _texts(sample.get(name, [])) for name in ("resps", "filtered_resps")}
    return {**sample, **told, "arguments": arguments, "target": str(sample.get("target"))}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_SAMPLES: dict[str, Callable[[int, Row], dict[str, Any]]] = {
    "fever": _fever, "choices": _choices, "recall": _recall, "counterfact": _counterfact, "forgetting": _forgetting,
    "lm_eval": _lm_eval,
}  # fmt: skip
