from __future__ import annotations

import copy
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from trainables.data.documents import Claim, Document
from trainables.data.prompts import choose_examples
from trainables.probes.answer_letter import MAX_ANSWER_TOKENS, ContinuationDecoder, parse_answer
from trainables.probes.fever.questions import FeverAnswer, FeverQuestions


def generated_letters(questions: FeverQuestions, model: Any, tokenizer: Any) -> list[str | None]:
    """What `generate` and the decoded continuation say, claim by claim."""
    letters = []
    for question in questions.prompts:
        prompt = torch.tensor([question.prompt])
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=MAX_ANSWER_TOKENS,
            pad_token_id=tokenizer.eos_token_id,
        )[0].tolist()
        texts = [
            tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for ids in (list(question.prompt), output)
        ]
        letters.append(parse_answer(texts[1][len(texts[0]) :]))
    return letters


def letters_of(answers: list[FeverAnswer]) -> list[str | None]:
    return [answer.letter for answer in answers]


@pytest.mark.parametrize("num_shots", [0, 1])
@pytest.mark.thorough(only=("neox",))
def test_answers_are_those_of_greedy_generation(
    documents: list[Document], tokenizer: Any, answering_models: list[Any], respond_with: Any, num_shots: int
) -> None:
    questions = FeverQuestions(documents, tokenizer, num_shots=num_shots, claims_per_page=8)
    seen: Counter[str | None] = Counter()
    for model in answering_models:
        (answers,) = questions.answer(respond_with(model))
        assert letters_of(answers) == generated_letters(questions, model, tokenizer)
        seen.update(letters_of(answers))
    assert {None, "a", "b", "c"} == set(seen), "the models must give every answer, and none"


def test_every_end_token_of_the_model_ends_an_answer_as_for_generate(
    documents: list[Document], tokenizer: Any, answering_models: list[Any], respond_with: Any, tmp_path: Path
) -> None:
    """A chat model that says `<eot>` before the letter has not answered."""
    plain = FeverQuestions(documents, tokenizer, claims_per_page=8)
    tokenizer.save_pretrained(tmp_path)
    for model in answering_models:
        (before,) = plain.answer(respond_with(model))
        lettered = [answer for answer in before if answer.letter]
        if lettered:
            break
    assert lettered
    opening = [token for token in range(len(tokenizer)) if tokenizer.decode([token]).strip().startswith("(")]
    kept = copy.deepcopy(model.generation_config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *opening]
    try:
        model.generation_config.save_pretrained(tmp_path)
        questions = FeverQuestions(documents, AutoTokenizer.from_pretrained(tmp_path), claims_per_page=8)
        (answers,) = questions.answer(respond_with(model))
        assert letters_of(answers) == generated_letters(questions, model, tokenizer)
        assert letters_of(answers) != letters_of(before)
    finally:
        model.generation_config = kept


def test_members_of_a_pack_answer_as_they_do_alone(
    documents: list[Document], tokenizer: Any, answering_models: list[Any], respond_with: Any
) -> None:
    questions = FeverQuestions(documents, tokenizer)
    rounds: list[int] = []
    respond = respond_with(*answering_models)

    def counted(trees: Any, about: Any, nodes: Any) -> Any:
        rounds.append(len(trees))
        return respond(trees, about, nodes)

    packed = questions.answer(counted)
    assert packed == [questions.answer(respond_with(model))[0] for model in answering_models]
    assert len({tuple(letters_of(answers)) for answers in packed}) == len(packed)
    assert 1 < len(rounds) <= MAX_ANSWER_TOKENS, "some answers must leave the tree"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample-llama", "sample-neox"])
def test_answers_of_sample_models_are_those_of_greedy_generation(name: str, respond_with: Any) -> None:
    from trainables.data.corpus import load_corpus
    from trainables.lm.card import model_card
    from trainables.lm.reference import WholeModel
    from trainables.lm.tokens import load_tokenizer

    card = model_card(name)
    tokenizer = load_tokenizer(card)
    model = WholeModel(card, torch.float32, "cpu").model
    selection = load_corpus("sample").select(4)
    questions = FeverQuestions(selection.documents, tokenizer, num_shots=1, seed=0)
    (answers,) = questions.answer(respond_with(model))
    assert letters_of(answers) == generated_letters(questions, model, tokenizer)
    assert any(answer.letter for answer in answers)


def test_an_answer_carries_its_claim_and_text(documents: list[Document], tokenizer: Any) -> None:
    questions = FeverQuestions(documents, tokenizer)
    say = Script(tokenizer, " (b)", questions)
    (answers,) = questions.answer(say)
    claim = documents[0].claims[1]
    assert answers[1] == FeverAnswer(claim.id, documents[0].title, claim.label, claim.rows, " (b)", "b")
    assert [answer.correct for answer in answers] == [answer.label == "REFUTES" for answer in answers]
    assert say.rounds == 1, "the usual spelling of an answer is read in the first pass"


@pytest.mark.parametrize(
    ("text", "letter"), [("  (c)", "c"), ("(a)", "a"), (" (a", None), ("\n (a)", None), ("", None)]
)
def test_unusual_spellings_are_followed_to_their_end(
    documents: list[Document], tokenizer: Any, text: str, letter: str | None
) -> None:
    questions = FeverQuestions(documents, tokenizer)
    (answers,) = questions.answer(Script(tokenizer, text, questions))
    assert {answer.letter for answer in answers} == {letter}


def test_an_answer_that_never_shows_its_letter_ends_unparsed(documents: list[Document], tokenizer: Any) -> None:
    questions = FeverQuestions(documents, tokenizer)
    text = ContinuationDecoder(tokenizer).text
    space = next(i for i in range(len(tokenizer)) if text(questions.prompts[0].prompt, [i]) == " ")
    calls = []

    def respond(trees: Any, about: Any, nodes: Any) -> Any:
        calls.append(len(trees))
        return np.full((1, sum(map(len, nodes))), space)

    (answers,) = questions.answer(respond)
    assert {answer.text for answer in answers} == {" " * MAX_ANSWER_TOKENS}
    assert {answer.letter for answer in answers} == {None}
    assert len(calls) == MAX_ANSWER_TOKENS


def test_every_tree_is_about_one_page_and_small_enough(documents: list[Document], tokenizer: Any) -> None:
    questions = FeverQuestions(documents, tokenizer, max_tree_tokens=200)
    assert set(questions.tree_documents) == {0, 2}
    assert questions.tree_documents == sorted(questions.tree_documents)
    longest = max(len(question.prompt) for question in questions.prompts)
    assert all(len(tree) <= max(200, longest + MAX_ANSWER_TOKENS) for tree in questions.trees)


def test_the_size_of_trees_does_not_change_answers(
    documents: list[Document], tokenizer: Any, answering_models: list[Any], respond_with: Any
) -> None:
    respond = respond_with(*answering_models)
    large, small = (FeverQuestions(documents, tokenizer, max_tree_tokens=size) for size in (4096, 64))
    assert len(large.trees) == 2 and len(small.trees) > 4
    assert large.answer(respond) == small.answer(respond)


def test_prompts_of_a_page_are_run_once_where_they_agree(documents: list[Document], tokenizer: Any) -> None:
    questions = FeverQuestions(documents, tokenizer)
    assert sum(map(len, questions.trees)) < 0.5 * sum(len(q.prompt) for q in questions.prompts)


def test_claims_per_page_keeps_a_choice_that_does_not_depend_on_their_order(
    documents: list[Document], tokenizer: Any
) -> None:
    def ids(pages: list[Document], most: int) -> list[str]:
        return [q.claim.id for q in FeverQuestions(pages, tokenizer, claims_per_page=most).prompts]

    turned = [replace(document, claims=document.claims[::-1]) for document in documents]
    assert Counter(ids(documents, 4)) == Counter(ids(turned, 4))
    assert len(ids(documents, 4)) == 8
    assert set(ids(documents, 2)) < set(ids(documents, 4))
    assert len(ids(documents, 100)) == 25


def test_claims_with_the_same_text_are_each_answered(documents: list[Document], tokenizer: Any) -> None:
    claims = documents[0].claims
    twice = replace(documents[0], claims=(*claims, replace(claims[0], id="999", label="REFUTES")))
    questions = FeverQuestions([twice], tokenizer)
    (answers,) = questions.answer(Script(tokenizer, " (a)", questions))
    assert [answer.claim_id for answer in answers] == [claim.id for claim in twice.claims]


def test_a_claim_that_is_an_example_of_its_page_is_asked_with_another(tokenizer: Any) -> None:
    train = tuple(Claim(str(k), f"Ann has {k} cats.", "SUPPORTS") for k in range(3))
    asked = (
        Claim("x", "ANN has 0  cats.", "SUPPORTS"),
        Claim("y", "Ann has 1 cats.", "REFUTES"),
        Claim("z", "No.", "REFUTES"),
    )
    page = Document("Ann", "Ann.", train, asked, "fever")
    questions = FeverQuestions([page], tokenizer, num_shots=2)
    prompts = [tokenizer.decode(question.prompt) for question in questions.prompts]
    examples = [re.findall(r"Claim: (.*)\nA: \((.)\)", prompt) for prompt in prompts]
    shared = list(choose_examples(page, 2, 0))
    assert examples[2] == shared
    for claim, found in zip(asked[:2], examples, strict=False):
        same = [text for text, _ in shared if text.lower().split() == claim.text.lower().split()]
        assert (found == shared) == (not same) and len(found) == 2
        assert all(text.lower().split() != claim.text.lower().split() for text, _ in found)
    assert questions.own_examples == sum(found != shared for found in examples) >= 1


def test_no_claims_give_every_member_no_answers(documents: list[Document], tokenizer: Any, respond_with: Any) -> None:
    questions = FeverQuestions(documents[1:2], tokenizer)
    assert len(questions) == 0 and questions.trees == []
    assert questions.answer(respond_with(None, None)) == [[], []]


def test_a_respond_of_the_wrong_size_is_refused(documents: list[Document], tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="expected \\[members, "):
        FeverQuestions(documents, tokenizer).answer(lambda trees, about, nodes: np.zeros((1, 3), dtype=np.int64))


class Script:
    """A member that writes the same text, then ends, whatever is asked."""

    def __init__(self, tokenizer: Any, text: str, questions: FeverQuestions) -> None:
        plain = tokenizer("A:", add_special_tokens=False)["input_ids"]
        new = tokenizer(f"A:{text}", add_special_tokens=False)["input_ids"][len(plain) :]
        self.tokens = [*new, tokenizer.eos_token_id]
        self.prompts = {question.prompt for question in questions.prompts}
        self.rounds = 0

    def __call__(self, trees: Any, about: Any, nodes: Any) -> Any:
        self.rounds += 1
        return np.array([[self._next(t, n) for t, read in zip(trees, nodes, strict=True) for n in read]])

    def _next(self, tree: Any, node: int) -> int:
        path = tuple(tree.tokens[i] for i in tree.path(node))
        depth = next(d for d in range(MAX_ANSWER_TOKENS + 1) if path[: len(path) - d] in self.prompts)
        return int(self.tokens[min(depth, len(self.tokens) - 1)])
