"""What the entry points (`python -m sweep.<name>`) share: options, and the user's mistakes told in one line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

import typer

from sweep.cli import completion
from trainables.data.official import CACHE_VARIABLE
from trainables.errors import ConfigError, DataError
from trainables.node.addresses import shown as hide_secrets
from trainables.node.cache_dir import user_path

EXIT_USER_ERROR = 2

SpaceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SPACE",
        help="a Python file with a `space`, or the name of a space that is shipped",
        autocompletion=completion.spaces,
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=V[,V...]",
        help="restrict or override an axis or a fixed field",
        autocompletion=completion.settings,
    ),
]
SmallOption = Annotated[bool, typer.Option("--small", help="the space's small form, on the sample world")]
StageOption = Annotated[str | None, typer.Option("--stage", help="only up to this stage")]
SelectByOption = Annotated[
    str | None, typer.Option("--select-by", metavar="METRIC", help="metric that decides between stages")
]
StorageOption = Annotated[str, typer.Option("--storage", help="where results are kept: a folder or s3://...")]
LocationArgument = Annotated[str, typer.Argument(metavar="STORAGE[/NAME]", help="a storage, or one sweep in it")]
TrackingUriOption = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow; default MLFLOW_TRACKING_URI, else mlflow.db in the storage"),
]
ExperimentOption = Annotated[
    str | None,
    typer.Option("--experiment", help="MLflow experiment; default MLFLOW_EXPERIMENT_NAME, else memory-sweep"),
]
NameOption = Annotated[str | None, typer.Option("--name", help="name of the sweep; default: the space's")]
DataOption = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="PATH|fever|counterfact|sample|hub", help="folders or names; may be repeated"),
]
DataCacheOption = Annotated[
    str | None,
    typer.Option("--data-cache", metavar="FOLDER", help="where downloaded data are kept; default the node's cache"),
]
NoLockOption = Annotated[
    bool, typer.Option("--no-lock", help="for a storage without locks: you see to it that there is one run at a time")
]
RetryFailedOption = Annotated[bool, typer.Option("--retry-failed", help="failed trials are run again")]
NotifyOption = Annotated[
    str | None,
    typer.Option("--notify", metavar="CMD", help="run this at the end, at a new kind of failure, at a choice"),
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="seed of all trials")]
ProbeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--probe",
        metavar="NAME[:key=value,…]",
        help="ask this too, of stored weights where a trial is trained already; may be repeated",
        autocompletion=completion.probes,
    ),
]
NoBaselineOption = Annotated[
    bool, typer.Option("--no-baseline", help="leave out the pretrained models that trials are compared with")
]
ReportOption = Annotated[bool, typer.Option("--report/--no-report", help="write the report at the end")]


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the user's mistakes into one line on stderr and exit status 2; any other error passes through."""
    try:
        yield
    except (ConfigError, DataError) as error:
        print("error:", hide_secrets(" ".join(str(error).split())), file=sys.stderr, flush=True)
        raise SystemExit(getattr(error, "exit_status", EXIT_USER_ERROR)) from None


def parsed_pack_size(text: str) -> int | None:
    """Return the number of `--pack-size`; None for `auto`.

    Raises:
        ConfigError: it is neither.
    """
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"pack-size={text!r}: must be auto or a whole number above 0")
    return int(text)


class Shown(Protocol):
    """What can be printed for a person, or as JSON for a program.

    Attributes:
        warnings: lines on what was not as it should be.
    """

    @property
    def warnings(self) -> Sequence[str]:
        """Lines on what was not as it should be."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        ...


def show(shown: Shown, as_json: bool) -> None:
    """Print something, as text or as one JSON object; its warnings on stderr."""
    for line in shown.warnings:
        print("note:", line, file=sys.stderr, flush=True)
    print(json.dumps(shown.to_dict(), indent=2) if as_json else shown)


def use_data_cache(folder: str | None) -> None:
    """Keep downloaded data in a folder of the user's choice, here and in every process that this one starts."""
    if folder:
        os.environ[CACHE_VARIABLE] = str(user_path(folder).resolve())
