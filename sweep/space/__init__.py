"""A search space is data: axes, fixed values, and stages that may take a value from an earlier stage.

Nothing here computes a trial; `planning` expands a space into points. A module in `search_spaces/` holds one
`Space` named `space`.
"""

from sweep.space.checks import checked
from sweep.space.forms import (
    ALL,
    EVERY_LAYER,
    LARGEST,
    OTHERS,
    AxisPart,
    Best,
    Distribution,
    EveryLayer,
    LogUniform,
    OneOf,
    Sampling,
    Space,
    Stage,
    Uniform,
    aliases,
    middle,
    size,
    stage_axes,
    stage_base,
    stage_named,
    stated,
    without,
)

__all__ = [
    "ALL",
    "EVERY_LAYER",
    "LARGEST",
    "OTHERS",
    "Best",
    "Distribution",
    "EveryLayer",
    "LogUniform",
    "OneOf",
    "AxisPart",
    "Sampling",
    "Space",
    "Stage",
    "Uniform",
    "aliases",
    "checked",
    "middle",
    "size",
    "stage_axes",
    "stage_base",
    "stage_named",
    "stated",
    "without",
]
