"""A trained memory as a model of MLflow's registry: loaded back, it is the frozen model with the memory attached.

Loading needs this package and the language model (from the hub, a folder or the sample models); the file that MLflow
keeps is the memory alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mlflow.pyfunc import PythonModel

from sweep.records.manifest import sweep_stages
from sweep.records.record import Record
from sweep.records.study_questions import ERROR, RIGHT
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.tracking.address import Tracking
from sweep.tracking.client import Runs, told_in_one_line
from sweep.tracking.layout import run_status, time_ms
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from trainables.lm.reference import Attached

MEMORY = "memory.safetensors"
BEST = "best"
DOCUMENT = "document"
"""Parameter of a registered model's `predict`."""
_URI = "MLFLOW_TRACKING_URI"


class MemoryModel(PythonModel):  # type: ignore[misc]
    """Answers prompts with a frozen language model and one trained memory."""

    def load_context(self, context: Any) -> None:
        """Load the language model that the configuration names and attach the memory to it."""
        import torch

        from trainables.lm.card import model_card
        from trainables.lm.reference import WholeModel
        from trainables.lm.sample.models import ensure_sample_models
        from trainables.lm.tokens import load_tokenizer

        config = context.model_config
        card = model_card(config["model"], config["revision"])
        if card.is_sample:
            ensure_sample_models([card.name])
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = load_tokenizer(card)
        self.model = WholeModel(card, getattr(torch, config["dtype"]), device).model
        self.new_tokens = int(config["new_tokens"])
        self._file = context.artifacts["memory"]
        self._attached: Attached | None = None
        self._document: str | None = None
        self._attach(None)

    def _attach(self, document: str | None) -> None:
        """Attach the memory, a hard one confined to what a document may use, instead of what was attached before."""
        from trainables.adapters.memory.io import load_memory
        from trainables.lm.reference import attach_memory

        saved = load_memory(self._file, document=document)
        if self._attached is not None:
            self._attached.remove()
        self._attached = attach_memory(self.model, saved.memory.to(self.model.device), saved.layer)
        self._document = document

    # MLflow would take an annotation for the whole schema, which then has no parameters.
    def predict(self, context, model_input, params=None) -> list[str]:  # type: ignore[no-untyped-def]
        """Return what the model writes after each prompt (greedy).

        Args:
            context: not used.
            model_input: the prompts; MLflow makes a table with one column of a list.
            params: `document`: the title of the document that the prompts are about, for a memory of hard mode, which
                then answers with the entries of that document as in training. Empty: every entry is used.

        Raises:
            DataError: a hard memory knows of no such document.
        """
        import numpy as np
        import torch

        from trainables.lm.tokens import encode

        document = (params or {}).get(DOCUMENT) or None
        if document != self._document:
            self._attach(document)
        answers = []
        for prompt in np.asarray(model_input).ravel():
            tokens = torch.tensor([encode(self.tokenizer, str(prompt))], device=self.model.device)
            with torch.inference_mode():
                written = self.model.generate(
                    tokens,
                    attention_mask=torch.ones_like(tokens),
                    max_new_tokens=self.new_tokens,
                    do_sample=False,
                    pad_token_id=0,
                )
            answers.append(str(self.tokenizer.decode(written[0, tokens.shape[1] :])))
        return answers


def register_memory(
    storage: SweepStorage, sweep: str, tracking: Tracking, which: str = BEST, index: RecordIndex | None = None
) -> str:
    """Log a trial's memory as a model on its run and as a new version in the registry; return a line that says so.

    Args:
        storage: the storage.
        sweep: whose trials.
        tracking: where its runs are.
        which: a trial id, or `best`: the best accuracy, among equals the lowest memorisation error.
        index: the records of the storage, where they have been read already.

    Raises:
        ConfigError: there is no such trial, or none with a trained memory.
        TrackingError: MLflow does not answer, or the trial has no run.
    """
    index = storage.index(set_aside=False) if index is None else index
    heads = [index[trial] for trial in sweep_stages(storage, sweep, index) if trial in index]
    folders = {head.id: head.folder for head in heads}
    record = _chosen([head.record() for head in heads if storage.exists(f"{head.folder}/{MEMORY}")], which, sweep)
    with told_in_one_line(tracking.uri), TemporaryDirectory() as folder:
        runs = Runs(tracking, storage.storage_id())
        heads_there = [run for run in runs.find(trial=record["id"]) if run.complete]
        if not heads_there:
            raise ConfigError(f"trial {record['id']}: no run in MLflow; publish first")
        path = Path(folder) / MEMORY
        path.write_bytes(storage.read(f"{folders[record['id']]}/{MEMORY}"))
        version = _log(runs, heads_there[0].run, record, path, f"memory-sweep-{sweep}")
    return f"model memory-sweep-{sweep} version {version}: trial {record['id']}, models:/memory-sweep-{sweep}/{version}"


def _chosen(records: Sequence[Record], which: str, sweep: str) -> Record:
    if which != BEST:
        found = next((record for record in records if record["id"] == which), None)
        if found is None:
            raise ConfigError(f"register={which!r}: no trial of {sweep} with a trained memory has this id")
        return found
    scored = [r for r in records if r["status"] == "done" and r["metrics"].get(ERROR.metric) is not None]
    if not scored:
        raise ConfigError(f"{sweep}: no trial that is done and has a trained memory")
    return max(scored, key=lambda r: (r["metrics"].get(RIGHT.metric) or 0.0, -r["metrics"][ERROR.metric]))


def _log(runs: Runs, run: str, record: Record, path: Path, name: str) -> str:
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    text = Schema([ColSpec("string")])
    before, variable = mlflow.get_tracking_uri(), os.environ.get(_URI)
    mlflow.set_tracking_uri(runs.tracking.uri)
    try:
        with mlflow.start_run(run_id=run):
            logged = mlflow.pyfunc.log_model(
                name="memory",
                python_model=MemoryModel(),
                artifacts={"memory": str(path)},
                model_config={
                    "model": record["model"]["given"],
                    "revision": record["model"]["revision"],
                    "dtype": record["identity"]["dtype"],
                    "new_tokens": 20,
                },
                pip_requirements=[f"memory-sweep=={record['versions']['memory-sweep']}"],
                signature=ModelSignature(text, text, ParamSchema([ParamSpec(DOCUMENT, "string", "")])),
                input_example=None,
                registered_model_name=name,
            )
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop(_URI, None)  # MLflow sets it along with its own
        os.environ.update({_URI: variable} if variable is not None else {})
        runs.end(run, run_status(record), time_ms(record["finished_at"]))  # logging has moved the run's end to now
    return str(logged.registered_model_version)
