"""Draw docs/display.svg, what a person sees of a sweep that runs: `python docs/draw_display.py STORAGE/NAME`.

The sweep must be running, or have been: its last state is drawn, as `memory-sweep status` prints it.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from sweep.records.sweep_storage import split_location
from sweep.running.state import STATE_FILE, SweepState
from sweep.running.state_text import view
from trainables.node.checksums import read_plain_json

WIDTH = 100


def drawing(state: SweepState) -> str:
    """Return the display of a sweep's state as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(view(state))
    svg = console.export_svg(title=f"memory-sweep run {state.name}", unique_id="display")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)  # fonts from elsewhere: a page is read without a network
    return re.sub(r"[ \t]+$", "", svg, flags=re.M)


def main(location: str) -> None:
    """Draw the last state of a sweep."""
    storage, name = split_location(location)
    state = SweepState.from_dict(read_plain_json(storage.read(f"{name}/{STATE_FILE}")))
    (Path(__file__).parent / "display.svg").write_text(drawing(state))


if __name__ == "__main__":
    main(sys.argv[1])
