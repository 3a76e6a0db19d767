"""The picture of the display: of a state as the storage keeps it, and read without a network."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from sweep.running.state import PackState, StageState, SweepState

DOCS = Path(__file__).resolve().parents[2] / "docs"
_spec = importlib.util.spec_from_file_location("draw_display", DOCS / "draw_display.py")
assert _spec and _spec.loader
draw_display = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(draw_display)


def text_of(svg: str) -> str:
    return re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", svg, flags=re.S)).replace("&#160;", " ")


def test_it_shows_stages_packs_and_the_best() -> None:
    state = SweepState("mine", "running", 0.0, 60.0, 600.0, best="memory/nll 1.500 (pretrained 2.500): L3")
    state.stages = [StageState("layers", 4, 40.0, 20.0, ended={"done": 2})]
    state.packs = [PackState("pythia-70m L3", 2, 10, 0.0, 5, 1.5, "host GPU 0")]
    svg = draw_display.drawing(state)
    shown = text_of(svg)
    assert "layers" in shown and "2/4 trials" in shown and "pythia-70m L3 x2" in shown and "pretrained 2.500" in shown
    assert "url(http" not in svg


def test_the_kept_picture_is_one_of_these() -> None:
    svg = (DOCS / "display.svg").read_text()
    assert "memory-sweep run" in text_of(svg) and "pretrained" in text_of(svg) and 'url("http' not in svg
