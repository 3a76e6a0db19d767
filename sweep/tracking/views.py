"""What the saved views of a sweep show: all its trials, each question that it asks, comparisons, failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.records.study_questions import (
    AGAINST,
    AGAINST_PRETRAINED,
    COMPARED,
    ENDS,
    ERROR,
    LAYERS,
    LEAKED,
    MACRO_F1,
    RATES,
    RESULTS,
    RIGHT,
    TRUE_RATE,
    Quality,
)
from sweep.tracking.asked import AskedQuestion
from sweep.tracking.layout import DEPTH, PARAM_NAMES

BARS, POINTS, LINES = 50, 100, 20
"""Runs in a bar chart, a scatter plot and a line chart: as many as are still told apart (a page holds 100 at first)."""
_CURVES = ("train/nll", "train/loss", "train/leakage")
_ACROSS = ("alpha", "allocation", "num_documents", "layer", "memory_dim", "num_shots", "content", "model")
_MOST_ACROSS = 4
_START = "attributes.start_time"

Chart = dict[str, Any]


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
    sweep: str, varied: Iterable[str], metrics: Iterable[str], asked: Iterable[AskedQuestion] = ()
) -> list[View]:
    """Return the views of a sweep.

    Args:
        sweep: its name.
        varied: identity fields in which its trials differ.
        metrics: names of the metrics that its runs have.
        asked: the questions that it asks.
    """
    sight = _Sight(sweep, list(varied), frozenset(metrics))
    found = [sight.everything(), *map(sight.question, asked), sight.against(), sight.failed()]
    return [view for view in found if view]


@dataclass(frozen=True)
class _Sight:
    """What there is to show of a sweep."""

    sweep: str
    fields: Sequence[str]
    metrics: frozenset[str]

    def everything(self) -> View:
        """All trials, with the study's columns: what varies, what came out, how it compares."""
        answers = self._known(quality.metric for quality in (RIGHT, MACRO_F1, TRUE_RATE))
        sections = {
            "Answer": _bars([*answers, *self._compared]),
            "Memory": [*_bars(self._known((ERROR.metric, LEAKED.metric))), *self._parallel(_ACROSS)],
            "Training": self._curves,
            "Cost": _bars(self._known(("cost/total_s",))),
        }
        return View("all", "all trials", "", *self._order, self._table, sections, shown="FIRST_20_RUNS")

    def question(self, asked: AskedQuestion) -> View | None:
        """The trials that a question compares: each quality over its fields; a run's colour says its allocation."""
        question = asked.question
        measured = self._known(quality.metric for quality in question.qualities)
        if not measured:
            return None
        compared = [] if question is LAYERS else self._compared
        colour = "model" if question is LAYERS else "allocation"  # without an allocation: see `PLAIN_COLOURS`
        sections = {
            f"By {name} (colour: {colour})": [_scatter(_axis(name), metric) for metric in [*measured, *compared]]
            for name in asked.numeric
        }
        if len(asked.fields) > len(asked.numeric) or len(asked.fields) > 1:
            sections = {"Every trial a line": self._parallel([*asked.fields, "model"]), **sections}
        sections |= {"Bars": _bars(measured), "Training": self._curves}
        columns = [_column("params", name) for field in asked.fields for name in (_param(field), _axis(field))]
        conditions = [in_stage(self.sweep, asked.stage)]
        conditions += [f"params.{_param(name)} = '{value}'" for name, value in (asked.about or {}).items()]
        where = " AND ".join(filter(None, conditions))
        first = next(quality for quality in question.qualities if quality.metric in self.metrics)
        order = self._order_by(first)
        return View(question.key, question.view, where, *order, _once([*columns, *self._table]), sections, True)

    def against(self) -> View | None:
        """How trials differ from the pretrained model, or else from plain memorising, the best difference first."""
        first = next((against for against in AGAINST if against.accuracy in self.metrics), None)
        if first is None:
            return None
        names = self._known(f"{first.key}/{end}" for end in COMPARED)
        columns = [*self._params, _column("tags", first.verdict), *(_column("metrics", name) for name in names)]
        sections = {
            "Difference in accuracy": _bars(names[:3]),
            "Beside the error": [_scatter(ERROR.metric, names[0], "METRIC") for _ in self._known((ERROR.metric,))],
        }
        where = f"metrics.`{names[0]}` > -2"  # has the metric
        return View("against", first.view, where, _column("metrics", names[0]), False, columns, sections)

    def failed(self) -> View:
        """Trials without a full result, with what went wrong."""
        columns = [*self._params, *(_column("tags", name) for name in ("status", "error", "not_finite", "host"))]
        sections = {"Training": self._curves}
        return View("failed", "failed and diverged", "tags.status != 'done'", _START, False, columns, sections)

    @property
    def _order(self) -> tuple[str, bool]:
        known = [quality for quality in (ERROR, RIGHT, TRUE_RATE) if quality.metric in self.metrics]
        return self._order_by(known[0]) if known else (_START, False)

    @staticmethod
    def _order_by(quality: Quality) -> tuple[str, bool]:
        return _column("metrics", quality.metric), quality.lower_is_better

    @property
    def _params(self) -> list[str]:
        return [_column("params", _param(name)) for name in self.fields]

    @property
    def _compared(self) -> list[str]:
        rates = (AGAINST_PRETRAINED.rate(quality) for quality in RATES)
        return self._known([*(against.accuracy for against in AGAINST), *rates])

    @property
    def _curves(self) -> list[Chart]:
        return [_line(name) for name in self._known(_CURVES)]

    @property
    def _table(self) -> list[str]:
        compared = [against for against in AGAINST if against.accuracy in self.metrics]
        results = self._known(quality.metric for quality in RESULTS)
        results += self._known(f"{against.key}/{end}" for against in compared for end in COMPARED[:3])
        rates = [quality for quality in RATES if AGAINST_PRETRAINED.rate(quality) in self.metrics]
        results += self._known(AGAINST_PRETRAINED.rate(quality, end) for quality in rates for end in ENDS)
        verdicts = [_column("tags", against.verdict) for against in compared]
        verdicts += [_column("tags", AGAINST_PRETRAINED.verdict_on(quality)) for quality in rates]
        return [
            *self._params,
            *verdicts[:1],
            *(_column("metrics", name) for name in results),
            *verdicts[1:],
            *(_column("attributes", name) for name in ("Source", "Version", "Dataset")),
        ]

    def _parallel(self, fields: Iterable[str]) -> list[Chart]:
        across = [_param(name) for name in dict.fromkeys(fields) if name in self.fields][:_MOST_ACROSS]
        measured = self._known(quality.metric for quality in (ERROR, LEAKED, TRUE_RATE, RIGHT))
        return [_lines_through(across, measured)] if across and measured else []

    def _known(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.metrics]


def in_stage(sweep: str, stage: str) -> str:
    """Return the condition on a trial to belong to a stage (its tag names all of its stages); empty without a stage."""
    return f"tags.`in_{sweep}` LIKE '%{stage}%'" if stage else ""


def _param(field: str) -> str:
    return PARAM_NAMES.get(field, field)


def _axis(field: str) -> str:
    """Return the param that a chart has along its axis: models of different depths share one for layers."""
    return DEPTH if field == "layer" else _param(field)


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
