"""Points that differ in one field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sweep.planning.points import Point, PointMaker
from trainables.trial.spec import FIELDS, make_spec

# Two values of every field, chosen so that each of them matters to what it can matter to.
RICH: dict[str, Any] = {
    "method": "memory", "content": "document+template", "probes": ("fever", "counterfact"), "segment_tokens": 100,
    "max_segments": 2, "claims_per_page": 5, "num_shots": 2, "num_clusters": 5, "allocation": "simset2", "alpha": 1.0,
    "memory_dim": 4096, "model": "llama2-7b", "data": "hub", "layer": 23,
}  # fmt: skip
OTHER: dict[str, Any] = {
    "model": "llama2-13b", "revision": "v2", "dtype": "bfloat16", "data": "sample", "detokenize": True,
    "method": "full_update", "content": "template", "template_loss": "answer", "num_documents": 20,
    "page_order": "subjects", "num_clusters": 3, "segment_tokens": 50, "max_segments": 1, "layer": 3, "depth": 0.5,
    "memory_dim": 12288, "norm_and_gate": False, "mode": "hard", "allocation": "random", "granularity": "token",
    "entries_per_group": 4, "mem_seed": 1, "alpha": 0.5, "epochs": 1, "batch_size": 64, "lr": 0.02,
    "weight_decay": 0.5, "warmup_steps": 0, "grad_clip": 1.0, "seed": 1, "num_shots": 4, "notes_labels": True,
    "claims_per_page": 1, "eval_epochs": (1,), "probes": ("fever",), "counterfact_records": 2, "num_answers": 1,
    "answer_tokens": 1, "temperature": 0.5, "micro_batch_tokens": 64, "checkpoint_every_s": 0.0, "keep_memory": False,
    "stage": "x",
}  # fmt: skip


@pytest.fixture
def two_points() -> Callable[[str], list[Point]]:
    """Make two points that differ in this field."""
    assert set(OTHER) == set(FIELDS), "a field lacks its other value"

    def make(name: str) -> list[Point]:
        other = {**RICH, name: OTHER[name]}
        if name == "depth":
            del other["layer"]
        return [PointMaker().point(make_spec(values)) for values in (RICH, other)]

    return make
