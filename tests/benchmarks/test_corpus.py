"""The measure of a corpus: documents made up alike each time, a small run of all parts, text and picture."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import corpus, corpus_child
from benchmarks.made_up_texts import COPIED, texts, tokenizer, word_ids, words


def test_documents_are_made_up_alike_and_one_in_twenty_is_nearly_the_one_before_it() -> None:
    first, again, other = (list(texts(50, 30, seed)) for seed in (3, 3, 4))
    assert first == again and first != other and list(texts(1200, 30, 3))[:50] != list(texts(1200, 30, 3))[1000:1050]
    assert len(words()) == len(set(words()))
    ids = next(word_ids(400, 200, seed=3))
    same = (ids[1:] == ids[:-1]).mean(axis=1)
    copies = np.arange(len(same)) % COPIED == COPIED - 2
    assert same[copies].min() > 0.8 and same[~copies].max() < 0.3
    encoded = tokenizer()(first, add_special_tokens=False)["input_ids"]
    assert {len(row) for row in encoded} == {30}


def test_every_part_is_measured_and_the_plain_way_gives_the_same() -> None:
    settings = {"documents": 60, "tokens": 40, "memory_dim": 128, "clusters": 30, "entries": 4, "seed": 1}
    measured, plain = corpus_child.measure(**settings), corpus_child.plain(**settings)
    assert set(corpus.PARTS) <= set(measured["seconds"]) and measured["tokens"] == 60 * 40
    assert plain["same_groups"] is True
    table = {
        "documents": [60, 120], "tokens": [2400, 4800], "settings": settings, "plain": {"60": plain},
        "seconds": {part: [1.0, 2.0] for part in (*corpus.PARTS, "all")}, "peak_bytes": [2**30, 2**31],
        "wall_s": [1.5, 2.5],
        "fits": {part: corpus.fit([60, 120], [1.0, 2.0]) for part in (*corpus.PARTS, "all")},
        "found": [measured["found"]] * 2,
    }  # fmt: skip
    shown = "\n".join(corpus.lines(json.loads(json.dumps(table))))
    assert "R² 1.0000" in shown and "2.00" in shown and "the same groups" in shown and "simset2-token" in shown


@pytest.mark.parametrize("suffix, magic", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_picture_is_written_where_asked(suffix, magic, tmp_path) -> None:
    line = corpus.fit([10, 100], [1.0, 2.0])
    table = {
        "documents": [10, 100], "settings": {"tokens": 4}, "peak_bytes": [2**30, 2**30],
        "seconds": {part: [1.0, 2.0] for part in (*corpus.PARTS, "all")},
        "fits": dict.fromkeys((*corpus.PARTS, "all"), line),
        "plain": {"10": {"seconds": {"group": 1.0}, "peak_bytes": {"group": 2**30}}},
    }  # fmt: skip
    corpus.draw(table, tmp_path / "new" / f"corpus.{suffix}")
    assert (tmp_path / "new" / f"corpus.{suffix}").read_bytes().startswith(magic)
