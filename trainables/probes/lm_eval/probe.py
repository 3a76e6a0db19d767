"""lm-evaluation-harness on the whole model of `transformers`, each member's memory attached in its turn."""

from __future__ import annotations

import copy
import json
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainables.data.documents import Document
from trainables.data.task_folder import task_folder
from trainables.errors import ConfigError, DataError, nearest
from trainables.lm.members import ModelMembers
from trainables.probes.lm_eval.plan import LmEvalPlan, metric_name
from trainables.probes.probe import Finding, Probe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEW_SHOT_SEED = 1234
"""lm-evaluation-harness's own: of the choice of few-shot examples."""
BATCH_TEXTS = 8


class LmEvalProbe(Probe[LmEvalPlan]):
    """Tasks, loaded once and put to each member."""

    def __init__(self, plan: LmEvalPlan, tasks: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Keep the tasks.

        Args:
            plan: which they are.
            tasks: from `TaskManager.load`.
            tokenizer: of the language model; a copy is used, for the library gives it a padding token.
        """
        self.plan, self._tasks, self._tokenizer = plan, tasks, copy.deepcopy(tokenizer)

    @classmethod
    def make(cls, plan: LmEvalPlan, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase) -> LmEvalProbe:
        """Load the tasks and their data.

        Raises:
            ConfigError: lm-evaluation-harness is not installed, or has no such task.
            DataError: a task whose file or data cannot be read.
        """
        manager = task_manager(plan)
        try:
            with quiet():
                tasks = manager.load(list(plan.lm_eval_tasks))
                for task in tasks["tasks"].values():
                    _set_shots(task, plan.lm_eval_shots)
        except (ConfigError, DataError):
            raise
        except Exception as error:  # whatever a task's file, its code or its data may raise
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise DataError(f"lm_eval_tasks={'+'.join(plan.lm_eval_tasks)}: cannot be loaded ({line})") from None
        return cls(plan, tasks, tokenizer)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many tasks there are, those of groups one by one."""
        return {"lm_eval_tasks": len(self._tasks["tasks"])}

    @property
    def longest_text(self) -> tuple[int, str]:
        """Nothing: the library cuts a text that is longer than the model takes from its left."""
        return 0, ""

    def ask(self, members: ModelMembers) -> list[Finding]:
        """Evaluate each member."""
        return [self._ask_member(members, member) for member in range(members.num_members)]

    def _ask_member(self, members: ModelMembers, member: int) -> Finding:
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        with members.attached(member) as whole, whole.usual() as model, quiet(), torch.no_grad(), same_random_state():
            for task in self._tasks["tasks"].values():  # its draw of examples goes on where the last member's ended
                task.set_fewshot_seed(seed=FEW_SHOT_SEED)
            lm = HFLM(pretrained=model, tokenizer=self._tokenizer, batch_size=BATCH_TEXTS)
            found = evaluate(
                lm=lm, task_dict=self._tasks, limit=self.plan.lm_eval_limit, bootstrap_iters=0, log_samples=True
            )
        return Finding(self._metrics(found["results"]), _rows(found["samples"]))

    def _metrics(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        """Return the metrics that the plan states, of the tasks and groups that it names."""
        stated, found = self.plan.metrics, {}
        for task in self.plan.lm_eval_tasks:
            for key, value in results.get(task, {}).items():
                metric, _, kept = key.partition(",")
                name = metric_name(task, metric, kept or "none")
                if name in stated and isinstance(value, (int, float)) and math.isfinite(value):
                    found[name] = float(value)
        return found


def task_manager(plan: LmEvalPlan) -> Any:
    """Return the library's index of tasks, the plan's among them.

    Its own tasks, which take seconds to find, are left out where the folder has all that are named.

    Raises:
        ConfigError: it is not installed, nothing is named, or there is no such task.
        DataError: the folder cannot be used.
    """
    if not plan.lm_eval_tasks:
        raise ConfigError("lm_eval_tasks: empty; name the tasks that lm_eval is to ask, such as arc_easy+piqa")
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ConfigError(
            "probes=lm_eval: lm-evaluation-harness is not installed; pip install 'memory-sweep[lm-eval]'"
        ) from None
    folder = None if plan.lm_eval_folder is None else str(task_folder(plan.lm_eval_folder))
    known: list[str] = []
    for defaults in (False, True):
        if defaults or folder:
            with quiet():
                manager = TaskManager(include_path=folder, include_defaults=defaults)
            known = list(manager.all_tasks)
            if set(plan.lm_eval_tasks) <= set(known):
                return manager
    missing = next(task for task in plan.lm_eval_tasks if task not in known)
    raise ConfigError(
        f"lm_eval_tasks={missing!r}: lm-evaluation-harness has no such task"
        f"{'' if folder is None else f', nor has {folder}'}{nearest(missing, known)}"
    )


def _set_shots(task: Any, shots: int | None) -> None:
    """Set the number of few-shot examples, as the library's `simple_evaluate` does."""
    own = task.get_config("num_fewshot")
    if shots is None or own == 0:
        task.set_config(key="num_fewshot", value=own or 0)
    else:
        task.set_config(key="num_fewshot", value=shots)


def _rows(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row for each example and filter, the library's own sample with it."""
    rows = []
    for task, own in samples.items():
        for sample in own:
            scores = {name: sample[name] for name in sample["metrics"] if _is_number(sample.get(name))}
            arguments = sample["arguments"]
            rows.append(
                {
                    "task": task,
                    "doc_id": int(sample["doc_id"]),
                    "filter": str(sample["filter"]),
                    "prompt": str(arguments[0][0]) if arguments else "",
                    "target": str(sample["target"]),
                    "sample": json.dumps(sample, default=str, sort_keys=True),
                    "scores": json.dumps({name: float(value) for name, value in scores.items()}, sort_keys=True),
                }
            )
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's remarks on every task out of a worker's output."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def same_random_state() -> Iterator[None]:
    """Leave the random state of Python, numpy and torch as it was."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
