"""What is trained, side by side: numbers trained, what it took, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sweep.report.naming import ACCURACY, MACRO, NLL
from sweep.report.references import is_baseline
from sweep.report.study import Trial
from sweep.report.table import Table
from sweep.report.tables.pivots import Measure, listing

PARAMS, FLOPS = "train/params", "train/flops"


def methods(trials: Sequence[Trial]) -> list[Table]:
    """Model x method with its settings; only where several methods that train something are compared."""
    trained = [t for t in trials if t.metric(PARAMS)]
    if len({t.get("method") for t in trained}) < 2:
        return []
    shown = [t for t in trials if t.metric(PARAMS) or is_baseline(t)]
    measures = [
        Measure("parameters", partial(_metric, PARAMS), digits=0),
        Measure("training TFLOP", _tflop),
        Measure("NLL before", partial(_metric, "memory/nll_before")),
        Measure("NLL", partial(_metric, NLL), True),
        Measure("accuracy", partial(_metric, ACCURACY), False),
        Measure("macro F1", partial(_metric, MACRO), False),
    ]
    return [listing(shown, ("model", "method"), measures, "methods", "What is trained, what it takes, what it does")]


def _metric(name: str, trial: Trial) -> float | None:
    return trial.metric(name)


def _tflop(trial: Trial) -> float | None:
    found = trial.metric(FLOPS)
    return None if found is None else found / 1e12
