"""Packing is timed only where every member has the losses that it has alone."""

from __future__ import annotations

import pytest

from benchmarks.common import NotTheSame, check_close
from benchmarks.packing import compare, lines, member_specs


def test_packs_of_several_sizes_are_compared(tiny_models, sample_data):
    settings = {
        "model": str(tiny_models["gpt_neox"]),
        "data": str(sample_data),
        "layer": 1,
        "num_documents": 3,
        "epochs": 1,
        "memory_dim": 16,
        "segment_tokens": 32,
    }
    table = compare(settings, [3, 2], repeats=1, least_s=0.01)
    assert list(table["tokens_per_s"]) == ["1", "2", "3"] and table["gain"]["1"]["median"] == 1
    assert table["plateau"] in (1, 2, 3) and table["auto_pack_size"] >= 1
    assert "smallest K" in "\n".join(lines({"models": [table]}))


def test_members_differ_in_what_may_differ_within_a_pack():
    specs = member_specs({"model": "sample-neox", "layer": 3, "num_documents": 4}, 3)
    assert len({spec.alpha for spec in specs}) == len({spec.lr for spec in specs}) == 3
    assert {spec.allocation for spec in specs} == {"partitioned"}


def test_a_member_that_depends_on_its_pack_is_refused():
    check_close("it", "losses", [1.0], [1.00005], 1e-4)
    for other in (1.001, float("nan")):
        with pytest.raises(NotTheSame, match="losses differ"):
            check_close("it", "losses", [1.0, other], [1.0, 1.0], 1e-4)
    with pytest.raises(NotTheSame, match="1 losses instead of 2"):
        check_close("it", "losses", [1.0, 1.0], [1.0], 1e-4)
