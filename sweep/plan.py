"""`python -m sweep.plan SPACE`: what a sweep would run and cost. Starts nothing, imports neither torch nor Ray."""

from __future__ import annotations

from typing import Annotated

import typer

from sweep.cli.options import (
    DataOption,
    NameOption,
    NoBaselineOption,
    ProbeOption,
    RetryFailedOption,
    SeedOption,
    SelectByOption,
    SettingsOption,
    SmallOption,
    SpaceArgument,
    StageOption,
    StorageOption,
    show,
    user_errors,
)
from sweep.planning.plan_of import plan_sweep

EXAMPLES = """
Examples:

  python -m sweep.plan inductive

  python -m sweep.plan search_spaces/inductive.py --set model=llama2-7b --set num_documents=10,100 --json
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def main(
    space: SpaceArgument,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
    settings: SettingsOption = None,
    small: SmallOption = False,
    stage: StageOption = None,
    select_by: SelectByOption = None,
    storage: StorageOption = "outputs",
    name: NameOption = None,
    data: DataOption = None,
    retry_failed: RetryFailedOption = False,
    seed: SeedOption = None,
    probe: ProbeOption = None,
    no_baseline: NoBaselineOption = False,
) -> None:
    """Say what a search space would run: points, equivalents, what is done, packs, cost."""
    with user_errors():
        costed = plan_sweep(
            space,
            storage,
            name=name,
            settings=settings or (),
            small=small,
            select_by=select_by,
            data=data,
            seed=seed,
            stage=stage,
            retry_failed=retry_failed,
            probes=probe or (),
            baseline=not no_baseline,
        )
        show(costed, as_json)


if __name__ == "__main__":
    app()
