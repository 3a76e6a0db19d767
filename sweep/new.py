"""`python -m sweep.new NAME`: write a search space to start from."""

from __future__ import annotations

from typing import Annotated

import typer

from sweep.cli.options import user_errors
from sweep.records.sweep_storage import check_name
from trainables.errors import ConfigError
from trainables.node.cache_dir import user_path

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

TEMPLATE = '''"""What this sweep asks, in a sentence.

    python -m sweep.run {name}.py --plan     # what would run, and what it costs
    python -m sweep.run {name}.py --small    # a minute, on a small generated world
    python -m sweep.run {name}.py            # the sweep
"""

from sweep.space import ALL, Best, Space, Stage

space = Space(
    name="{name}",
    title="A line for tables and plots",
    # What is varied. The full grid would be the product of these; stages run parts of it.
    # `python -m sweep.fields` lists every field, with its type, default and meaning.
    axes={{
        "model": ["smollm2-135m"],  # an alias, a hub id, or a folder
        "depth": [0.25, 0.5, 0.75, 1.0],  # after which block the memory stands, as a share of the depth
        "alpha": [0, 0.2, 1.0, 5.0],  # weight of the inductive loss
        "allocation": ["partitioned", "simset2"],  # which entries a document may use
    }},
    # What is the same for all trials. `data`: fever, counterfact, or folders.
    fixed={{"data": "fever", "num_documents": 100, "memory_dim": 1024, "epochs": 25, "probes": ("fever",)}},
    # What all trials are asked besides: what memorising costs elsewhere. Later questions need no training.
    probes=("forgetting",),
    stages=(
        # First the layer, without the inductive loss ...
        Stage(name="layers", axes={{"model": ALL, "depth": ALL}}, fixed={{"alpha": 0}}),
        # ... then the rest, at the layer that memorised best for each model.
        Stage(
            name="grid",
            axes={{"model": ALL, "alpha": ALL, "allocation": ALL}},
            take=Best(field="layer", stage="layers", per=("model",), by="memory/nll", mode="min"),
        ),
    ),
    # What `--small` replaces, to try the space out without a download.
    small={{"model": "sample-llama", "data": "sample", "num_documents": 6, "memory_dim": 32, "epochs": 3}},
)
'''


@app.command()
def main(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the sweep; the file is NAME.py")],
    to: Annotated[str, typer.Option("--to", metavar="FOLDER", help="where the file is written")] = ".",
) -> None:
    """Write a commented search space to start from."""
    with user_errors():
        check_name(name)
        file = user_path(to) / f"{name}.py"
        try:
            with file.open("x", encoding="utf-8") as out:
                out.write(TEMPLATE.format(name=name))
        except FileExistsError:
            raise ConfigError(f"{file}: is there already; choose another name") from None
        except OSError as error:
            raise ConfigError(f"{file}: cannot be written ({error.strerror})") from None
    typer.echo(f"{file}: change it, then\n  python -m sweep.run {file} --plan")


if __name__ == "__main__":
    app()
