from __future__ import annotations

import pytest

from trainables.adapters.memory.grouping import group_documents
from trainables.errors import ConfigError

CATS, CARS = [1, 2, 3, 4, 5], [11, 12, 13, 14, 15]
DOCUMENTS = [CARS, CATS + [6], CARS + [16], CATS, CATS + [7, 8], CARS + [17]]


def test_as_many_groups_as_documents_is_the_identity() -> None:
    assert group_documents(DOCUMENTS, 6) == [0, 1, 2, 3, 4, 5]


def test_similar_documents_share_a_group_numbered_by_first_appearance() -> None:
    assert group_documents(DOCUMENTS, 2) == [0, 1, 0, 1, 1, 0]
    assert group_documents(DOCUMENTS, 1) == [0] * 6


def test_complete_linkage_keeps_the_ends_of_a_drift_apart() -> None:
    drift = [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert group_documents(drift, 2) == [0, 0, 1, 1]


@pytest.mark.parametrize("num_clusters", [0, 7])
def test_an_impossible_number_of_groups_is_refused_with_both_numbers(num_clusters: int) -> None:
    with pytest.raises(ConfigError, match=f"num_clusters is {num_clusters} but there are 6 documents"):
        group_documents(DOCUMENTS, num_clusters)
