"""Kernel-like operations of one training step: on a GPU a small step takes as long as launching them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from benchmarks.launches import as_on_a_gpu, launches
from benchmarks.random_model import RandomModel
from trainables.lm.aliases import Alias

MOST, MOST_OF_EIGHT = 450, 1.15
"""Operations of a step of one trial, and those of eight as a multiple of it."""
LENGTHS = (14, 9, 16, 11)


@pytest.fixture(scope="module")
def model() -> RandomModel:
    """Pythia-410m's blocks and vocabulary in miniature, six blocks above the memory."""
    tiny = Alias("tiny", "", "gpt_neox", 24, 16, 32, 2, 2, 50304, False, 64, 8)
    made = RandomModel(tiny, 17, torch.float32, torch.device("cpu"))
    made.draw_texts(LENGTHS)
    return made


def step(model: RandomModel, members: int, **fields: object) -> Counter[str]:
    """Count one step, an epoch of four texts, once everything is made that is made once."""
    pack = model.pack(members, 8, **fields)
    with model.attending("text_by_text"):
        pack.train_epoch(0)
        return launches(lambda: pack.train_epoch(1))


@pytest.mark.parametrize("fields", [{}, {"allocation": "partitioned", "alpha": 0.5}], ids=["plain", "inductive"])
def test_a_step_as_on_a_gpu_has_few_launches_and_members_add_hardly_any(model: RandomModel, fields: dict) -> None:
    with as_on_a_gpu():
        one, eight = (step(model, members, **fields) for members in (1, 8))
    print({name: (one[name], eight[name]) for name in sorted({*one, *eight})}, one.total(), eight.total())
    assert one["products"] > 4 * 2 * 6, "the blocks' products are counted"
    assert one.total() <= MOST
    assert eight.total() <= MOST_OF_EIGHT * one.total()


def test_members_at_all_blocks_take_few_more_launches_than_the_lowest_alone(model: RandomModel) -> None:
    with as_on_a_gpu():
        one, six = step(model, 1), step(model, 6, layers=[17, 18, 19, 20, 21, 22])
    print(one.total(), six.total(), {name: (one[name], six[name]) for name in sorted({*one, *six})})
    assert six["products"] == one["products"], "each block runs once"
    assert six.total() <= 1.2 * one.total()
