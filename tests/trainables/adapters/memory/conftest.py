"""Real-looking token sequences for the allocation tests: pages about people, sharing phrases."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

_NAMES = "Ada Boris Carla Dmitri Elena Farid Greta Hugo Ines Jonas Karin Luis Mara Nils Olga Pavel".split()
_PLACES = "Lisbon Oslo Kyoto Lima Cairo Perth Quebec Turin Galway Bergen Osaka Tunis".split()
_TRADES = "actor singer painter chemist sailor judge farmer poet pilot baker".split()
_SENTENCES = [
    "{name} is a {trade} who was born in {place} and lives in {other}",
    "in {year} {name} moved from {place} to {other} to work as a {trade}",
    "the {trade} {name} has won several awards in {place} since {year}",
    "{name} studied in {other} before becoming known as a {trade} in {year}",
    "critics in {place} called the work of {name} the best of {year}",
]


def _pages(count: int, segments: int = 3, seed: int = 0) -> list[list[list[int]]]:
    """Return `count` groups of `segments` segments each; words are numbered by first appearance."""
    rng = random.Random(seed)
    numbers: dict[str, int] = {}
    groups = []
    for _ in range(count):
        name, homes, trade = rng.choice(_NAMES), rng.sample(_PLACES, 3), rng.choice(_TRADES)
        group = []
        for _ in range(segments):
            words: list[str] = []
            for sentence in rng.choices(_SENTENCES, k=3):
                place, other = rng.sample(homes, 2)
                year = rng.randint(1950, 1960)
                words += sentence.format(name=name, trade=trade, place=place, other=other, year=year).split()
            group.append([numbers.setdefault(word, len(numbers)) for word in words])
        groups.append(group)
    return groups


@pytest.fixture(scope="session")
def pages() -> Callable[..., list[list[list[int]]]]:
    return _pages
