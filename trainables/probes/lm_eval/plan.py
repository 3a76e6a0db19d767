"""The probe of lm-evaluation-harness's tasks as planning sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.data.task_folder import task_folder_key
from trainables.probes.plan import ProbePlan, Reading, TextSizes

if TYPE_CHECKING:
    from trainables.probes.lm_eval.probe import LmEvalProbe

SHARES = ("acc", "acc_norm", "acc_mutual_info", "acc_bytes", "exact_match", "f1", "em", "mc1", "mc2", "brier_score")
OTHERS = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "bleu", "chrf", "ter", "rougeL", "mcc")
FILTERS = ("none", "strict-match", "flexible-extract", "get-answer", "remove_whitespace")
"""Names of metrics and filters that the tasks of lm-evaluation-harness 0.4 mostly have; what bears another name stands
with the answers only, for the metrics of a trial are known before it runs."""
EXAMPLES, EXAMPLE_TOKENS = 1000, 200
"""Of a task (ours: for costs only)."""


@dataclass(frozen=True, kw_only=True)
class LmEvalPlan(ProbePlan):
    """Tasks of lm-evaluation-harness, by name or from a folder of YAML files (the extra `lm-eval`).

    The texts are about none of the trial's documents, so every entry of a memory is used.

    Attributes:
        lm_eval_tasks: names of tasks or groups.
        lm_eval_folder: a folder with task files of one's own; None for none.
        lm_eval_limit: examples of each task, at most; None for all.
        lm_eval_shots: few-shot examples; None for what each task says.
    """

    name: ClassVar[str] = "lm_eval"
    main_setting: ClassVar[str] = "lm_eval_tasks"
    answers: ClassVar = {
        "task": "string",
        "doc_id": "int64",
        "filter": "string",
        "prompt": "string",
        "target": "string",
        "sample": "string",
        "scores": "string",
    }

    lm_eval_tasks: tuple[str, ...]
    lm_eval_folder: str | None
    lm_eval_limit: int | None
    lm_eval_shots: int | None

    @property
    def metrics(self) -> Mapping[str, tuple[float, float]]:  # type: ignore[override]
        """What each task may report: `TASK_METRIC`, and `TASK_METRIC_FILTER` behind a filter of its own."""
        return {
            metric_name(task, metric, kept): (0.0, 1.0) if metric in SHARES[:-1] else (-math.inf, math.inf)
            for task in self.lm_eval_tasks
            for metric in (*SHARES, *OTHERS)
            for kept in FILTERS
        }

    def identity(self) -> dict[str, Any]:
        """Return what decides the question; the folder by its content."""
        stated = {**super().identity(), "lm_eval_tasks": list(self.lm_eval_tasks)}
        if self.lm_eval_folder is not None:
            stated["lm_eval_folder"] = task_folder_key(self.lm_eval_folder)
        return stated

    def reading(self, sizes: TextSizes, num_documents: int) -> Reading:
        """Return the examples, through the whole model."""
        examples = len(self.lm_eval_tasks) * min(EXAMPLES, self.lm_eval_limit or EXAMPLES)
        return Reading(whole=examples * EXAMPLE_TOKENS * (1 + (self.lm_eval_shots or 0)))

    def check(self) -> None:
        """Refuse tasks that there are not."""
        from trainables.probes.lm_eval.probe import task_manager

        task_manager(self)

    @classmethod
    def load(cls) -> type[LmEvalProbe]:
        """Import the probe."""
        from trainables.probes.lm_eval.probe import LmEvalProbe

        return LmEvalProbe


def metric_name(task: str, metric: str, kept: str = "none") -> str:
    """Return the name of a task's metric; `kept` is the filter that its answers went through."""
    return f"{task}_{metric}" if kept == "none" else f"{task}_{metric}_{kept}"
