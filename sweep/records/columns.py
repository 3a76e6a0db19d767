"""What the columns of the tables of results mean, and in which unit: `python -m sweep.records.columns` prints the page.

A column is a name or a pattern over names (regular expression); the fields of a trial are declared in
`trainables.trial.spec`, and listed by `python -m sweep.fields`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trainables.probes.lm_eval.plan import OTHERS, SHARES
from trainables.trial.spec import FIELDS


@dataclass(frozen=True)
class Column:
    """One column, or several of one kind.

    Attributes:
        name: as people read it; a part in capitals stands for several.
        unit: of its numbers; empty for texts.
        meaning: what it is.
        pattern: what such names look like; default the name itself.
    """

    name: str
    unit: str
    meaning: str
    pattern: str = ""

    def is_of(self, name: str) -> bool:
        """Whether a table's column is meant."""
        return bool(re.fullmatch(self.pattern or re.escape(self.name), name))


NLL, SHARE = "nats per token", "share, 0 to 1"
METRICS = (
    Column("memory/nll_before", NLL, "memorisation error of the model as it comes, over the trial's documents"),
    Column("memory/nll_untrained", NLL, "the same with the adapter before training"),
    Column("memory/nll", NLL, "memorisation error after training"),
    Column("memory/nll_per_byte", "nats per byte of text", "the same, comparable between tokenizers"),
    Column("memory/nll_negative", NLL, "guided memories: error under a wrong document's key"),
    Column("memory/leakage", SHARE, "activation energy on entries outside a token's set"),
    Column("memory/leakage_SET", SHARE, "plain memories: out of the sets of an allocation", r"memory/leakage_\w.*"),
    Column("memory/PART", "that of the metric", "two memories: the metric of one of them", r"memory/[\w.-]+"),
    Column("train/loss", NLL, "mean over the last epoch's steps: error plus alpha times leakage, or the method's own"),
    Column("train/nll, train/nll_negative", NLL, "its error, and that under a wrong key", r"train/nll(_negative)?"),
    Column("train/leakage", SHARE, "its leakage"),
    Column("train/params", "numbers", "that are trained"),
    Column("train/flops", "floating-point operations", "of training"),
)
"""Of the table of trials, besides those of probes."""
PROBES = (
    Column("accuracy, accuracy_norm", SHARE, "answered right; normalised by length (choices)", "accuracy(_norm)?"),
    Column("f1_micro, f1_macro", SHARE, "F1 over all, and its mean over the three labels (fever)", "f1_m(icro|acro)"),
    Column("f1_LABEL", SHARE, "F1 of supports, refutes and nei, not enough info (fever)", "f1_(supports|refutes|nei)"),
    Column("unparsed", SHARE, "without an answer that could be read; counted as wrong"),
    Column("chance", SHARE, "answered right by guessing (choices)"),
    Column("masked", SHARE, "records asked under a hard memory's set (counterfact)"),
    Column("true_rate, new_rate", SHARE, "sampled answers that begin with the true, the counterfactual target",
           r"((with|without)_page_)?((paraphrase|neighborhood)_)?(true|new)_rate"),
    Column("token_f1", SHARE, "F1 of an answer's words with the true target's", "((with|without)_page_)?token_f1"),
    Column("token_accuracy, rouge_l, verbatim", SHARE,
           "recall: tokens that are the likeliest, ROUGE-L, words right in a row", "token_accuracy|rouge_l|verbatim"),
    Column("nll, general_nll", NLL, "forgetting: of documents not memorised, of the general text", "(general_)?nll"),
    Column("TASK_METRIC", "that of the task", "lm-evaluation-harness: the metric of one of its tasks",
           rf".+_({'|'.join((*SHARES, *OTHERS))})(_.+)?"),
)  # fmt: skip
"""What a probe measures. In the table of trials with the asking before it: `fever:num_shots=3/accuracy`."""
FIXED = (
    Column("id", "", "of the trial: a hash of everything that changes its result"),
    Column("sweep", "", "which sweep ran it"),
    Column("stage, stages", "", "the first of this sweep's stages that asks for it, and all of them", "stages?"),
    Column("status", "", "done, stopped (early, by a scheduler), diverged or failed"),
    Column("model_key, data_key", "", "what model and data contain, however they are called", "(model|data)_key"),
    Column("start_from_key", "", "id of the training whose weights it started from; `start_from` says it in words"),
    Column("maths", "", "version of the computation; trials of different ones are never taken for one another"),
    Column("depth", SHARE, "of the layer: (layer + 1) / blocks"),
    Column("groups", "groups", "of documents: num_clusters, or else num_documents"),
    Column("count/NAME", "number", "pages, rows, claims and the like: n_full, n_top, n_trunc, …", "count/.+"),
    Column("time/NAME_s", "seconds", "of a pack's steps, shared by its trials: load, data, trunk, train, …",
           "time/.+_s"),
    Column("time/pack_size", "trials", "that shared its forward passes, at most"),
    Column("flops", "floating-point operations", "of the trial, all in all"),
    Column("host", "", "the machine"),
    Column("started_at, finished_at", "ISO 8601, UTC", "when", "(started|finished)_at"),
    Column("error", "", "class and message of what it failed of"),
    Column("folder", "", "of its training's record, weights and analysis, below the storage"),
)  # fmt: skip
OF_ASKINGS = (
    Column("asking", "", "the probe, and how the asking differs from the trial's own fields: fever:num_shots=3"),
    Column("probe", "", "what asked"),
    Column("version", "number", "of the probe"),
    Column("answers", "", "where its answers lie, below the storage"),
)
OF_CURVES = (
    Column("curve", "", "name of a metric, as in the table of trials"),
    Column("epoch", "epochs", "after which it was measured; 0: before training"),
    Column("value", "that of the metric", "missing where it was no finite number"),
)
OF_ANSWERS = (
    Column("claim_id, case_id, question_id, doc_id", "", "which question, in its data", "(claim|case|question|doc)_id"),
    Column("page", "", "the page that it is about"),
    Column("question, prompt, text", "", "what was asked, or read", "question|prompt|text"),
    Column("label, target, expected", "", "the truth", "label|target|expected"),
    Column("target_true, target_new", "", "CounterFact's true and counterfactual targets", "target_(true|new)"),
    Column("choices", "", "what could be chosen"),
    Column("answer, written", "", "what was answered, as it was written", "answer|written"),
    Column("answers, paraphrase_answers, neighborhood_answers", "", "CounterFact's sampled answers",
           "((paraphrase|neighborhood)_)?answers"),
    Column("parsed", "", "the answer's letter; missing where none could be read"),
    Column("chosen, chosen_norm", "number", "of the likeliest choice, from 0; normalised by length", "chosen(_norm)?"),
    Column("correct, correct_norm", "", "whether it is right", "correct(_norm)?"),
    Column("log_likelihoods", "nats", "of the choices"),
    Column("weight, rows", "evidence annotations", "what a claim counts in accuracy and F1", "weight|rows"),
    Column("masked", "", "whether it was asked under a hard memory's set"),
    Column("tokens, tokens_right", "tokens", "of a rest, and those that are the likeliest", "tokens(_right)?"),
    Column("words, words_right", "words", "of a rest, and right before the first mistake", "words(_right)?"),
    Column("rouge_l", SHARE, "ROUGE-L of what was written"),
    Column("kind", "", "forgetting: held out, general or claim"),
    Column("nll", NLL, "of a text that was not memorised"),
    Column("task, filter, sample, scores", "", "lm-evaluation-harness: as it names them; the last two as JSON",
           "task|filter|sample|scores"),
)  # fmt: skip
TABLES = {
    "trials": "One row for each trial; every field of a trial has a column of its name (`python -m sweep.fields`).",
    "askings": "One row for each trial and asking: what its own fields ask, and what was asked later.",
    "curves": "One row for each trial, curve and epoch.",
    "answers": "One row for each answer.",
}
"""Names that `load_results` takes, and what a row is."""


def columns_of(table: str) -> tuple[Column, ...]:
    """Return the columns that a table may have, besides the fields of a trial."""
    first = tuple(column for column in FIXED if column.name in ("id", "sweep"))
    return {
        "trials": (*FIXED, *METRICS),
        "askings": (*first, *OF_ASKINGS, *PROBES),
        "curves": (*first, *OF_CURVES),
        "answers": (*first, *OF_ASKINGS[:1], *OF_ANSWERS),
    }[table]


def described(table: str, name: str) -> Column | None:
    """Return what is told of a column of a table; None where nothing is."""
    if table in ("trials", "askings") and name in FIELDS:
        return Column(name, "", FIELDS[name].meaning)
    of_probe = table == "trials" and "/" in name and not re.match("(memory|train|count|time)/", name)
    among = PROBES if of_probe else columns_of(table)
    return next((column for column in among if column.is_of(name.rpartition("/")[2] if of_probe else name)), None)


def columns_page() -> str:
    """Return docs/results.md."""
    parts = [PAGE.strip()]
    for table, told in TABLES.items():
        parts.append(f'## `load_results(path, "{table}")`\n\n{told}\n\n{_listed(columns_of(table))}')
    parts.append(
        "## Metrics of probes\n\nIn the table of trials with the asking before them (`fever/accuracy`, "
        "`fever:num_shots=3/accuracy`), in that of askings alone. More of each: [probes.md](probes.md).\n\n"
        f"{_listed(PROBES)}"
    )
    return "\n\n".join(parts) + "\n"


def _listed(columns: tuple[Column, ...]) -> str:
    lines = ["| column | unit | |", "| --- | --- | --- |"]
    for column in columns:
        names = ", ".join(f"`{name}`" for name in column.name.split(", "))
        lines.append(f"| {names} | {column.unit} | {column.meaning} |")
    return "\n".join(lines)


PAGE = """
# Results as tables

    from sweep import load_results

    trials = load_results("outputs/sample")                  # a pandas DataFrame, one row for each trial
    askings = load_results("outputs/sample", "askings")      # one for each trial and asking
    curves = load_results("outputs/sample", "curves")        # one for each epoch of each curve
    answers = load_results("outputs/sample", "answers", asking="fever")

All are made from the records as they are now, also while the sweep runs, of one sweep (`STORAGE/NAME`) or of all of a
storage. They share `id`, by which they merge: `curves.merge(trials[["id", "layer"]], on="id")`. As files:

    python -m sweep.export outputs/sample --to tables              # trials, askings and curves as CSV
    python -m sweep.export outputs/sample --to tables --parquet --table answers

The names of columns are stable; new ones may come. This page is printed by `python -m sweep.records.columns`.
"""


if __name__ == "__main__":
    print(columns_page(), end="")
