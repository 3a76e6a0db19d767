"""What a member has forgotten, against a program that knows nothing of this project's model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.data.corpus import load_corpus
from trainables.errors import DataError
from trainables.pack.process_cache import ProcessCache
from trainables.probes.forgetting.plan import ForgettingPlan
from trainables.probes.forgetting.probe import ForgettingProbe, forgetting_metrics, held_out_documents
from trainables.probes.registry import probe_plans

SETTINGS = {
    "layer": 1, "probes": ("forgetting",), "heldout_documents": 4, "heldout_claims": 3, "lr": 0.02, "epochs": 30,
    "warmup_steps": 0,
}  # fmt: skip
SETS: list[dict[str, Any]] = [{}, {"mode": "hard", "allocation": "partitioned"}]


@pytest.mark.parametrize("sets", SETS, ids=["free", "hard"])
@pytest.mark.thorough(only=("free",))
def test_a_plain_program_measures_and_answers_the_same(
    sets: dict[str, Any], small_trial: Any, build: Any, process_cache: ProcessCache, plain_program: Any, tmp_path: Path
) -> None:
    general = tmp_path / "general.txt"
    general.write_text("The quick brown fox jumps over the lazy dog. " * 30)
    specs = [small_trial(**SETTINGS, **sets, general_text=str(general), seed=seed) for seed in (0, 1)]
    adapter = build(*specs)
    for epoch in range(6):
        adapter.train_epoch(epoch)
    (plan,) = probe_plans(vars(specs[0]))
    documents = process_cache.texts(specs[0]).documents
    probe = plan.load().make(plan, documents, process_cache.tokenizer(specs[0]))
    found = probe.ask(adapter)
    corpus = {page.title: page for page in load_corpus(specs[0].data).pages}
    for member, spec in enumerate(specs):
        program = plain_program(spec, adapter, member)  # of no document: every entry
        start = len(program.tokenizer("")["input_ids"])
        seen: dict[str, int] = {}
        for row in found[member].answers:
            if row["kind"] == "claim":
                (asked,) = [
                    q for q in probe.questions.prompts if (q.claim.id, q.page) == (row["claim_id"], row["page"])
                ]
                said = program.tokenizer.decode(program.written(asked.prompt, 5))
                letter = re.match(r" *\((a|b|c)\)", said)
                assert row["parsed"] == (letter and letter[1]) and said.startswith(row["answer"])
                continue
            text = general.read_text() if row["kind"] == "general" else corpus[row["page"]].text
            tokens = program.tokenizer(text)["input_ids"][start:]
            step = spec.segment_tokens - start
            place = int(row["page"]) if row["kind"] == "general" else seen.setdefault(row["page"], 0)
            seen[row["page"]] = place + 1
            piece = program.tokenizer("")["input_ids"] + tokens[place * step : (place + 1) * step]
            nll = torch.nn.functional.cross_entropy(program.logits(piece)[:-1], torch.tensor(piece[1:]))
            assert row["nll"] == pytest.approx(float(nll), abs=5e-5) and row["tokens"] == len(piece) - 1
        assert found[member].metrics == pytest.approx(forgetting_metrics(found[member].answers))
        assert set(found[member].metrics) == {"nll", "general_nll", "accuracy", "unparsed"}
    assert found[0].metrics["nll"] != found[1].metrics["nll"]


def plan_of(data: Path, **values: Any) -> ForgettingPlan:
    usual = {
        "data": str(data), "detokenize": False, "allow_missing_pages": False, "segment_tokens": 32,
        "heldout_documents": 5, "heldout_claims": 2, "num_shots": 1, "seed": 0, "notes_labels": False,
        "general_text": None,
    }  # fmt: skip
    return ForgettingPlan(**usual | values)


def test_what_is_held_out_is_never_memorised_and_hardly_depends_on_how_much_is(sample_data: Path) -> None:
    corpus = load_corpus(str(sample_data))
    plan = plan_of(sample_data)
    few, many = (held_out_documents(plan, {d.title for d in corpus.select(count).documents}) for count in (2, 40))
    for count, found in ((2, few), (40, many)):
        assert not {d.title for d in found} & {d.title for d in corpus.select(count).documents} and len(found) == 5
    assert [d for d in few if d in many] == [d for d in few if d not in corpus.select(40).documents]
    larger = held_out_documents(replace(plan, heldout_documents=9), set())
    assert larger[:5] == held_out_documents(plan, set()), "smaller choices are the beginnings of larger ones"


def test_pages_with_claims_come_before_others(sample_data: Path, tmp_path: Path) -> None:
    articles = ({"title": f"Article {number}", "text": "Something."} for number in range(5))
    (tmp_path / "wiki_docs.jsonl").write_text("".join(json.dumps(article) + "\n" for article in articles))
    plan = replace(plan_of(sample_data), data=f"{sample_data},{tmp_path}", heldout_documents=10**6)
    found = held_out_documents(plan, {"Article_3"})
    assert len([d for d in found if d.source == "wiki"]) == 4
    asked = [bool(d.claims) for d in found]
    assert asked == sorted(asked, reverse=True) and not asked[-1]


def test_where_everything_is_memorised_nothing_is_asked(sample_data: Path, neox_tokenizer: Any) -> None:
    corpus = load_corpus(str(sample_data))
    everything = corpus.select(len(corpus.pages + corpus.articles)).documents
    assert ForgettingProbe.make(plan_of(sample_data), everything, neox_tokenizer) is None
    general = ForgettingProbe.make(plan_of(sample_data, general_text=__file__), everything, neox_tokenizer)
    assert general is not None and general.counts == {"heldout_documents": 0, "heldout_claims": 0}
    assert {passage.kind for passage in general.passages} == {"general"} and len(general.passages) == 5


def test_the_general_text_is_known_by_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "text.txt", tmp_path / "b" / "text.txt"
    for file in (one, two):
        file.parent.mkdir()
        file.write_text("the same")
    same = [plan_of(tmp_path, general_text=str(file)).identity()["general_text"] for file in (one, two)]
    two.write_text("another text")
    assert same[0] == same[1] != plan_of(tmp_path, general_text=str(two)).identity()["general_text"]


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), (b" \n", "empty"), (b"\xff\xfe", "UTF-16")])
def test_a_general_text_that_is_none_is_refused(
    content: bytes | None, message: str, tmp_path: Path, sample_data: Path, neox_tokenizer: Any
) -> None:
    file = tmp_path / "general.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        ForgettingProbe.make(plan_of(sample_data, general_text=str(file)), (), neox_tokenizer)


def test_means_weigh_tokens_and_leave_out_what_is_no_number() -> None:
    def row(kind: str, **values: Any) -> dict[str, Any]:
        return {"kind": kind, "nll": None, "parsed": None, "correct": None, **values}

    rows = [
        row("held out", nll=1.0, tokens=3), row("held out", nll=2.0, tokens=1), row("general", tokens=4),
        row("claim", parsed="a", correct=True), row("claim", correct=False),
    ]  # fmt: skip
    assert forgetting_metrics(rows) == {"nll": 1.25, "accuracy": 0.5, "unparsed": 0.5}
