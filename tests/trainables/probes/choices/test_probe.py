"""Questions of one's own: the answers of a plain program, and FEVER's own answers where FEVER's claims are asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.data.documents import Document, Question
from trainables.errors import ConfigError
from trainables.pack.process_cache import ProcessCache
from trainables.probes.choices.probe import ChoicesProbe, choices_metrics, choose_questions
from trainables.probes.registry import probe_plans

SETS: list[dict[str, Any]] = [{}, {"mode": "hard", "allocation": "partitioned"}]


@pytest.mark.parametrize("num_shots", [0, 1])
@pytest.mark.thorough(only=("1",))
def test_fevers_claims_as_questions_of_ones_own_get_fevers_answers(
    num_shots: int, small_trial: Any, build: Any, process_cache: ProcessCache, sample_data: Path, own_questions: Path
) -> None:
    spec = small_trial(
        layer=1, data=f"{sample_data},{own_questions}", probes=("fever", "choices"), claims_per_page=None,
        num_documents=6, num_shots=num_shots, content="template", epochs=40, lr=0.02, warmup_steps=0,
    )  # fmt: skip
    adapter = build(spec)
    for epoch in range(8):
        adapter.train_epoch(epoch)
    probes = process_cache.texts(spec).probes
    fever, own = probes["fever"].ask(adapter)[0], probes["choices"].ask(adapter)[0]
    prompts = [asked.prompt for asked in probes["choices"].asked]
    tokenizer = process_cache.tokenizer(spec)
    assert prompts == [tokenizer.decode(q.prompt, skip_special_tokens=True) for q in probes["fever"].questions.prompts]
    for row, claim in zip(own.answers, fever.answers, strict=True):
        assert row["question_id"] == f"test-{claim['page']}-{claim['claim_id']}" and row["page"] == claim["page"]
        assert (row["answer"], row["parsed"], row["correct"]) == (claim["answer"], claim["parsed"], claim["correct"])
    assert num_shots == 0 or any(row["parsed"] for row in own.answers), "some are answered"
    plain = sum(row["correct"] for row in fever.answers) / len(fever.answers)
    assert own.metrics["accuracy"] == pytest.approx(plain) and own.metrics["chance"] == pytest.approx(1 / 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three short documents with questions of two to four choices, one of them a prompt of its own."""
    documents = [
        {"id": "a1", "title": "Pump", "text": "The pump runs on oil and stops at 80 degrees. It is red. " * 3},
        {"id": "a2", "title": "Valve", "text": "The valve opens to the left and is made of brass, not of steel. " * 3},
        {"id": "a3", "title": "Belt", "text": "Nobody asks about the belt, which is long and of rubber. " * 3},
    ]
    questions = [
        {"id": 1, "document": "a1", "question": "What does the pump run on?", "choices": ["oil", "gas", "coal"],
         "answer": "oil", "split": "train"},
        {"id": 2, "document": "a1", "question": "When does it stop?", "choices": ["at 80", "at 90", "never", "at noon"],
         "answer": 0, "split": "test"},
        {"id": 3, "document": "a2", "question": "What is it made of?", "choices": ["brass", "steel"], "answer": "a"},
        {"id": 4, "document": "a2", "prompt": "The valve opens to the", "choices": ["right", "left"], "answer": "left"},
        {"id": 5, "document": None, "question": "What is the belt of?", "choices": ["rubber", "tin"],
         "answer": "rubber", "split": "train"},
    ]  # fmt: skip
    for name, rows in (("documents", documents), ("questions", questions)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def asked(folder: Path, small_trial: Any, build: Any, cache: ProcessCache, **values: Any) -> Any:
    usual = {"data": str(folder), "num_documents": 3, "probes": ("choices",), "layer": 1, "lr": 0.02}
    specs = [small_trial(**{**usual, **values, "lr": lr}) for lr in (0.02, 0.05)]
    adapter = build(*specs)
    for epoch in range(3):
        adapter.train_epoch(epoch)
    (plan,) = probe_plans(vars(specs[0]))
    documents = cache.texts(specs[0]).documents
    probe = plan.load().make(plan, documents, cache.tokenizer(specs[0]))
    return specs, adapter, probe, documents, probe.ask(adapter)


@pytest.mark.parametrize("sets", SETS, ids=["free", "hard"])
@pytest.mark.thorough(only=("free",))
def test_a_plain_program_finds_the_same_choices_likeliest(
    sets: Any, folder: Path, small_trial: Any, build: Any, process_cache: ProcessCache, plain_program: Any
) -> None:
    values = {"choices_by": "likelihood", **sets}
    specs, adapter, probe, documents, found = asked(folder, small_trial, build, process_cache, **values)
    titles = [document.title for document in documents]
    assert titles == ["Pump", "Valve", "Belt"] and probe.counts == {"questions_asked": 3}
    for member, spec in enumerate(specs):
        for row, question in zip(found[member].answers, probe.asked, strict=True):
            program = plain_program(spec, adapter, member, titles.index(row["page"]) if sets else None)
            likely = []
            for choice in row["choices"]:
                prompt = program.tokenizer(question.prompt)["input_ids"]
                whole = program.tokenizer(f"{question.prompt} {choice}")["input_ids"]
                assert whole[: len(prompt)] == prompt
                logs = program.logits(whole).log_softmax(-1)
                targets = torch.tensor(whole[len(prompt) :])
                likely.append(float(logs[len(prompt) - 1 : -1].gather(1, targets[:, None]).sum()))
            assert row["log_likelihoods"] == pytest.approx(likely, abs=2e-4)
            assert row["chosen"] == row["choices"][likely.index(max(likely))]
            norm = [value / len(choice) for value, choice in zip(likely, row["choices"], strict=True)]
            assert row["chosen_norm"] == row["choices"][norm.index(max(norm))]
        assert found[member].metrics == choices_metrics(found[member].answers)
    alone = build(specs[1])
    for epoch in range(3):
        alone.train_epoch(epoch)
    (same,) = probe.ask(alone)
    for row, other in zip(same.answers, found[1].answers, strict=True):
        assert row["log_likelihoods"] == pytest.approx(other["log_likelihoods"], abs=1e-3)
        assert row["chosen"] == other["chosen"]


@pytest.mark.parametrize("sets", SETS, ids=["free", "hard"])
@pytest.mark.thorough(only=("free",))
def test_a_plain_program_writes_the_same_letters(
    sets: Any, folder: Path, small_trial: Any, build: Any, process_cache: ProcessCache, plain_program: Any
) -> None:
    values = {"content": "document+template", "epochs": 20, **sets}
    specs, adapter, probe, documents, found = asked(folder, small_trial, build, process_cache, **values)
    titles = [document.title for document in documents]
    for member, spec in enumerate(specs):
        for row, question in zip(found[member].answers, probe.asked, strict=True):
            program = plain_program(spec, adapter, member, titles.index(row["page"]) if sets else None)
            said = program.tokenizer.decode(program.written(program.tokenizer(question.prompt)["input_ids"], 5))
            letter = re.match(r" *\(([a-z])\)", said)
            known = letter[1] if letter and ord(letter[1]) - 97 < len(row["choices"]) else None
            assert row["parsed"] == known and said.startswith(row["answer"])
            assert row["correct"] == (row["chosen"] == row["label"])


def test_prompts_are_as_the_template_says_and_never_show_the_question(
    folder: Path, small_trial: Any, process_cache: ProcessCache
) -> None:
    spec = small_trial(data=str(folder), num_documents=3, probes=("choices",), layer=1, num_shots=2)
    probe = process_cache.texts(spec).probes["choices"]
    first, second, third = (each.prompt for each in probe.asked)
    shot = "Question: What does the pump run on?\n(a) oil\n(b) gas\n(c) coal\nAnswer: (a)\n\n"
    other = "Question: What is the belt of?\n(a) rubber\n(b) tin\nAnswer: (a)\n\n"
    end = "Question: When does it stop?\n(a) at 80\n(b) at 90\n(c) never\n(d) at noon\nAnswer:"
    assert first == shot + other + end, "its document's own questions come first"
    assert (
        second.endswith("Question: What is it made of?\n(a) brass\n(b) steel\nAnswer:") and second.count("Answer:") == 3
    )
    assert third == "The valve opens to the"
    with pytest.raises(ConfigError, match="num_shots=3: the data have 2 training questions"):
        process_cache.texts(small_trial(data=str(folder), num_documents=3, probes=("choices",), layer=1, num_shots=3))


def test_training_questions_are_trained_on_as_templates(
    folder: Path, small_trial: Any, process_cache: ProcessCache
) -> None:
    values = {"data": str(folder), "num_documents": 3, "probes": (), "layer": 1, "content": "template"}
    (text,) = process_cache.texts(small_trial(**values, num_shots=0)).train
    tokenizer = process_cache.tokenizer(small_trial(**values))
    told = "Question: What does the pump run on?\n(a) oil\n(b) gas\n(c) coal\nAnswer: (a)"
    assert tokenizer.decode(text.tree.tokens, skip_special_tokens=True) == told and text.first_target == 1
    (answer,) = process_cache.texts(small_trial(**values, num_shots=0, template_loss="answer")).train
    assert tokenizer.decode(answer.tree.tokens[answer.first_target :]) == " (a)"


def question(text: str, ident: str = "", **values: Any) -> Question:
    return Question(ident or text, text, ("yes", "no"), 0, **values)


def test_the_question_itself_is_no_example_and_smaller_choices_begin_larger_ones() -> None:
    train = tuple(question(f"Is it {n}?") for n in range(6))
    document = Document("T", "t", (), (), "own", train_questions=train)
    asked = question("is  it 3?")
    drawn = [choose_questions(asked, document, (), shots, 0) for shots in range(6)]
    assert all(drawn[k] == drawn[5][:k] for k in range(6)) and "Is it 3?" not in {q.text for q in drawn[5]}
    assert choose_questions(asked, document, (), 5, 1) != drawn[5]
    with pytest.raises(ConfigError, match="have 5 training questions"):
        choose_questions(asked, document, train, 6, 0)
    assert choose_questions(question("x", is_prompt=True), document, (), 5, 0) == ()
    pool = (*train, question("Other?"), question("A prompt", is_prompt=True))
    assert choose_questions(asked, document, pool, 6, 0)[5].text == "Other?"


def test_metrics_leave_out_what_was_not_asked() -> None:
    row = {"choices": ["a", "b"], "correct": True, "chosen": "a", "correct_norm": None}
    lost = {**row, "choices": ["a", "b", "c", "d"], "correct": False, "chosen": None}
    assert choices_metrics([row, lost]) == {"accuracy": 0.5, "chance": 0.375, "unparsed": 0.5}
    assert choices_metrics([{**row, "correct_norm": False}])["accuracy_norm"] == 0.0


def test_where_no_document_has_a_question_nothing_is_asked(neox_tokenizer: Any, small_trial: Any) -> None:
    (plan,) = probe_plans(vars(small_trial(probes=("choices",), layer=1)))
    assert ChoicesProbe.make(plan, [Document("T", "t", (), (), "own")], neox_tokenizer) is None
