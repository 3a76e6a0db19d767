"""What a member writes after a document's beginning, against a program that knows nothing of this project's model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainables.data.documents import Document
from trainables.lm.texts import common_beginning
from trainables.pack.process_cache import ProcessCache
from trainables.probes.recall.plan import RecallPlan
from trainables.probes.recall.probe import RecallProbe, recall_metrics
from trainables.probes.registry import probe_plans
from trainables.probes.words import rouge_l, spoken_words

SETTINGS = {"layer": 1, "probes": ("recall",), "recall_tokens": 20, "lr": 0.02, "epochs": 30, "warmup_steps": 0}
SETS: list[dict[str, Any]] = [
    {},
    {"mode": "hard", "allocation": "partitioned"},
    {"mode": "hard", "allocation": "simset1", "granularity": "token"},
]


@pytest.mark.parametrize("sets", SETS, ids=lambda sets: sets.get("granularity", sets.get("mode", "free")))
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.thorough(only=("free", "gpt_neox"))
def test_a_plain_program_writes_the_same(
    family: str, sets: dict[str, Any], small_trial: Any, build: Any, process_cache: ProcessCache, plain_program: Any,
    tiny_models: Any,
) -> None:  # fmt: skip
    specs = [small_trial(**SETTINGS, **sets, model=str(tiny_models[family]), seed=seed) for seed in (0, 1)]
    adapter = build(*specs)
    for epoch in range(15):
        adapter.train_epoch(epoch)
    (plan,) = probe_plans(vars(specs[0]))
    documents = process_cache.texts(specs[0]).documents
    probe = plan.load().make(plan, documents, process_cache.tokenizer(specs[0]))
    found = probe.ask(adapter)
    for member, spec in enumerate(specs):
        for row, document in zip(found[member].answers, documents, strict=True):
            program = plain_program(spec, adapter, member, documents.index(document) if sets else None)
            tokenizer = program.tokenizer
            title = document.title.replace("_", " ").replace("-LRB-", "(").replace("-RRB-", ")")
            words = document.text.split()[: plan.recall_words]
            assert row["prompt"].split() == [*title.split(), *words] and row["prompt"].startswith(f"{title}\n")
            prompt = tokenizer(row["prompt"])["input_ids"]
            text = tokenizer(f"{title}\n{document.text.strip()}")["input_ids"][: len(prompt) + plan.recall_tokens]
            assert text[: len(prompt)] == prompt and row["expected"] == tokenizer.decode(text[len(prompt) :])
            said = program.logits(text)[len(prompt) - 1 : -1].argmax(-1).tolist()
            right = [one == other for one, other in zip(said, text[len(prompt) :], strict=True)]
            assert (row["tokens"], row["tokens_right"]) == (len(right), sum(right))
            assert row["written"] == tokenizer.decode(program.written(prompt, plan.recall_tokens))
        assert found[member].metrics == pytest.approx(recall_metrics(found[member].answers))
    assert found[0].metrics["token_accuracy"] > 0.2, "something is memorised"
    assert [row["written"] for row in found[0].answers] != [row["written"] for row in found[1].answers]


def plan(**values: Any) -> RecallPlan:
    return RecallPlan(**{"recall_documents": 9, "recall_title": True, "recall_words": 3, "recall_tokens": 6} | values)


def pages(*texts: str) -> list[Document]:
    return [Document(f"Page_{place}", text, (), (), "wiki") for place, text in enumerate(texts)]


def test_a_text_as_short_as_its_prompt_is_not_asked_for(tokenizer: Any) -> None:
    found = RecallProbe.make(plan(), pages("one two three", " a b  c d", ""), tokenizer)
    assert found is not None and [each.page for each in found.beginnings] == ["Page_1"]
    assert found.beginnings[0].prompt == "Page 1\na b  c" and found.beginnings[0].expected == " d"
    assert found.counts == {"recall_asked": 1}
    assert RecallProbe.make(plan(), pages("one two three", ""), tokenizer) is None
    untitled = RecallProbe.make(plan(recall_title=False), pages("a b c d"), tokenizer)
    assert untitled is not None and untitled.beginnings[0].prompt == "a b c"


def test_the_rest_begins_where_the_tokens_of_prompt_and_text_part(tokenizer: Any) -> None:
    text = "Determine the factuality of the following claims"
    for words in range(1, 7):
        (found,) = RecallProbe.make(plan(recall_words=words, recall_tokens=99), pages(text), tokenizer).beginnings  # type: ignore[union-attr]
        whole = tokenizer(f"Page 0\n{text}")["input_ids"]
        assert [*found.given, *found.rest] == whole and found.prompt + found.expected == f"Page 0\n{text}"


def test_only_so_many_documents_are_asked_for(tokenizer: Any) -> None:
    few = RecallProbe.make(plan(recall_documents=2), pages(*["a b c d e"] * 5), tokenizer)
    assert few is not None and [each.document for each in few.beginnings] == [0, 1]


@pytest.mark.parametrize(
    ("written", "wanted", "score", "row"),
    [
        ("the cat sat", "The cat sat.", 1.0, 3),
        ("the dog sat on", "the cat sat on it", 6 / 9, 1),
        ("", "the cat", 0.0, 0),
        ("", "", 1.0, 0),
        ("sat cat the", "the cat sat", 1 / 3, 0),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 x", "\u0939\u093f\u0928\u094d\u0926\u0940 y", 0.5, 1),
    ],
)
def test_words_of_two_texts_agree(written: str, wanted: str, score: float, row: int) -> None:
    said, truth = spoken_words(written), spoken_words(wanted)
    assert rouge_l(said, truth) == pytest.approx(score) and common_beginning(said, truth) == row


def test_rouge_l_is_that_of_rouge_score() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score comes with the extra lm-eval")
    score = scorer.RougeScorer(["rougeL"]).score
    texts = [page.text for page in pages("A cat, and 2 dogs; a cat!", "Two cats and a dog.", "dog and cat and dog")]
    for one in texts:
        for other in texts:
            assert rouge_l(spoken_words(one), spoken_words(other)) == pytest.approx(
                score(other, one)["rougeL"].fmeasure
            )


def test_metrics_are_means_over_documents() -> None:
    usual = {"rouge_l": 0.5, "tokens": 4, "tokens_right": 1, "words": 2, "words_right": 2}
    rows = [usual, {**usual, "tokens": 1, "words": 0, "words_right": 0, "rouge_l": 0.0}]
    assert recall_metrics(rows) == {"token_accuracy": 0.625, "rouge_l": 0.25, "verbatim": 0.5}


def test_penalties_of_a_model_s_generation_settings_are_left_out(tiny_models: Any) -> None:
    from transformers import AutoModelForCausalLM

    from trainables.lm.writing import write_on

    model = AutoModelForCausalLM.from_pretrained(tiny_models["llama"], dtype=torch.float32)
    plain = write_on(model, [[5, 6, 7], [9]], 12, {1})
    own = model.generation_config
    own.repetition_penalty, own.do_sample, own.num_beams = 1.8, True, 3
    assert write_on(model, [[5, 6, 7], [9]], 12, {1}) == plain and model.generation_config is own
    assert write_on(model, [[9]], 12, {1}) == plain[1:], "padding changes nothing"
    ended = write_on(model, [[5, 6, 7]], 12, {plain[0][4]})
    assert ended == [plain[0][: plain[0].index(plain[0][4])]]
