from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from trainables.adapters.memory.masked import trees_of
from trainables.data.counterfact import CounterfactRecord
from trainables.data.documents import Document
from trainables.probes.counterfact.plan import CounterfactPlan
from trainables.probes.counterfact.probe import CounterfactProbe
from trainables.probes.counterfact.targets import METRICS, begins_with, token_f1

RECORDS = [
    CounterfactRecord(
        3,
        "{} was made in",
        "Tetris",
        "Russia",
        "Norway",
        ("Where is Tetris from? It is from",),
        ("Pong was made in", "Snake was made in"),
    ),
    CounterfactRecord(8, "The home of {} is", "Röyksopp", "Norway", "Russia"),
]


def probe(records: list[CounterfactRecord], tokenizer: Any, **settings: Any) -> CounterfactProbe:
    usual = {"num_answers": 5, "answer_tokens": 5, "temperature": 1.0, "seed": 0}
    plan = CounterfactPlan(data="", counterfact_records=len(records), **usual | settings)
    return CounterfactProbe(plan, records, tokenizer)


class SaysText:
    """A model sure of one text after every prompt, and of the end after that."""

    def __init__(self, tokenizer: Any, text: str) -> None:
        known = tokenizer("in", add_special_tokens=False)["input_ids"]
        new = tokenizer("in" + text, add_special_tokens=False)["input_ids"][len(known) :]
        self.tokens = [*new, tokenizer.eos_token_id]
        self.size = len(tokenizer)

    def next_logits(self, sequences: list[list[int]]) -> Tensor:
        logits = torch.zeros(len(sequences), self.size)
        for row, sequence in enumerate(sequences):
            said = next(n for n in range(len(self.tokens), -1, -1) if sequence[-n:] == self.tokens[:n] or n == 0)
            logits[row, self.tokens[said]] = 100.0
        return logits


class LastToken:
    """A model whose logits are a random function of the last two tokens."""

    def __init__(self, size: int) -> None:
        self.table = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
        self.largest = 0

    def next_logits(self, sequences: list[list[int]]) -> Tensor:
        assert len({tuple(sequence) for sequence in sequences}) == len(sequences)
        self.largest = max(self.largest, len(sequences))
        last = torch.tensor([sequence[-2:] for sequence in sequences])
        return self.table[last[:, 0]] + 2 * self.table[last[:, 1]]


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        (" Norway.", "Norway", True),
        ("\nNORWAY", " Norway", True),
        ("the Norway", "Norway", False),
        ("", "x", False),
        (" Indiana, of", "India", False),
        (" India's north", "India", True),
        ("India", "Indiana", False),
        (' "New  york", he', "New York", True),
        (" New", "New York", False),
        (" U.S. Army", "U.S.", True),
        (" Italian-American", "Italian", True),
        (" भारती", "भारत", False),
        (" Sa\u0303o Paulo", "S\u00e3o Paulo", True),
        (" +1", "+", True),
        (" x", " ", False),
    ],
)
def test_a_target_is_named_when_the_answer_begins_with_it(answer: str, target: str, expected: bool) -> None:
    assert begins_with(answer, target) is expected


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("Norway", "norway!", 1.0),
        ("in the Norway", "Norway", 2 / 3),
        ("Sweden", "Norway", 0.0),
        ("", "Norway", 0.0),
        ("Los Los Angeles", "Los Angeles", 0.8),
        ("the", "a", 1.0),
    ],
)
def test_token_f1_counts_words_as_squad_does(answer: str, target: str, score: float) -> None:
    assert token_f1(answer, target) == pytest.approx(score)


def test_rates_tell_true_from_new_targets_on_every_kind_of_prompt(tokenizer: Any) -> None:
    result = probe(RECORDS, tokenizer, num_answers=3, answer_tokens=12).ask_one(SaysText(tokenizer, " Norway"))
    assert set(result.metrics) == set(METRICS)
    assert result.metrics == pytest.approx(
        {
            "true_rate": 0.5,
            "new_rate": 0.5,
            "token_f1": 0.5,
            "paraphrase_true_rate": 0.0,
            "paraphrase_new_rate": 1.0,
            "neighborhood_true_rate": 0.0,
            "neighborhood_new_rate": 1.0,
        }
    )
    assert result.answers[1] == {
        "case_id": 8,
        "page": None,
        "masked": False,
        "prompt": "The home of Röyksopp is",
        "target_true": "Norway",
        "target_new": "Russia",
        "answers": [" Norway"] * 3,
        "paraphrase_answers": [],
        "neighborhood_answers": [],
    }


def test_metrics_without_prompts_are_left_out(tokenizer: Any) -> None:
    result = probe(RECORDS[1:], tokenizer, seed=0).ask_one(LastToken(len(tokenizer)))
    assert set(result.metrics) == {"true_rate", "new_rate", "token_f1"}
    empty = probe([], tokenizer, seed=0).ask_one(LastToken(len(tokenizer)))
    assert empty.metrics == {} and empty.answers == []


def test_answers_depend_on_seed_and_record_alone(tokenizer: Any) -> None:
    model = LastToken(len(tokenizer))
    both = probe(RECORDS, tokenizer, seed=5).ask_one(model).answers
    alone = probe(RECORDS[1:], tokenizer, seed=5).ask_one(model).answers
    assert both[1] == alone[0]
    other = probe(RECORDS[1:], tokenizer, seed=6).ask_one(model).answers
    assert other[0]["answers"] != alone[0]["answers"]
    assert len(set(alone[0]["answers"])) > 1


def test_a_low_temperature_makes_answers_agree(tokenizer: Any) -> None:
    cold = probe(RECORDS, tokenizer, temperature=1e-4, seed=0).ask_one(LastToken(len(tokenizer)))
    assert all(len(set(sample["answers"])) == 1 for sample in cold.answers)


def pages(*titles: str) -> list[Document]:
    return [Document(title, "Text.", (), (), "wiki") for title in titles]


def test_records_with_a_page_among_the_documents_and_others_are_scored_apart(tokenizer: Any) -> None:
    plan = probe(RECORDS, tokenizer, answer_tokens=12).plan
    about = CounterfactProbe(plan, RECORDS, tokenizer, pages("Ann", "R\u00f6yksopp"))
    assert about.counts == {"counterfact_with_page": 1, "counterfact_without_page": 1}
    found = about.ask_one(SaysText(tokenizer, " Norway"))
    assert [answer["page"] for answer in found.answers] == [None, "R\u00f6yksopp"]
    rates = {name: value for name, value in found.metrics.items() if name.endswith("page_true_rate")}
    assert rates == {"with_page_true_rate": 1.0, "without_page_true_rate": 0.0}
    assert found.metrics["true_rate"] == 0.5


class Masked:
    """A member that is masked: says another text when it is asked with a document's entries."""

    num_members = 2

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.asked = tokenizer, []

    def is_masked(self, member: int, document: int) -> bool:
        return member == 1

    @contextmanager
    def attached(self, member: int, document: int | None = None) -> Iterator[Any]:
        self.asked.append((member, document))
        says = SaysText(self.tokenizer, " Russia" if document is None else " Norway")

        class Whole:
            device = torch.device("cpu")

            def __call__(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
                trees = trees_of(tokens, mask)
                paths = [[[tree.tokens[n] for n in tree.path(node)] for node in range(len(tree))] for tree in trees]
                return torch.stack([says.next_logits(rows) for rows in paths])

        yield Whole()


def test_a_hard_memory_is_masked_with_the_set_of_the_records_page_where_it_has_one(tokenizer: Any) -> None:
    about = CounterfactProbe(
        probe(RECORDS, tokenizer, answer_tokens=12).plan, RECORDS, tokenizer, pages("Ann", "R\u00f6yksopp")
    )
    members = Masked(tokenizer)
    free, masked = about.ask(members)
    assert members.asked == [(0, None), (1, None), (1, 1)]
    assert [answer["masked"] for answer in masked.answers] == [False, True]
    assert masked.metrics["masked"] == 0.5 and "masked" not in free.metrics
    assert [set(answer["answers"]) for answer in masked.answers] == [{" Russia"}, {" Norway"}]
    assert [set(answer["answers"]) for answer in free.answers] == [{" Russia"}, {" Russia"}]
