"""Saved views of MLflow's runs page as MLflow stores them, and the links that open them.

MLflow (3.16 and newer) keeps a view in a tag of the experiment, `mlflow.sharedViewState.<id>`: JSON with a name, times
and the page's state, which is JSON again, plain or `deflate;` + base64 of zlib. The fields of the state were learnt by
saving a view by hand in 3.17. Views have fixed ids here, so that writing one again changes it and never doubles it.
The page makes a chart for every metric that a view does not mention; a view therefore names those it leaves out as
deleted.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from sweep.tracking.views import Chart, View
from trainables.node.addresses import HIDDEN, shown

TAG = "mlflow.sharedViewState."
SINCE = (3, 16)
MAX_TAG_CHARS = 20_000  # the longest experiment tag that MLflow takes


def view_id(storage: str, sweep: str, key: str) -> str:
    """Return the fixed id of a view; the storage's id keeps sweeps of one name apart on a shared server."""
    return f"{storage[:8]}-{sweep}-{key}"


def filter_of(storage: str, sweep: str, where: str = "") -> str:
    """Return the condition that finds a sweep's trials."""
    own = [] if f"in_{sweep}`" in where else [f"tags.`in_{sweep}` LIKE '%'"]
    return " AND ".join([*own, f"tags.storage = '{storage}'", *([where] if where else [])])


def view_state(view: View, storage: str, sweep: str, metrics: Iterable[str]) -> dict[str, Any]:
    """Return the page state of a view.

    Args:
        view: what it shows.
        storage: the storage's id.
        sweep: the sweep's name.
        metrics: names of all metrics that the sweep's runs have.
    """
    charts: list[Chart] = []
    sections = []
    for heading, own in view.sections.items():
        if own:
            section = _uuid(view.key, heading)
            sections.append(
                {
                    "uuid": section,
                    "name": heading,
                    "display": True,
                    "isReordered": True,
                    "deleted": False,
                    "isGenerated": False,
                }
            )
            for chart in own:
                uuid = _uuid(view.key, heading, json.dumps(chart))
                charts.append(
                    {"uuid": uuid, "metricSectionId": section, "deleted": False, "isGenerated": False, **chart}
                )
    named = {chart.get("metricKey") for chart in charts}
    place = sections[0]["uuid"] if sections else ""
    charts += [
        {"type": "BAR", "uuid": _uuid(view.key, name), "metricSectionId": place, "deleted": True, "isGenerated": False,
         "metricKey": name, "runsCountToCompare": 1}
        for name in sorted(set(metrics) - named)
    ]  # fmt: skip
    return {
        "searchFilter": filter_of(storage, sweep, view.where),
        "orderByKey": view.order_by,
        "orderByAsc": view.ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(view.columns),
        "columnOrder": list(view.columns),
        "columnWidths": {column: width for column in view.columns if (width := _width(column))},
        "runsHiddenMode": view.shown,
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _width(column: str) -> int:
    """Return how wide a column is, pixels, where its heading or its words need more than the usual 100."""
    kind, _, name = column.partition(".")
    heading = 7 * len(name.strip("`")) + 24  # 7 pixels a letter, and the margins
    return max(170, heading) if kind == "tags" else heading if heading > 100 else 0


def _uuid(*parts: str) -> str:
    return hashlib.blake2b("/".join(parts).encode(), digest_size=6).hexdigest()


def encode(name: str, state: Mapping[str, Any], created_ms: int) -> str:
    """Return the tag's value of a view.

    Raises:
        ValueError: the view is too large for a tag.
    """
    packed = base64.b64encode(zlib.compress(json.dumps(state, separators=(",", ":")).encode())).decode()
    value = json.dumps({"name": name, "createdAt": created_ms, "updatedAt": created_ms, "state": f"deflate;{packed}"})
    if len(value) > MAX_TAG_CHARS:
        raise ValueError(f"view {name!r}: {len(value)} characters, MLflow takes {MAX_TAG_CHARS}")
    return value


def decode(value: str) -> tuple[str, dict[str, Any]]:
    """Return name and state of a view by its tag's value."""
    found = json.loads(value)
    text = str(found["state"])
    if text.startswith("deflate;"):
        text = zlib.decompress(base64.b64decode(text.removeprefix("deflate;"))).decode()
    return str(found["name"]), json.loads(text)


def view_path(experiment_id: str, view: str, charts: bool) -> str:
    """Return a saved view's address, relative to the UI's page."""
    query = {"viewStateShareKey": view, "compareRunsMode": "CHART" if charts else "TABLE"}
    return f"#/experiments/{quote(experiment_id)}/runs?{urlencode(query, quote_via=quote)}"


def filtered_path(experiment_id: str, storage: str, sweep: str) -> str:
    """Return the address of a sweep's trials for servers without saved views, best memorised first."""
    query = {
        "searchFilter": filter_of(storage, sweep),
        "orderByKey": "metrics.`memory/nll`",
        "orderByAsc": "true",
        "compareRunsMode": "TABLE",
    }
    return f"#/experiments/{quote(experiment_id)}/runs?{urlencode(query, quote_via=quote)}"


def run_path(experiment_id: str, run: str, artifact: str = "") -> str:
    """Return the address of a run's page, or of one of its artifacts there, relative to the UI's page."""
    path = f"#/experiments/{quote(experiment_id)}/runs/{quote(run)}"
    return f"{path}/artifacts/{quote(artifact)}" if artifact else path


def on_server(base: str, path: str) -> str:
    """Return a full address: the server's, which may have a path prefix, and the page's.

    The server's has no password in it: the browser asks for one.
    """
    return f"{shown(base).replace(f'{HIDDEN}@', '').rstrip('/')}/{path}"
