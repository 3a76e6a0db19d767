"""What the saved views of a sweep show: one for each question that its varied fields and its metrics can answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sweep.tracking.layout import PARAM_NAMES

BARS, POINTS, LINES = 50, 100, 20
"""Runs in a bar chart, a scatter plot and a line chart: as many as are still told apart (a page holds 100 at first)."""
ERROR, LEAKAGE, ACCURACY, MACRO = "memory/nll", "memory/leakage", "fever/accuracy", "fever/f1_macro"
AGAINST = {
    "vs_pretrained": ("against pretrained", "verdict"),
    "vs_plain": ("against plain memorising", "verdict_vs_plain"),
}
_ANSWERS = (ACCURACY, MACRO, "counterfact/true_rate")
_CURVES = ("train/nll", "train/loss", "train/leakage")
_ACROSS = ("alpha", "allocation", "num_documents", "layer", "memory_dim", "num_shots", "content", "model")
_START = "attributes.start_time"

Chart = dict[str, Any]
Stages = Mapping[str, str]


@dataclass(frozen=True)
class View:
    """One saved view.

    Attributes:
        key: short name, part of its id.
        title: as the menu shows it, after the sweep's name.
        where: condition on the runs beyond belonging to the sweep.
        order_by: column that sorts the runs.
        ascending: smallest first.
        columns: of the table.
        sections: charts by heading, in their order.
        charts: whether the link opens the charts rather than the table.
        shown: which of the runs the charts show at first: all, or the first 20.
    """

    key: str
    title: str
    where: str
    order_by: str
    ascending: bool
    columns: Sequence[str]
    sections: Mapping[str, Sequence[Chart]]
    charts: bool = False
    shown: str = "SHOW_ALL"


def views_of(
    sweep: str, varied: Iterable[str], metrics: Iterable[str], stage_of: Stages = MappingProxyType({})
) -> list[View]:
    """Return the views of a sweep.

    Args:
        sweep: its name.
        varied: identity fields in which its trials differ.
        metrics: names of the metrics that its runs have.
        stage_of: the stage that shows best how a field acts, by field.
    """
    sight = _Sight(sweep, list(varied), frozenset(metrics), stage_of)
    found = [sight.everything(), sight.layers(), sight.structure(), sight.against(), sight.failed()]
    return [view for view in found if view]


@dataclass(frozen=True)
class _Sight:
    """What there is to show of a sweep."""

    sweep: str
    fields: Sequence[str]
    metrics: frozenset[str]
    stage_of: Stages

    def everything(self) -> View:
        """All trials, with the study's columns: what varies, what came out, how it compares."""
        sections = {
            "Answer": _bars([*self._known(_ANSWERS), *self._compared]),
            "Memory": [*_bars(self._known((ERROR, LEAKAGE))), *self._parallel(_ACROSS)],
            "Training": self._curves,
            "Cost": _bars(self._known(("cost/total_s",))),
        }
        return View("all", "all trials", "", *self._order, self._table, sections, shown="FIRST_20_RUNS")

    def layers(self) -> View | None:
        """Error and accuracy by layer, in the stage that compares layers."""
        if "layer" not in self.fields or not self._known((ERROR, ACCURACY)):
            return None
        columns = [_column("params", "hook_layer"), _column("params", "hook_depth"), *self._table]
        sections = {
            "Error by layer": [_scatter("hook_depth", name) for name in self._known((ERROR,))],
            "Accuracy by layer": [_scatter("hook_depth", name) for name in self._known((ACCURACY, MACRO))],
            "Error": _bars(self._known((ERROR,))),
            "Training": self._curves,
        }
        return View("layers", "layers", self._stage("layer"), *self._order, _once(columns), sections, True)

    def structure(self) -> View | None:
        """Alpha and allocation against error, leakage and accuracy; a run's colour says its allocation."""
        structure = [name for name in ("alpha", "allocation") if name in self.fields]
        if not structure:
            return None
        columns = [*(_column("params", _param(name)) for name in structure), *self._table]
        measured = [*self._known((ACCURACY, ERROR, LEAKAGE)), *self._compared]
        sections = {
            "Alpha x allocation": self._parallel(structure),
            "By alpha (colour: allocation)": [_scatter("alpha", name) for name in measured if "alpha" in structure],
            "Answer": _bars(self._known((ACCURACY, MACRO))),
            "Memory": _bars(self._known((ERROR, LEAKAGE))),
        }
        stage = self._stage("alpha")
        return View("alpha_allocation", "alpha x allocation", stage, *self._order, _once(columns), sections, True)

    def against(self) -> View | None:
        """How trials differ from the pretrained model, or else from plain memorising, the best difference first."""
        first = next((against for against in AGAINST if f"{against}/accuracy" in self.metrics), None)
        if first is None:
            return None
        title, verdict = AGAINST[first]
        ends = ("accuracy", "accuracy_low", "accuracy_high", "f1_macro", "p_holm")
        names = self._known(f"{first}/{end}" for end in ends)
        columns = [*self._params, _column("tags", verdict), *(_column("metrics", name) for name in names)]
        sections = {
            "Difference in accuracy": _bars(names[:3]),
            "Beside the error": [_scatter(ERROR, names[0], "METRIC") for _ in self._known((ERROR,))],
        }
        where = f"metrics.`{names[0]}` > -2"  # has the metric
        return View("against", title, where, _column("metrics", names[0]), False, columns, sections)

    def failed(self) -> View:
        """Trials without a full result, with what went wrong."""
        columns = [*self._params, *(_column("tags", name) for name in ("status", "error", "not_finite", "host"))]
        sections = {"Training": self._curves}
        return View("failed", "failed and diverged", "tags.status != 'done'", _START, False, columns, sections)

    @property
    def _order(self) -> tuple[str, bool]:
        return (_column("metrics", ERROR), True) if ERROR in self.metrics else (_column("metrics", ACCURACY), False)

    @property
    def _params(self) -> list[str]:
        return [_column("params", _param(name)) for name in self.fields]

    @property
    def _compared(self) -> list[str]:
        return self._known(f"{against}/accuracy" for against in AGAINST)

    @property
    def _curves(self) -> list[Chart]:
        return [_line(name) for name in self._known(_CURVES)]

    @property
    def _table(self) -> list[str]:
        compared = [against for against in AGAINST if f"{against}/accuracy" in self.metrics]
        ends = ("accuracy", "accuracy_low", "accuracy_high")
        results = self._known(("memory/nll_before", ERROR, LEAKAGE, *_ANSWERS))
        results += self._known(f"{against}/{end}" for against in compared for end in ends)
        return [
            *self._params,
            *(_column("tags", AGAINST[against][1]) for against in compared[:1]),
            *(_column("metrics", name) for name in results),
            *(_column("tags", AGAINST[against][1]) for against in compared[1:]),
            *(_column("attributes", name) for name in ("Source", "Version", "Dataset")),
        ]

    def _parallel(self, fields: Iterable[str]) -> list[Chart]:
        across = [_param(name) for name in fields if name in self.fields][:4]
        measured = self._known((ERROR, LEAKAGE, ACCURACY))
        return [_lines_through(across, measured)] if across and measured else []

    def _known(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.metrics]

    def _stage(self, field: str) -> str:
        return in_stage(self.sweep, self.stage_of.get(field, ""))


def in_stage(sweep: str, stage: str) -> str:
    """Return the condition on a trial to belong to a stage (its tag names all of its stages); empty without a stage."""
    return f"tags.`in_{sweep}` LIKE '%{stage}%'" if stage else ""


def _param(field: str) -> str:
    return PARAM_NAMES.get(field, field)


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _once(columns: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(columns))


def _bars(metrics: Iterable[str]) -> list[Chart]:
    return [{"type": "BAR", "metricKey": m, "runsCountToCompare": BARS, "displayName": m} for m in metrics]


def _line(metric: str) -> Chart:
    return {
        "type": "LINE", "metricKey": metric, "selectedMetricKeys": [metric], "runsCountToCompare": LINES,
        "lineSmoothness": 0, "xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "range": {},
        "selectedXAxisMetricKey": "", "yAxisKey": "metric", "yAxisExpressions": [], "ignoreOutliers": False,
        "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "displayName": metric,
    }  # fmt: skip


def _scatter(across: str, metric: str, kind: str = "PARAM") -> Chart:
    return {
        "type": "SCATTER", "xaxis": {"key": across, "type": kind}, "yaxis": {"key": metric, "type": "METRIC"},
        "runsCountToCompare": POINTS, "displayName": f"{metric} by {across}",
    }  # fmt: skip


def _lines_through(params: Sequence[str], metrics: Sequence[str]) -> Chart:
    """Parallel coordinates: every trial a line; the last metric gives the colour."""
    return {
        "type": "PARALLEL", "selectedParams": list(params), "selectedMetrics": list(metrics), "showAllRuns": True,
        "runsCountToCompare": POINTS, "displayName": "every trial a line",
    }  # fmt: skip
