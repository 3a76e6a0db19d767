"""What the report shows of probes whose answers are a table: their rows, scores, and examples for people.

FEVER and CounterFact, which the study's notes lay out in their own ways, have modules of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweep.report.naming import variant
from sweep.report.study import Study, Trial, read_answers_table
from trainables.probes.registry import PROBES

RULE = "-" * 15
MAX_TRIALS = 6
MAX_EXAMPLES = 5
TEXT_CHARS = 400

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Unit:
    """One question as statistics see it.

    Attributes:
        key: equal for the same question put to another model.
        group: what is drawn together, such as its page: questions about one page are not independent.
        scores: by name.
    """

    key: tuple[Any, ...]
    group: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class AskedProbe:
    """How one probe is shown.

    Attributes:
        name: of the probe.
        heading: of its section.
        title: of its table of metrics.
        lower: metrics and scores of which less is better.
        unit: one row as statistics see it.
        example: one row printed for people, as lines; None for a row that says nothing.
        label: of the asking that is meant, where it is not the trials' own.
    """

    name: str
    heading: str
    title: str
    unit: Callable[[Row], Unit]
    example: Callable[[Row], list[str] | None]
    lower: frozenset[str] = frozenset()
    label: str = ""

    @property
    def asking(self) -> str:
        """The label of what was asked: the trials' own asking has the probe's name."""
        return self.label or self.name

    def under(self, label: str) -> AskedProbe:
        """Return this probe as it is asked under a label."""
        return replace(self, label="" if label == self.name else label)


def _recall_unit(row: Row) -> Unit:
    share = row["words_right"] / row["words"] if row["words"] else row["rouge_l"]
    scores = {"token_accuracy": row["tokens_right"] / row["tokens"], "rouge_l": row["rouge_l"], "verbatim": share}
    return Unit((row["page"], row["prompt"], row["expected"]), row["page"], scores)


def _recall_example(row: Row) -> list[str]:
    told = f"{row['tokens_right']} of {row['tokens']} tokens, {row['words_right']} of {row['words']} words in a row"
    return [
        f"{row['page']}: {told}, ROUGE-L {row['rouge_l']:.2f}",
        f"given:   {cut(row['prompt'])}",
        f"truth:   {cut(row['expected'])}",
        f"written: {cut(row['written'])}",
    ]


def _forgetting_unit(row: Row) -> Unit:
    key = (row["kind"], row["page"], row["text"], row["claim_id"])
    if row["kind"] == "claim":
        return Unit(key, row["page"], {"accuracy": float(row["correct"])})
    name = "nll" if row["kind"] == "held out" else "general_nll"
    return Unit(key, row["page"], {} if row["nll"] is None else {name: row["nll"]})


def _forgetting_example(row: Row) -> list[str] | None:
    if row["kind"] != "claim":
        return None
    told = "right" if row["correct"] else "wrong"
    return [f"{row['page']}: {cut(row['text'])}", f"label: {row['label']}, answered {row['answer']!r}: {told}"]


def _choices_unit(row: Row) -> Unit:
    scores = {"accuracy": float(row["correct"])}
    if row["correct_norm"] is not None:
        scores["accuracy_norm"] = float(row["correct_norm"])
    return Unit((row["question_id"], row["page"], row["question"]), row["page"], scores)


def _choices_example(row: Row) -> list[str]:
    told = "right" if row["correct"] else "wrong"
    return [
        f"{row['page']}: {cut(row['question'])}",
        f"choices: {' | '.join(row['choices'])}",
        f"truth: {row['label']}, answered {row['answer']!r}: {told}",
    ]


def _lm_eval_unit(row: Row) -> Unit:
    name = row["task"] if row["filter"] == "none" else f"{row['task']} {row['filter']}"
    scores = {f"{name} {metric}": value for metric, value in json.loads(row["scores"]).items()}
    return Unit((row["task"], row["filter"], row["doc_id"], row["prompt"]), f"{row['task']} {row['doc_id']}", scores)


def _lm_eval_example(row: Row) -> list[str]:
    said = json.loads(row["sample"]).get("filtered_resps")
    return [f"{row['task']}: {cut(row['prompt'])}", f"target: {cut(row['target'])}", f"given: {cut(str(said))}"]


def cut(text: str) -> str:
    """Return a text on one line, at most `TEXT_CHARS` of it."""
    line = " ".join(str(text).split())
    return line if len(line) <= TEXT_CHARS else f"{line[:TEXT_CHARS]} …"


ASKED: tuple[AskedProbe, ...] = (
    AskedProbe(
        "recall",
        "Recall: what is written after a document's title and first words",
        "Share of the rest's tokens that are the likeliest; word overlap of what is written; words right in a row",
        _recall_unit,
        _recall_example,
    ),
    AskedProbe(
        "forgetting",
        "Forgetting: texts and claims that were not memorised",
        "NLL per token of held-out documents and of the general text; claims about held-out pages",
        _forgetting_unit,
        _forgetting_example,
        frozenset({"nll", "general_nll", "unparsed"}),
    ),
    AskedProbe(
        "choices",
        "Questions with choices",
        "Share answered right, what guessing gives, and the share without an answer",
        _choices_unit,
        _choices_example,
        frozenset({"unparsed"}),
    ),
    AskedProbe(
        "lm_eval",
        "lm-evaluation-harness",
        "Metrics of the tasks, as lm-evaluation-harness names them",
        _lm_eval_unit,
        _lm_eval_example,
    ),
)


def later_askings(trials: Sequence[Trial]) -> dict[str, list[str]]:
    """Return probe -> the labels under which it was asked, its own first; only of probes that were asked again."""
    labels = dict.fromkeys(label for t in trials if t.status == "done" for label in sorted(t.answers))
    probes = dict.fromkeys(label.partition(":")[0] for label in labels if ":" in label)
    return {probe: sorted(label for label in labels if label.partition(":")[0] == probe) for probe in probes}


def asked_trials(study: Study, probe: AskedProbe) -> list[Trial]:
    """Return the finished trials that have figures of a probe."""
    found = (trial for trial in study.trials if trial.status == "done")
    return [trial for trial in found if any(name.startswith(f"{probe.asking}/") for name in trial.metrics)]


def answer_rows(study: Study, trial: Trial, probe: AskedProbe) -> list[Row]:
    """Return a trial's answers to a probe; none where its file is missing or not what it should be."""
    import pyarrow as pa

    if trial.answers_problem(probe.asking):
        return []
    try:
        table = read_answers_table(study.storage, trial, probe.asking)
        rows: list[Row] = table.select(list(PROBES[probe.name].answers)).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return []
    return rows


def print_examples(study: Study, probe: AskedProbe) -> list[tuple[str, str]]:
    """Return printed answers of some trials, of each model and variant the first: title and text."""
    picked: dict[tuple[str, str], Trial] = {}
    for trial in asked_trials(study, probe):
        picked.setdefault((trial.model, variant(trial)), trial)
    found = []
    for (model, name), trial in list(picked.items())[:MAX_TRIALS]:
        printed = [lines for row in answer_rows(study, trial, probe) if (lines := probe.example(row))]
        if printed:
            found.append((f"{model}, {name}", in_rules(printed[:MAX_EXAMPLES])))
    return found


def in_rules(examples: Sequence[Sequence[str]]) -> str:
    """Print examples with a rule before each."""
    return "\n".join(line for lines in examples for line in (RULE, *lines))
