"""The link that opens a sweep's trials in the MLflow UI, or the command that starts a server for it."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass

from sweep.records.study_questions import QUESTIONS
from sweep.records.sweep_storage import SweepStorage
from sweep.tracking.address import Tracking, is_web, resolve_tracking, sqlite_file
from sweep.tracking.client import REQUEST_TIMEOUT_S, TrackingError, client_of, told_in_one_line
from sweep.tracking.saved_views import SINCE, TAG, decode, filtered_path, on_server, view_id, view_path
from trainables.node.addresses import shown


@dataclass(frozen=True)
class Page:
    """A page of the UI.

    Attributes:
        path: relative to the server's address.
        title: what it shows.
        note: what a reader should know of it; mostly empty.
    """

    path: str
    title: str
    note: str = ""


def view_link(storage: SweepStorage, tracking: Tracking, sweep: str) -> str:
    """Return what shows a sweep's trials: the address of its view, or the command that starts a server and opens it.

    Args:
        storage: the storage.
        tracking: where its runs are.
        sweep: its name.
    """
    if not is_web(tracking.uri):
        found_by_itself = resolve_tracking(storage)
        words = [python(), "-m", "sweep.ui", shlex.quote(storage.full(sweep))]
        if tracking.uri != found_by_itself.uri:
            words += ["--tracking-uri", shlex.quote(shown(tracking.uri))]
        if tracking.experiment != found_by_itself.experiment:
            words += ["--experiment", shlex.quote(tracking.experiment)]
        return " ".join(words) + _kept_beside(storage, tracking)
    try:
        page = pages(storage, tracking, sweep, server_version(tracking.uri))[0]
    except TrackingError as error:
        return f"{shown(tracking.uri)} ({error})"
    return on_server(tracking.uri, page.path) + (f"  ({page.note})" if page.note else "")


def _kept_beside(storage: SweepStorage, tracking: Tracking) -> str:
    """Say where MLflow's files are where that is neither in the storage nor at an address that was given."""
    if storage.is_local or tracking.uri != resolve_tracking(storage).uri:
        return ""
    file = sqlite_file(tracking.uri)
    return f"  (its database and artifacts are in this folder: {file.parent})" if file else ""


def no_database(storage: SweepStorage, tracking: Tracking) -> str:
    """Say that there is no such SQLite file, and what makes it; empty where there is one, or another kind of place."""
    file = sqlite_file(tracking.uri)
    if file is None or file.exists():
        return ""
    return f"{file}: no MLflow database there; {python()} -m sweep.publish {shlex.quote(storage.full())} makes it"


def pages(storage: SweepStorage, tracking: Tracking, sweep: str, version: tuple[int, ...]) -> list[Page]:
    """Return the pages about a sweep: its saved views, its main view first; else the filtered table.

    Args:
        storage: the storage.
        tracking: where its runs are.
        sweep: its name.
        version: of the server; empty where it is not known.

    Raises:
        TrackingError: MLflow does not answer, or has no such experiment.
    """
    storage_id = storage.storage_id()
    with told_in_one_line(tracking.uri):
        found = client_of(tracking.uri).get_experiment_by_name(tracking.experiment)
        if found is None:
            raise TrackingError(
                f"MLflow at {shown(tracking.uri)} has no experiment {tracking.experiment!r}; "
                f"{python()} -m sweep.publish {shlex.quote(storage.full())} makes it"
            )
        tags, experiment = dict(found.tags), str(found.experiment_id)
    own = TAG + view_id(storage_id, sweep, "")
    keys = [tag.removeprefix(own) for tag in tags if tag.startswith(own)]
    if not keys or (version and version < SINCE):
        note = "" if not keys else f"saved views need MLflow {'.'.join(map(str, SINCE))} or newer"
        return [Page(filtered_path(experiment, storage_id, sweep), "all trials", note)]
    views = []
    order = ["all", *(question.key for question in QUESTIONS)]
    for key in sorted(keys, key=lambda key: (order.index(key) if key in order else len(order), key)):
        name, state = decode(tags[own + key])
        charts = key not in ("all", "failed", "against") and bool(state["compareRunSections"])
        views.append(Page(view_path(experiment, view_id(storage_id, sweep, key), charts), name))
    return views


def server_version(uri: str) -> tuple[int, ...]:
    """Return a server's version, such as (3, 17, 2); empty where it does not say.

    Raises:
        TrackingError: it does not answer.
    """
    import requests

    trusted: str | bool = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true"):
        trusted = False
    user, token = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_TOKEN")
    login = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
    headers = {"Authorization": f"Bearer {token}"} if token and not user else None
    address = f"{uri.rstrip('/')}/version"
    with told_in_one_line(uri):
        answer = requests.get(address, timeout=REQUEST_TIMEOUT_S, verify=trusted, auth=login, headers=headers)
    parts = answer.text.strip().strip('"').split(".") if answer.ok else []
    return tuple(int(part) for part in parts if part.isdigit()) if len(parts) > 1 else ()


def python() -> str:
    """Return this interpreter as a person would type it here."""
    near = os.path.relpath(sys.executable)
    return sys.executable if near.startswith("..") else near
