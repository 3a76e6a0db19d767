"""CounterFact answers printed as note 002 prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.report.naming import variant
from sweep.report.study import Study, Trial, read_answers_table, read_extra

COUNTERFACT = "counterfact"
MAX_TRIALS = 6
MAX_PROMPTS = 5
RULE = "-" * 15
_TEXTS = ("prompt", "target_true", "target_new")
_ANSWERS = ("answers", "paraphrase_answers", "neighborhood_answers")


@dataclass(frozen=True)
class Samples:
    """Answers of one trial, printed for people.

    Attributes:
        title: the trial.
        text: its answers.
        heading: of the section.
        about: a sentence under the heading.
    """

    title: str
    text: str
    heading: str = "CounterFact answers"
    about: str = "Sampled answers to the records' own prompts, as the study's notes print them."


def counterfact_samples(study: Study) -> list[Samples]:
    """Return printed answers of some trials: of each model and variant the first."""
    picked: dict[tuple[str, str], Trial] = {}
    for trial in study.trials:
        if trial.status == "done" and "counterfact" in (trial.get("probes") or ()):
            picked.setdefault((trial.model, variant(trial)), trial)
    found = []
    for (model, name), trial in list(picked.items())[:MAX_TRIALS]:
        samples = samples_of(study, trial)
        if samples:
            found.append(Samples(f"{model}, {name}", print_samples(samples[:MAX_PROMPTS])))
    return found


def samples_of(study: Study, trial: Trial) -> list[Mapping[str, Any]]:
    """Return a trial's records with prompt, targets and answers; what is in the file in another form is left out."""
    read = _read(study, trial)
    return [sample for sample in read if _is_sample(sample)] if isinstance(read, list) else []


def _read(study: Study, trial: Trial) -> Any:
    import pyarrow as pa

    path = trial.answers.get(COUNTERFACT, "")
    if path.endswith(".json"):
        return read_extra(study.storage, trial, path.rpartition("/")[2])
    if trial.answers_problem(COUNTERFACT):
        return None
    try:
        return read_answers_table(study.storage, trial, COUNTERFACT).to_pylist()
    except (OSError, ValueError, pa.ArrowException):
        return None


def _is_sample(sample: Any) -> bool:
    if not isinstance(sample, dict) or not all(isinstance(sample.get(name), str) for name in _TEXTS):
        return False
    answers = [sample.get(name, []) for name in _ANSWERS]
    return all(isinstance(given, list) and all(isinstance(text, str) for text in given) for given in answers)


def print_samples(samples: Sequence[Mapping[str, Any]]) -> str:
    """Print prompt, target word and sampled answers, a rule before each.

    The target word of the study's notes is the counterfactual one; the true one is printed beside it.
    """
    lines = []
    for sample in samples:
        new, true = sample.get("target_new", ""), sample.get("target_true", "")
        lines += [
            RULE,
            f"Prompt: {sample.get('prompt', '')}",
            f"Target word: {new} (true: {true})",
            f"Generated answers: {list(sample.get('answers', ()))!r}",
        ]
    return "\n".join(lines)
