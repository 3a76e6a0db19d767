"""A small copy of the inductive study: a layer is chosen first, alpha and allocation vary at that layer only."""

from dataclasses import replace
from pathlib import Path

from sweep.planning.load import load_space

sample = load_space(Path(__file__).parents[2] / "search_spaces" / "sample.py")
space = replace(
    sample,
    name="staged",
    title="The inductive study's stages on a small grid, to time them against the full grid",
    axes={
        "model": ["sample-neox"],
        "depth": [0.34, 0.5, 0.67, 0.84],
        "alpha": [0, 0.5, 1.0, 2.0],
        "allocation": ["partitioned", "simset2"],
        "num_documents": [3, 6],
    },
    fixed={"epochs": 2},
    small={},
    baseline=False,
)
