"""How figures look, and their files. No pyplot: nothing global is opened or changed.

Categories take Okabe and Ito's colour-blind safe colours with a marker each; ordered values take viridis,
whose lightness alone tells the order.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAP = "viridis"
STYLE: Any = {
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "report",
}
DPI = 130
MAX_PANELS = 6
"""Panels of a figure in one direction; more would be too small to read."""


@dataclass(frozen=True)
class Figure:
    """A finished picture: file name without ending, heading, what it shows, and its two files."""

    slug: str
    title: str
    caption: str
    png: bytes
    svg: bytes


@contextmanager
def panels(
    rows: int, columns: int, *, width: float = 4.2, height: float = 3.2, share_y: bool | str = "row"
) -> Iterator[tuple[Canvas, Any]]:
    """Give a canvas with a grid of axes `[rows, columns]`, in this module's style."""
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(max(5.0, width * columns), height * rows + 0.4), dpi=DPI, layout="constrained")
        FigureCanvasAgg(canvas)
        yield canvas, canvas.subplots(rows, columns, squeeze=False, sharey=share_y)  # type: ignore[arg-type]


def finish(canvas: Canvas, slug: str, title: str, caption: str) -> Figure:
    """Render a canvas to PNG and SVG."""
    with matplotlib.rc_context(STYLE):
        svg = io.BytesIO()
        engine = canvas.get_layout_engine()
        if engine is not None:
            engine.execute(canvas)
            canvas.set_layout_engine(None)  # keep the places just found: an engine draws everything twice a file
        png = _png(canvas)
        canvas.savefig(svg, format="svg", metadata={"Date": None})
    return Figure(slug, title, caption, png, svg.getvalue())


def _png(canvas: Canvas) -> bytes:
    """Paint a canvas and store it with 256 colours: a third of the bytes (a grid of lines: 458 to 132 kB).

    Level 6 takes a seventh of the time of the highest for a tenth more bytes (12 figures: 0.09 s for 561 kB, 0.67 s
    for 509 kB).
    """
    from PIL import Image

    agg: Any = canvas.canvas
    agg.draw()
    picture = Image.fromarray(np.asarray(agg.buffer_rgba())).convert("RGB")
    out = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(out, "png", compress_level=6)
    return out.getvalue()


def wrapped(count: int) -> tuple[int, int]:
    """Return rows and columns for panels that wrap at three a row."""
    columns = min(3, count)
    return math.ceil(count / columns), columns


def hide_unused(axes: Any, used: int) -> None:
    """Switch off the axes after the first `used`."""
    for ax in list(axes.flat)[used:]:
        ax.set_axis_off()


def colour_of(index: int) -> str:
    """Return a category's colour."""
    return COLOURS[index % len(COLOURS)]


def marker_of(index: int) -> str:
    """Return a category's marker."""
    return MARKERS[index % len(MARKERS)]


def ordered_colours(values: Sequence[float]) -> Any:
    """Return a map from the values' range to viridis without its lightest end; it serves a colour bar too."""
    low, high = min(values), max(values)
    shades = matplotlib.colormaps[MAP](np.linspace(0, 0.92, 256))
    colours = matplotlib.colors.ListedColormap(shades)
    return ScalarMappable(Normalize(low, high if high > low else low + 1), colours)


def whole_numbers(ax: Axes, axis: str = "x") -> None:
    """Allow ticks at whole numbers only."""
    (ax.xaxis if axis == "x" else ax.yaxis).set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))


def legend_below(canvas: Canvas, axes: Any) -> None:
    """Put one legend for all axes below them, in as many columns as fit."""
    found = [ax.get_legend_handles_labels() for ax in axes.flat]
    handles = {label: handle for handles, labels in found for handle, label in zip(handles, labels, strict=True)}
    fit = int(canvas.get_figwidth() / (0.6 + 0.085 * max(map(len, handles), default=1)))  # inches a letter
    canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, max(1, fit)))
