"""Draw the packages and the imports between them: `make house` writes docs/house.svg.

A room is a module or package directly below `sweep` or `trainables`. Its floor is the longest way down from it. A
module that no other one imports is an entry point, which a person starts: a command of the list on top. What failures
are is the ground on which all rooms stand. The arrows of all of them are kept in the picture's description, so that a
test can tell when the picture is out of date.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "house.svg"
PACKAGES = ("search_spaces", "sweep", "trainables")
HOUSES = ("sweep", "trainables")
GROUND = "trainables.errors"
DIRECT, IMPLIED, BOX = "#1f4e79", "#c9d3dd", "#eef3f8"

Arrow = tuple[str, str]


def room(module: str) -> str:
    """Return the room that a module lies in; a package itself, such as `sweep`, is none and stays as it is."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] in HOUSES else parts[0]


def arrows() -> list[Arrow]:
    """Return who imports whom, room by room, in order."""
    graph = grimp.build_graph(*PACKAGES)
    found = {
        (room(importer), room(imported))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    return sorted((above, below) for above, below in found if above != below)


def floors(rooms: Iterable[str], inside: Iterable[Arrow]) -> dict[str, int]:
    """Return each room's floor: 0 for one that imports no other, else one more than the highest that it imports.

    Raises:
        ValueError: the arrows go in a circle.
    """
    below = defaultdict(set)
    for importer, imported in inside:
        below[importer].add(imported)
    found: dict[str, int] = {}

    def floor(name: str, way: tuple[str, ...]) -> int:
        if name in way:
            raise ValueError("a circle: " + " -> ".join((*way[way.index(name) :], name)))
        if name not in found:
            found[name] = max((floor(each, (*way, name)) + 1 for each in sorted(below[name])), default=0)
        return found[name]

    return {name: floor(name, ()) for name in sorted(rooms)}


def entry_points(package: str, every: Iterable[Arrow]) -> list[str]:
    """Return the modules directly below a package that nobody imports."""
    every = list(every)
    imported = {below for _, below in every}
    modules = {above for above, _ in every if above.startswith(f"{package}.")} - imported
    return sorted(name for name in modules if (ROOT / f"{name.replace('.', '/')}.py").is_file())


def house(package: str, every: Iterable[Arrow]) -> tuple[dict[str, int], list[Arrow]]:
    """Return a package's rooms, without entry points and ground, with their floors, and the arrows between them."""
    every = list(every)
    rooms = {name for arrow in every for name in arrow if name.startswith(f"{package}.")}
    rooms -= {*entry_points(package, every), GROUND}
    inside = [arrow for arrow in every if set(arrow) <= rooms]
    return floors(rooms, inside), inside


def implied(arrow: Arrow, inside: Iterable[Arrow]) -> bool:
    """Say whether there is a longer way from an arrow's start to its end."""
    inside = list(inside)
    reached, todo = set(), [below for above, below in inside if above == arrow[0] and below != arrow[1]]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += [below for above, below in inside if above == name]
    return arrow[1] in reached


def _size(level: Mapping[str, int], inside: list[Arrow]) -> str:
    return f"{len(level)} rooms, {max(level.values()) + 1} floors, {len(inside)} arrows"


def _draw_house(figure: Figure, axes: Axes, package: str, level: Mapping[str, int], inside: list[Arrow]) -> None:
    """Draw one package: a row of boxes for each floor, arrows from the importer to the imported."""
    rows = defaultdict(list)
    for name in level:
        rows[level[name]].append(name)
    place = {}
    for height, names in rows.items():
        for index, name in enumerate(names):
            place[name] = ((index + 1) / (len(names) + 1) + 0.06 * (height % 2) - 0.03, float(height))
    boxes = {
        name: axes.text(
            x, y, name.partition(".")[2], ha="center", va="center", fontsize=11, zorder=3,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": BOX, "edgecolor": DIRECT},
        )
        for name, (x, y) in place.items()
    }  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(-0.5, max(rows) + 0.5))
    figure.draw_without_rendering()  # only then do the boxes know their sizes, at which arrows begin and end
    for arrow in sorted(inside, key=lambda each: not implied(each, inside)):
        start, end = arrow
        longer = implied(arrow, inside)
        axes.add_patch(
            FancyArrowPatch(
                place[start], place[end], patchA=boxes[start].get_bbox_patch(), patchB=boxes[end].get_bbox_patch(),
                arrowstyle="-|>", mutation_scale=12, linewidth=1.0 if longer else 1.5,
                color=IMPLIED if longer else DIRECT, zorder=1 if longer else 2,
                connectionstyle=f"arc3,rad={0.12 if longer else 0.0}",
            )
        )  # fmt: skip
    axes.set_title(f"{package}: {_size(level, inside)}", fontsize=12)
    axes.set_axis_off()


def draw(every: list[Arrow]) -> Figure:
    """Draw the two houses side by side; the caption sums up the arrows between them."""
    figure = Figure(figsize=(14, 7), dpi=72)  # as an SVG file has it: arrows end at boxes measured at this size
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.06, top=0.91, wspace=0.04)
    for axes, package in zip(figure.subplots(1, 2), HOUSES, strict=True):
        _draw_house(figure, axes, package, *house(package, every))
    spaces = sorted(below for name, below in every if name == "search_spaces")
    commands = ", ".join(name.partition(".")[2] for name in entry_points("sweep", every))
    figure.text(0.5, 0.97, f"entry points of sweep, above its rooms: {commands}", ha="center", fontsize=10)
    figure.text(
        0.5, 0.02,
        "An arrow goes from the importer to the imported; a pale one is implied by a longer way. All rooms may import "
        f"{GROUND}, and those of sweep all of trainables; search_spaces imports {', '.join(spaces)}.",
        ha="center", fontsize=10,
    )  # fmt: skip
    return figure


def described(every: Iterable[Arrow]) -> str:
    """Return the arrows as the picture's description holds them."""
    return "; ".join(f"{above} to {below}" for above, below in every)


def main() -> None:
    """Write the picture and print its numbers."""
    every = arrows()
    # the same arrows give the same file, and its text stays text
    with matplotlib.rc_context({"svg.hashsalt": "house", "svg.fonttype": "none"}):
        draw(every).savefig(PICTURE, metadata={"Date": None, "Description": described(every)})
    for package in HOUSES:
        level, inside = house(package, every)
        print(f"{package}: {_size(level, inside)}, {len(entry_points(package, every))} entry points")


if __name__ == "__main__":
    main()
