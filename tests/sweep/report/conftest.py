"""Made-up storages: real trial ids, records, plans and predictions, with numbers drawn from known rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.records.record import FORMAT, ID_VERSION, record_bytes
from sweep.records.sweep_storage import SweepStorage
from trainables.adapters.memory.plan import ALLOCATIONS
from trainables.lm.card import model_card
from trainables.pack.result import write_member_files
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.spec import TrialSpec

LABELS = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
DATA_KEY = "made-up@1"


@dataclass
class FakeStorage:
    """Writes trials into a storage folder, without the storage's own flushing to disk."""

    root: Path
    claims_per_page: int = 5
    ids: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def add(
        self,
        sweep: str,
        stage: str,
        *,
        write: bool = True,
        status: str = "done",
        accuracy: float | None = 0.5,
        n_trunc: int | None = None,
        metrics: dict[str, float] | None = None,
        curves: dict[str, list[list[float]]] | None = None,
        extra: dict[str, Any] | None = None,
        parsed: Sequence[str | None] | None = None,
        answer_seed: int = 0,
        probe_versions: dict[str, int] | None = None,
        versions: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        **fields: Any,
    ) -> str:
        """Plan a trial and, with `write`, record it; `accuracy` is the share of pages' claims answered right."""
        spec = TrialSpec(**fields)
        card = model_card(spec.model)
        spec = canonical(spec, card)
        stated = identity(spec, card, DATA_KEY)
        ident = trial_id(stated)
        stages = self.ids.setdefault(sweep, {})
        if ident not in stages.setdefault(stage, []):
            stages[stage].append(ident)
        if not write:
            return ident
        folder = self.root / SweepStorage(str(self.root)).trial_folder(sweep, spec, card.name, ident)
        folder.mkdir(parents=True, exist_ok=True)
        found, files = dict(metrics or {}), {}
        if status == "done" and (accuracy is not None or parsed is not None):
            given = None if parsed is None else tuple(parsed)
            content, measured = answered(spec.num_documents, self.claims_per_page, accuracy or 0.0, answer_seed, given)
            files["predictions.parquet"] = content
            found = {**measured, **found}
        for name, content in (extra or {}).items():
            files[name] = content if isinstance(content, bytes) else json.dumps(content).encode()
        pages = n_trunc or spec.num_documents
        record = {
            "format": FORMAT, "id_version": ID_VERSION, "id": ident, "status": status, "sweep": sweep,
            "stage": stage, "pack": "", "labels": labels or {}, "identity": stated, "seed": spec.seed,
            "model": {"name": card.name, "key": card.key, "num_blocks": card.num_blocks},
            "data": {"key": DATA_KEY, "given": "made-up"}, "metrics": found, "curves": curves or {},
            "counts": {"n_full": 1000, "n_top": pages, "n_trunc": pages, "valid_rows_selected": pages * 5},
            "timings": {}, "flops": 0.0, "host": "here", "versions": versions or {}, "error": None,
            "files": write_member_files(str(folder), files),
            "started_at": "2024-01-01T00:00:00.000+00:00", "finished_at": "2024-01-01T00:01:00.000+00:00",
        }  # fmt: skip
        record |= {"probe_versions": probe_versions} if probe_versions else {}
        (folder / "record.json").write_bytes(record_bytes(record))
        return ident

    def add_inductive(
        self,
        sweep: str = "inductive",
        *,
        models: Iterable[str] = ("pythia-1b", "llama2-7b"),
        depths: Iterable[float] = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9),
        documents: Iterable[int] = (2, 10, 50, 100, 1000),
        alphas: Iterable[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0),
        allocations: Iterable[str] = ALLOCATIONS[1:],
        with_analysis: bool = False,
    ) -> None:
        """Add note 002's grid: lower error in the middle of the depth and for a little alpha."""
        rng = np.random.default_rng(0)
        for model, count in product(models, documents):
            self.add(sweep, "baseline", model=model, method="pretrained", num_documents=count, accuracy=0.42)
        for model, count, depth, alpha in product(models, documents, depths, alphas):
            for index, allocation in enumerate(allocations if alpha else ("none",)):
                noise = float(rng.normal(0, 0.01))
                low = 0.4 + 2.5 * abs(depth - 0.6) + 0.1 * abs(alpha - 0.6) + 0.03 * index + noise
                curves = falling(3.1, low, 25)
                metrics = {"memory/nll": curves["train/nll"][-1][1], "memory/nll_before": 3.1}
                if alpha:
                    metrics["memory/leakage"] = 0.8 / (1 + 3 * alpha)
                else:
                    metrics |= {f"memory/leakage_{name}": 0.8 for name in ALLOCATIONS[1:]}
                described = with_analysis and alpha == 0.2 and depth == 0.75
                self.add(
                    sweep, "grid", model=model, depth=depth, num_documents=count, memory_dim=4096,
                    allocation=allocation, alpha=alpha, metrics=metrics, curves=curves,
                    accuracy=round(0.55 - 0.3 * abs(depth - 0.7) - 0.02 * alpha + noise, 2),
                    answer_seed=int(rng.integers(3)),
                    extra={"analysis.json": analysis(allocation, count, 4096)} if described else None,
                )  # fmt: skip

    def write_plans(self) -> None:
        """Write each sweep's manifest."""
        for sweep, stages in self.ids.items():
            plan = {"space": sweep, "stages": [{"name": n, "ids": ids} for n, ids in stages.items()]}
            (self.root / sweep).mkdir(parents=True, exist_ok=True)
            (self.root / sweep / "plan.json").write_text(json.dumps(plan))


@cache
def answered(
    pages: int, per_page: int, accuracy: float, seed: int, parsed: tuple[str | None, ...] | None
) -> tuple[bytes, dict[str, float]]:
    """Return a predictions file and its metrics."""
    table = predictions(pages, per_page, accuracy, seed, parsed)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes(), fever(table)


def predictions(
    pages: int, per_page: int, accuracy: float, seed: int = 0, parsed: Sequence[str | None] | None = None
) -> Any:
    """Return a predictions table; a claim is right when its own fixed difficulty is below the accuracy, mostly."""
    count = pages * per_page
    fixed = np.random.default_rng(1)
    labels = fixed.integers(0, 3, count)
    rows = fixed.integers(1, 4, count)
    difficulty = np.clip(np.repeat(fixed.random(pages), per_page) * 0.3 + fixed.random(count) * 0.7, 0, 1)
    own = np.random.default_rng(seed)
    right = difficulty + 0.02 * own.standard_normal(count) < accuracy
    letters = ["abc"[label] if ok else "abc"[(label + 1) % 3] for label, ok in zip(labels, right, strict=True)]
    letters = list(parsed) if parsed is not None else letters
    return pa.table({
        "claim_id": [f"c{i}" for i in range(count)],
        "page": [f"page {i // per_page}" for i in range(count)],
        "label": [LABELS[label] for label in labels],
        "rows": pa.array(rows, pa.int32()),
        "answer": [f" ({letter})" if letter else " ?" for letter in letters],
        "parsed": pa.array(letters, pa.string()),
        "correct": [letter == "abc"[label] for letter, label in zip(letters, labels, strict=True)],
    })  # fmt: skip


def fever(table: Any) -> dict[str, float]:
    """Return accuracy and macro F1 of a predictions table, by scikit-learn."""
    from sklearn.metrics import f1_score

    names = dict(zip("abc", LABELS, strict=True))
    given = [names.get(letter, "unparsed") for letter in table["parsed"].to_pylist()]
    truth, rows = table["label"].to_pylist(), np.array(table["rows"])
    right = np.array(table["correct"])
    macro = f1_score(truth, given, labels=list(LABELS), average="macro", sample_weight=rows, zero_division=0)
    return {"fever/accuracy": float((right * rows).sum() / rows.sum()), "fever/f1_macro": float(macro)}


def falling(start: float, end: float, epochs: int) -> dict[str, list[list[float]]]:
    """Return training curves that fall exponentially."""
    steps = np.arange(1, epochs + 1)
    values = end + (start - end) * np.exp(-4 * steps / epochs)
    return {"train/nll": [[int(e), float(v)] for e, v in zip(steps, values, strict=True)]}


def analysis(name: str, groups: int, memory_dim: int) -> dict[str, Any]:
    """Return an analysis file whose overlap is the Jaccard similarity plus noise."""
    rng = np.random.default_rng(groups)
    jaccard = rng.beta(1.5, 8, 2000 if groups > 60 else groups * (groups - 1) // 2)
    pairs = [{"left": 0, "right": 1, "jaccard": float(j), "shared": 3,
              "overlap": float(np.clip(j + 0.03 * rng.standard_normal(), 0, 1))} for j in jaccard]  # fmt: skip
    return {
        "allocation": {"allocation": name, "granularity": "dim", "memory_dim": memory_dim, "groups": groups,
                       "entries": rng.integers(3, 9, groups).tolist(),
                       "load": rng.poisson(2, memory_dim).tolist(), "pairs": pairs},
        "leakage_by_group": {str(g): float(v) for g, v in enumerate(rng.beta(2, 6, groups))},
    }  # fmt: skip


@pytest.fixture
def fake(tmp_path: Path) -> FakeStorage:
    """An empty storage."""
    return FakeStorage(tmp_path / "outputs")


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay figures out and leave their files empty: painting them is most of a report's time.

    `figures/` and `test_command.py` paint them all and look at the files.
    """
    import sweep.report.build  # noqa: F401  brings all modules that finish a figure
    from sweep.report.figures import drawing

    def finish(canvas: object, slug: str, title: str, caption: str) -> drawing.Figure:
        return drawing.Figure(slug, title, caption, b"", b"")

    painted = [module for module in list(sys.modules.values()) if vars(module).get("finish") is drawing.finish]
    assert len(painted) > 4, "the modules of figures, and drawing itself"
    for module in painted:
        monkeypatch.setattr(module, "finish", finish)
