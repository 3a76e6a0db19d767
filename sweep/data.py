"""`python -m sweep.data prepare|check`: data for nodes without a network, and whether the sources are as assumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from sweep.cli.options import DataCacheOption, use_data_cache, user_errors
from trainables.data.assumptions import DataCheck, check_folder, check_hub, check_official
from trainables.data.online import Unreachable
from trainables.data.prepare import prepare_folder
from trainables.data.sources import OFFICIAL_NAMES
from trainables.errors import ConfigError, SweepError, nearest
from trainables.lm.check_aliases import check_aliases
from trainables.node.cache_dir import user_path

EXIT_DIFFERS = 1
MODELS = "models"
_NAMES = (*OFFICIAL_NAMES, "hub", MODELS)

app = typer.Typer(add_completion=False, rich_markup_mode=None, help=__doc__)


@app.command()
def prepare(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="fever, counterfact, hub, hub:OWNER/NAME")],
    to: Annotated[str, typer.Option(metavar="FOLDER", help="the folder to make")],
    data_cache: DataCacheOption = None,
) -> None:
    """Download data and put them into a folder that any node can use without a network (--data FOLDER)."""
    with user_errors():
        use_data_cache(data_cache)
        folder = user_path(to).absolute()
        manifest = prepare_folder(sources, folder)
    size = sum(int(told["size"]) for told in manifest.files.values())
    print(f"{folder}: {len(manifest.files)} files, {size / 1e6:,.1f} MB, checksums in manifest.json")
    for key in manifest.keys.values():
        print(f"  {key}")
    if manifest.pages:
        print(f"  {manifest.pages['found']:,} of {manifest.pages['wanted']:,} evidence pages")
    print(f"use it with --data {folder}")


@app.command()
def check(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE...]", help="fever, counterfact, hub, hub:OWNER/NAME, models, folders"),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="download everything, also FEVER's 1.7 GB of pages")] = False,
    data_cache: DataCacheOption = None,
) -> None:
    """Hold the sources against what is assumed of them (docs/data.md): sizes, checksums, counts, the hub's layout.

    Exit status: 0 all is as assumed, 1 something differs, 2 a mistake in the call or no network.
    """
    wrong = 0
    named = sources or list(_NAMES)
    with user_errors():
        use_data_cache(data_cache)
        for source in named:
            try:
                for finding in _findings(source, full):
                    wrong += finding.right is False
                    mark = {True: "ok", False: "DIFFERS", None: ""}[finding.right]
                    print(f"{mark:<8}{finding.what}: {finding.found}", flush=True)
            except SweepError as error:
                if len(named) == 1:
                    raise
                wrong += 1
                mark = "NO NET" if isinstance(error, Unreachable) else "DIFFERS"
                print(f"{mark:<8}{source}: {' '.join(str(error).split())}", flush=True)
    print("all as assumed" if not wrong else f"{wrong} differ: see docs/data.md for what was assumed, and since when")
    raise typer.Exit(EXIT_DIFFERS if wrong else 0)


def _findings(source: str, full: bool) -> Iterator[DataCheck]:
    if source in OFFICIAL_NAMES:
        return check_official(source, full)
    if source == MODELS:
        return check_aliases()
    if source.partition(":")[0] == "hub":
        return check_hub(source)
    folder = user_path(source)
    if not folder.is_dir():
        raise ConfigError(f"{source!r}: no such folder, and none of {', '.join(_NAMES)}{nearest(source, _NAMES)}")
    return check_folder(folder)


if __name__ == "__main__":
    app()
