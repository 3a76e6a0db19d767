"""The rival of a whole sweep: Ray Tune as its own examples show it, one function trial per grid point.

    python -m benchmarks.plain_sweep SPACE --set FIELD=V[,V...] --out FOLDER

A grid search over the axes of a one-stage space. Every trial has a process of its own (Tune's default), loads the whole
model, trains and asks, and reports at its end. Texts and prompts are made once, on the driver, and reach the trials
through Ray's object store. One CPU and one torch thread a trial, as ours has. Each trial leaves a JSON file.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sweep.planning.load import load_space
from sweep.planning.overrides import apply_overrides
from sweep.space import stage_axes, stage_base

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def run_point(config: dict[str, Any], folder: str, shared: dict[str, Any]) -> None:
    """Run one point of the grid: the trainable.

    Args:
        config: fields of the trial.
        folder: where its JSON file goes.
        shared: `card`, `data_key`, `texts` and `tokenizer`, the same for all.
    """
    import torch
    from ray import tune

    from benchmarks.plain import run_plain
    from trainables.trial.canonical import canonical
    from trainables.trial.identity import identity, trial_id
    from trainables.trial.making import make_spec

    torch.set_num_threads(1)
    card = shared["card"]
    spec = canonical(make_spec(config), card)
    found = run_plain(card, spec, shared["texts"], shared["tokenizer"])
    trial = trial_id(identity(spec, card, shared["data_key"]))
    told = {"id": trial, "config": config, **asdict(found)}
    (Path(folder) / f"{trial}.json").write_text(json.dumps(told), encoding="utf-8")
    tune.report({"nll": found.curve[-1], "train_s": found.train_s})


@app.command()
def main(
    space: Annotated[str, typer.Argument(help="a search space of one stage", metavar="SPACE")],
    out: Annotated[Path, typer.Option(help="folder for the trials' files")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=V[,V...]")] = None,
) -> None:
    """Run the grid of a space with Ray Tune alone."""
    import ray
    import torch
    from ray import tune

    from trainables.data.sources import data_key
    from trainables.pack.process_cache import ProcessCache
    from trainables.trial.canonical import canonical
    from trainables.trial.making import make_spec

    found = apply_overrides(load_space(space), settings or [])
    (stage,) = found.stages
    fixed, axes = stage_base(found, stage), stage_axes(found, stage)
    first = make_spec(fixed | {name: values[0] for name, values in axes.items()})
    cache = ProcessCache(torch.device("cpu"), None)
    card = cache.card(first)
    texts, tokenizer = cache.texts(canonical(first, card)), cache.tokenizer(first)
    shared = {"card": card, "data_key": data_key(first.data), "texts": texts, "tokenizer": tokenizer}
    out.mkdir(parents=True, exist_ok=True)
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_point, folder=str(out.resolve()), shared=shared), {"cpu": 1}),
        param_space=fixed | {name: tune.grid_search(list(values)) for name, values in axes.items()},
        run_config=tune.RunConfig(name="plain", storage_path=str((out / "ray_results").resolve())),
    )
    errors = tuner.fit().errors
    ray.shutdown()
    if errors:
        typer.echo(f"{len(errors)} trials failed: {errors[0]}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
