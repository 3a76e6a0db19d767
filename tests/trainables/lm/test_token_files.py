"""Tokens on disk are those in memory, whichever way they are read."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from trainables.lm import token_files, token_tables
from trainables.lm.card import model_card
from trainables.lm.corpus_tokens import CorpusTokens
from trainables.lm.token_files import map_tokens, write_tokens
from trainables.lm.token_tables import MappedTokens
from trainables.lm.tokens import load_tokenizer, segments
from trainables.node.map_batches import Make

TEXTS = [
    "Mira Talven is a painter in Orsk.", "", "x", "Two words. " * 40, "A page with an ending of its own", "Mira " * 30
]  # fmt: skip


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("model", ["llama", "gpt_neox"])
def test_a_file_has_the_segments_of_every_text(tiny_models, tmp_path: Path, monkeypatch, rows: int, model: str) -> None:
    monkeypatch.setattr(token_files, "ROWS", rows)
    monkeypatch.setattr(token_files, "PIECE_DOCUMENTS", 3)
    monkeypatch.setattr(token_tables, "BATCH_DOCUMENTS", 2)
    tokenizer = load_tokenizer(model_card(str(tiny_models[model])))
    found = write_tokens(tmp_path / "tokens.arrow", iter(TEXTS), tokenizer, 12, 3)
    expected = [segments(tokenizer, text, 12, 3) for text in TEXTS]
    assert [[s.tolist() for s in found.segments(place)] for place in range(len(TEXTS))] == expected
    assert found.lengths().tolist() == [sum(map(len, parts)) for parts in expected] and expected[1] == []
    plain = CorpusTokens.of_documents(expected)
    for places in ([0, 1, 2], [5, 0, 3], [3], [1], [5, 4, 3, 2, 1, 0], list(range(6))):
        one, other = found.take(np.array(places)), plain.take(np.array(places))
        assert one.tokens[:].tolist() == other.tokens[:].tolist()
        assert one.segment_ends.tolist() == other.segment_ends.tolist()
        assert one.document_ends.tolist() == other.document_ends.tolist()
    again = Dataset.from_file(str(tmp_path / "tokens.arrow"))
    assert again[3]["tokens"] == [token for part in expected[3] for token in part]
    assert again[3]["segment_lengths"] == list(map(len, expected[3]))


@pytest.mark.parametrize("as_text", [False, True])
def test_a_tokenizer_travels_without_its_files_as_it_was_set(tiny_models, tmp_path: Path, as_text: bool) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_models["llama"], folder)
    tokenizer = load_tokenizer(model_card(str(folder)))
    tokenizer.split_special_tokens = as_text
    shutil.rmtree(folder)

    def travelled(make: Make, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            yield from pickle.loads(pickle.dumps(make))(table)

    every = ["An end </s> within", *TEXTS]
    found = write_tokens(tmp_path / "one.arrow", every, tokenizer, 12, 3, travelled)
    write_tokens(tmp_path / "other.arrow", every, tokenizer, 12, 3)
    assert (tmp_path / "one.arrow").read_bytes() == (tmp_path / "other.arrow").read_bytes()
    assert (1 in found.document(0).tolist()) is not as_text


def test_a_tokenizer_of_another_kind_works_here(tiny_models, tmp_path: Path, monkeypatch) -> None:
    tokenizer = load_tokenizer(model_card(str(tiny_models["llama"])))
    write_tokens(tmp_path / "fast.arrow", TEXTS, tokenizer, 12, 3)
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    write_tokens(tmp_path / "slow.arrow", TEXTS, tokenizer, 12, 3, lambda *_: pytest.fail("it was sent elsewhere"))
    assert (tmp_path / "slow.arrow").read_bytes() == (tmp_path / "fast.arrow").read_bytes()


def test_no_room_for_text_is_told_before_anything_is_sent(tiny_models, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model_card(str(tiny_models["llama"])))
    with pytest.raises(ValueError, match="no room for text"):
        write_tokens(tmp_path / "t.arrow", TEXTS, tokenizer, 0, 3, lambda *_: pytest.fail("it was sent elsewhere"))


def test_nothing_at_all_is_a_file_too(tiny_models, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model_card(str(tiny_models["llama"])))
    found = write_tokens(tmp_path / "tokens.arrow", [], tokenizer, 12, 3)
    assert len(found) == 0 and len(found.tokens) == 0


def test_a_mapped_file_may_be_deleted_and_is_not_read_into_memory(tiny_models, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model_card(str(tiny_models["llama"])))
    path = tmp_path / "tokens.arrow"
    first = write_tokens(path, TEXTS, tokenizer, 12, 3)
    found = map_tokens(path)
    assert any(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines())
    path.unlink()
    assert found.document(3).tolist() == first.document(3).tolist()
    assert not found.segments(3)[0].flags.owndata and not found.segments(3)[0].flags.writeable


def test_several_arrays_are_read_as_one() -> None:
    parts = [np.arange(0, 4), np.arange(4, 4), np.arange(4, 9), np.arange(9, 10)]
    tokens = MappedTokens([part.astype(np.int32) for part in parts])
    whole = np.arange(10)
    assert len(tokens) == 10
    for start in range(11):
        for stop in range(start, 12):
            assert tokens[start:stop].tolist() == whole[start:stop].tolist()


@pytest.mark.parametrize("documents", [[], [1], [3], [0, 1, 2, 3, 4], [2, 3], [4, 0, 1, 1], [1, 0], [3, 1, 3], [3, 0]])
def test_documents_are_taken_in_any_order_and_as_views_where_they_stand_together(documents: list[int]) -> None:
    nested = [[[1, 2], [3]], [], [[4, 5, 6], [7], [8, 9]], [[]], [[10]]]
    laid = CorpusTokens.of_documents(nested)
    mapped = MappedTokens([part.astype(np.int32) for part in (laid.tokens[:5], laid.tokens[5:5], laid.tokens[5:])])
    for corpus in (laid, CorpusTokens(mapped, laid.segment_ends, laid.document_ends)):
        found = corpus.take(np.array(documents, dtype=np.int64))
        again = [[s.tolist() for s in found.segments(place)] for place in range(len(found))]
        assert again == [nested[document] for document in documents]
        assert len(found.tokens) == sum(len(s) for document in documents for s in nested[document])
    assert laid.take(np.array([2, 4])).tokens.base is not None and laid.take(np.array([2, 3])).tokens.base is not None
