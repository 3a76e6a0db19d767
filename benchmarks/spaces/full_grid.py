"""The grid of `staged.py` without its stages: every point is run."""

from dataclasses import replace
from pathlib import Path

from sweep.planning.load import load_space
from sweep.space import ALL, Stage

staged = load_space(Path(__file__).with_name("staged.py"))
space = replace(
    staged,
    name="full-grid",
    title="Every point of the small grid",
    stages=(Stage(name="grid", axes=dict.fromkeys(staged.axes, ALL)),),
)
