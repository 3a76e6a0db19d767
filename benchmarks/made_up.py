"""Made-up records in the form of note 002's grid, to time what is done with thousands of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import count, islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sweep.records.record import Origin, Record, begin_record, complete_record, record_bytes
from sweep.records.sweep_storage import SweepStorage
from sweep.tracking.address import EXPERIMENT, Tracking
from trainables.adapters.memory.plan import ALLOCATIONS
from trainables.lm.card import model_card
from trainables.pack.result import write_member_files
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity
from trainables.trial.making import make_spec
from trainables.trial.spec import TrialSpec

MODELS = ("pythia-6.9b", "llama2-7b")
DEPTHS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0)
DOCUMENTS = (2, 10, 50, 100, 1000)
EPOCHS = 25
CLAIMS_PER_PAGE = 5
LABELS = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
ANSWER_SETS = 4
"""Different answers to the same questions; more would only take longer to write."""


def own_tracking(storage: SweepStorage) -> Tracking:
    """Return the storage's own database, whatever the environment says."""
    artifacts = Path(storage.full("mlartifacts")).as_uri()
    return Tracking(f"sqlite:///{storage.full('mlflow.db')}", EXPERIMENT, artifacts)


def specs(number: int) -> list[TrialSpec]:
    """Return so many different trials: the pretrained models, then the grid, with one seed after the other."""
    return list(islice(_specs(), number))


def _specs() -> Iterator[TrialSpec]:
    for seed in count():
        for model, documents in product(MODELS, DOCUMENTS):
            yield make_spec({"model": model, "method": "pretrained", "num_documents": documents, "seed": seed})
        for model, documents, depth, alpha in product(MODELS, DOCUMENTS, DEPTHS, ALPHAS):
            for allocation in ALLOCATIONS[1:] if alpha else ("none",):
                yield make_spec({
                    "model": model, "num_documents": documents, "depth": depth, "alpha": alpha, "seed": seed,
                    "allocation": allocation, "memory_dim": 4096, "epochs": EPOCHS,
                })  # fmt: skip


def write_sweep(storage: SweepStorage, name: str, number: int) -> None:
    """Write a finished sweep: plan, records and predictions, without the storage's own flushing to disk."""
    ids = []
    for index, given in enumerate(specs(number)):
        card = model_card(given.model)
        spec = canonical(given, card)
        begun = begin_record(spec, identity(spec, card, "made-up@1"), card, Origin(name, "grid"))
        answers = None if index % 50 == 49 else (spec.num_documents, index % ANSWER_SETS)
        folder = Path(storage.full(storage.trial_folder(name, spec, card.name, begun["id"])))
        folder.mkdir(parents=True)
        files = {} if answers is None else {"predictions.parquet": _predictions(*answers)}
        told = write_member_files(str(folder), files)
        (folder / "record.json").write_bytes(record_bytes({**_finish(begun, spec, index), "files": told}))
        ids.append(begun["id"])
    storage.write_json(f"{name}/plan.json", {"space": name, "stages": [{"name": "grid", "ids": ids}]})


def _finish(begun: Record, spec: TrialSpec, index: int) -> Record:
    """Return a record with as many curves and metrics as a real one."""
    rng = np.random.default_rng(index)
    share = 0.5 + 0.1 * rng.random()
    metrics: dict[str, Any] = {
        f"fever/{name}": share for name in ("accuracy", "f1_macro", "f1_micro", "f1_supports", "f1_refutes", "f1_nei")
    }
    metrics["fever/unparsed"] = 0.0
    curves = {name: [[spec.epochs, value]] for name, value in metrics.items()}
    if spec.method == "memory":
        end = 0.4 + 2.5 * abs((spec.layer or 0) / 32 - 0.6) + 0.05 * spec.alpha + 0.05 * rng.random()
        steps = np.arange(1, EPOCHS + 1)
        falling = end + (3.1 - end) * np.exp(-4 * steps / EPOCHS)
        for part in ("nll", "loss", "leakage") if spec.alpha else ("nll", "loss"):
            curves[f"train/{part}"] = [[int(e), float(v)] for e, v in zip(steps, falling, strict=True)]
        left = [""] if spec.alpha else [f"_{name}" for name in ALLOCATIONS[1:]]
        memory = {"memory/nll": float(falling[-1]), **{f"memory/leakage{part}": 0.8 for part in left}}
        curves |= {part: [[EPOCHS, value]] for part, value in memory.items()}
        metrics |= {**memory, "memory/nll_before": 3.1}
        metrics |= {part: curve[-1][1] for part, curve in curves.items() if part.startswith("train/")}
    pages = spec.num_documents
    counts = {"n_full": 1000, "n_top": pages, "n_trunc": pages, "train_rows_selected": 2 * pages}
    timings = dict.fromkeys(("load_s", "data_s", "trunk_s", "train_s", "measure_s", "evaluate_s"), 1.5)
    diverged = index % 50 == 49
    return complete_record(begun, {
        "status": "diverged" if diverged else "done", "metrics": metrics, "curves": curves, "counts": counts,
        "timings": {**timings, "pack_size": 8}, "flops": 1e14,
    })  # fmt: skip


@cache
def _predictions(pages: int, answer_set: int) -> bytes:
    """Return a predictions file; a claim is answered right or wrong at random, the questions stay the same."""
    number = pages * CLAIMS_PER_PAGE
    fixed, own = np.random.default_rng(pages), np.random.default_rng(answer_set)
    labels = fixed.integers(0, 3, number)
    given = np.where(own.random(number) < 0.5 + 0.02 * answer_set, labels, (labels + 1) % 3)
    letters = ["abc"[i] for i in given]
    table = pa.table({
        "claim_id": [f"c{i}" for i in range(number)],
        "page": [f"page {i // CLAIMS_PER_PAGE}" for i in range(number)],
        "label": [LABELS[i] for i in labels],
        "rows": pa.array(fixed.integers(1, 4, number), pa.int32()),
        "answer": [f" ({letter})" for letter in letters],
        "parsed": letters,
        "correct": given == labels,
    })  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
