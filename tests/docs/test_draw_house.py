"""The picture of the packages: it is that of today's imports, and its floors are right."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
_spec = importlib.util.spec_from_file_location("draw_house", DOCS / "draw_house.py")
assert _spec and _spec.loader
draw_house = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(draw_house)


def test_the_picture_shows_todays_imports() -> None:
    drawn = re.search("<dc:description>(.*)</dc:description>", (DOCS / "house.svg").read_text())
    assert drawn and drawn[1] == draw_house.described(draw_house.arrows()), "make house draws it again"


def test_a_room_stands_one_floor_above_the_highest_that_it_imports() -> None:
    inside = [("p.top", "p.middle"), ("p.middle", "p.low"), ("p.top", "p.low"), ("p.side", "p.low")]
    rooms = {name for arrow in inside for name in arrow}
    assert draw_house.floors(rooms, inside) == {"p.low": 0, "p.middle": 1, "p.side": 1, "p.top": 2}
    assert [arrow for arrow in inside if draw_house.implied(arrow, inside)] == [("p.top", "p.low")]


def test_a_circle_is_named() -> None:
    with pytest.raises(ValueError, match=r"a -> b -> c -> a"):
        draw_house.floors("abc", [("a", "b"), ("b", "c"), ("c", "a")])


def test_a_modules_room_is_the_part_below_its_package() -> None:
    names = ("sweep.records.sweep_storage", "sweep.space", "sweep", "search_spaces.inductive")
    assert [draw_house.room(name) for name in names] == ["sweep.records", "sweep.space", "sweep", "search_spaces"]


def test_a_module_that_nobody_imports_is_an_entry_point_and_a_package_is_none() -> None:
    every = [("sweep.run", "sweep.running"), ("sweep.running", "sweep.space"), ("sweep.report", "sweep.space")]
    assert draw_house.entry_points("sweep", every) == ["sweep.run"]
    level, inside = draw_house.house("sweep", [*every, ("sweep.running", draw_house.GROUND)])
    assert level == {"sweep.running": 1, "sweep.report": 1, "sweep.space": 0} and len(inside) == 2
